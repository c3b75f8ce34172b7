"""Ray intersections with ellipsoids, frusta, convex solids, tori and triangles.

Every function takes an origin of three floats and directions of three arrays [n], and returns the ray parameter of the
first hit in front of the camera (inf where there is none) with an outward normal (three arrays, not unit length).
Only correctly rounded elementwise operations are used, so that the answer does not depend on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Origin = tuple[float, float, float]
Axes = tuple[Any, Any, Any]  # three arrays [n]; a component that is constant may be a float

NEAR = 0.05  # ray parameter below which nothing is seen
_TORUS_STEPS, _TORUS_POLISH, _TORUS_TOLERANCE = 20, 3, 1e-7


def dot(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """a·b of two triples, added in a fixed order (no BLAS: its order of addition depends on the processor)."""
    return (a[0] * b[0] + a[1] * b[1]) + a[2] * b[2]


def _roots(a: np.ndarray, b: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Both roots of a t² + 2 b t + c = 0 in ascending order, inf where not real, without cancellation for small a."""
    square = b * b - a * c
    real = square > 0
    root = np.sqrt(np.where(real, square, 0.0))
    q = -(b + np.where(b < 0, -root, root))
    first = q / np.where(a == 0, 1e-30, a)
    second = c / np.where(q == 0, 1e-30, q)
    return np.where(real, np.minimum(first, second), np.inf), np.where(real, np.maximum(first, second), np.inf)


def ellipsoid(o: Origin, d: Axes, radii: Sequence[float]) -> tuple[np.ndarray, Axes]:
    """Ellipsoid at the origin with half axes `radii`, seen from outside."""
    rx, ry, rz = radii
    so = (o[0] / rx, o[1] / ry, o[2] / rz)
    sd = (d[0] / rx, d[1] / ry, d[2] / rz)
    t, _ = _roots(dot(sd, sd), dot(sd, so), dot(so, so) - 1.0)
    t = np.where(t > NEAR, t, np.inf)
    s = np.where(t < np.inf, t, 0.0)
    return t, ((so[0] + s * sd[0]) / rx, (so[1] + s * sd[1]) / ry, (so[2] + s * sd[2]) / rz)


def frustum(o: Origin, d: Axes, r0: float, r1: float, h: float, axis: str = "y") -> tuple[np.ndarray, Axes]:
    """Capped frustum along `axis` ("y" or "z"): radius r0 at 0, r1 at h. A cylinder when equal, a cone when r1 is 0."""
    if axis == "z":
        t, n = frustum((o[0], o[2], o[1]), (d[0], d[2], d[1]), r0, r1, h)
        return t, (n[0], n[2], n[1])
    k = (r1 - r0) / h
    r, slope = r0 + k * o[1], k * d[1]
    a = d[0] * d[0] + d[2] * d[2] - slope * slope
    b = o[0] * d[0] + o[2] * d[2] - r * slope
    near, far = _roots(a, b, o[0] * o[0] + o[2] * o[2] - r * r)
    t = np.full(near.shape, np.inf)
    for side in (far, near):
        y = o[1] + np.where(side < np.inf, side, 0.0) * d[1]
        t = np.where((side > NEAR) & (y >= 0) & (y <= h) & (side < t), side, t)
    cap = np.zeros(t.shape)
    dy = np.where(d[1] == 0, 1e-30, d[1])
    for height, radius, sign in ((0.0, r0, -1.0), (h, r1, 1.0)):
        tc = (height - o[1]) / dy
        x, z = o[0] + tc * d[0], o[2] + tc * d[2]
        hit = (tc > NEAR) & (tc < t) & (x * x + z * z <= radius * radius)
        t = np.where(hit, tc, t)
        cap = np.where(hit, sign, cap)
    s = np.where(t < np.inf, t, 0.0)
    wall = cap == 0
    ny = np.where(wall, -k * (r0 + k * (o[1] + s * d[1])), cap)
    return t, (np.where(wall, o[0] + s * d[0], 0.0), ny, np.where(wall, o[2] + s * d[2], 0.0))


def convex(o: Origin, d: Axes, planes: Sequence[Sequence[float]]) -> tuple[np.ndarray, Axes]:
    """Intersection of half-spaces [nx, ny, nz, q]: n·p <= q, seen from outside."""
    shape = np.shape(d[0])
    enter, leave, face = np.full(shape, -np.inf), np.full(shape, np.inf), np.zeros(shape, np.intp)
    for k, (nx, ny, nz, q) in enumerate(planes):
        slope = dot((nx, ny, nz), d)
        slope = np.where(slope == 0, -1e-30, slope)
        t = (q - dot((nx, ny, nz), o)) / slope
        inward = slope < 0
        later = inward & (t > enter)
        enter = np.where(later, t, enter)
        face = np.where(later, k, face)
        leave = np.where(inward, leave, np.minimum(leave, t))
    normals = np.asarray(planes, dtype=np.float64)
    n = normals[face]
    return np.where((enter < leave) & (enter > NEAR), enter, np.inf), (n[..., 0], n[..., 1], n[..., 2])


def torus(o: Origin, d: Axes, R: float, r: float) -> tuple[np.ndarray, Axes]:
    """Torus around the z axis: rays march by the distance to it, then Newton's method ends on the surface."""
    length = np.sqrt(dot(d, d))
    closest = -dot(d, o) / (length * length)
    reach = R + r
    miss = dot(o, o) - closest * closest * (length * length) > reach * reach
    t = np.maximum(closest - reach / length, NEAR)
    for _ in range(_TORUS_STEPS):
        t = t + _torus_distance(o, d, t, R, r)[0] / length
    for _ in range(_TORUS_POLISH):
        gap, n = _torus_distance(o, d, t, R, r)
        slope = dot(n, d)
        t = np.where(slope < -1e-3, t - gap / np.where(slope < -1e-3, slope, 1.0), t)
    gap, n = _torus_distance(o, d, t, R, r)
    hit = ~miss & (np.abs(gap) < _TORUS_TOLERANCE) & (dot(n, d) < 0)
    return np.where(hit, t, np.inf), n


def _torus_distance(o: Origin, d: Axes, t: np.ndarray, R: float, r: float) -> tuple[np.ndarray, Axes]:
    x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
    rho = np.sqrt(x * x + y * y)
    out = rho - R
    tube = np.sqrt(out * out + z * z)
    scale = out / np.where(rho == 0, 1.0, rho) / np.where(tube == 0, 1.0, tube)
    return tube - r, (x * scale, y * scale, z / np.where(tube == 0, 1.0, tube))


def triangle(o: Origin, d: Axes, points: Sequence[Sequence[float]]) -> tuple[np.ndarray, Axes]:
    """Two-sided triangle of three [x, y] points in the plane z = 0; the normal faces the ray."""
    t = -o[2] / np.where(d[2] == 0, 1e-30, d[2])
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    sides = []
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0])):
        sides.append((bx - ax) * (y - ay) - (by - ay) * (x - ax))
    inside = ((sides[0] >= 0) & (sides[1] >= 0) & (sides[2] >= 0)) | (
        (sides[0] <= 0) & (sides[1] <= 0) & (sides[2] <= 0)
    )
    zero = np.zeros(t.shape)
    return np.where(inside & (t > NEAR), t, np.inf), (zero, zero, np.where(d[2] > 0, -1.0, 1.0))
