"""Ray intersections with ellipsoids, frusta, convex solids, tori and triangles.

Every function takes an origin of three floats and directions of three arrays that broadcast to one shape, and returns
the ray parameter of the first hit in front of the camera (of that shape; inf where there is none) with an outward
normal (three arrays, not unit length; anything where there is no hit). Only correctly rounded elementwise operations
are used, so that the answer depends neither on the processor nor on which rays are cast together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Origin = tuple[float, float, float]
Axes = tuple[Any, Any, Any]  # three arrays; a component that is constant may be a float
Hit = tuple[np.ndarray, Axes]

NEAR = 0.05  # ray parameter below which nothing is seen
_TORUS_STEPS, _TORUS_POLISH, _TORUS_TOLERANCE = 20, 3, 1e-7


def dot(a: Any, b: Any) -> Any:
    """a·b of two triples, added in a fixed order (no BLAS: its order of addition depends on the processor)."""
    return (a[0] * b[0] + a[1] * b[1]) + a[2] * b[2]


def _roots(a: np.ndarray, b: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Both roots of a t² + 2 b t + c = 0 in ascending order, inf where not real, without cancellation for small a."""
    square = b * b - a * c
    lost = square <= 0
    root = np.sqrt(np.maximum(square, 0.0))
    q = root - b if b.max() < 0 else -(b + np.where(b < 0, -root, root))
    first = q / np.where(a == 0, 1e-30, a)
    second = c / np.where(q == 0, 1e-30, q)
    near, far = np.minimum(first, second), np.maximum(first, second)
    np.copyto(near, np.inf, where=lost)
    np.copyto(far, np.inf, where=lost)
    return near, far


def ellipsoid(o: Origin, d: Axes, radii: Sequence[float]) -> Hit:
    """Ellipsoid at the origin with half axes `radii`, seen from outside."""
    rx, ry, rz = radii
    so = (o[0] / rx, o[1] / ry, o[2] / rz)
    sd = (d[0] / rx, d[1] / ry, d[2] / rz)
    t, _ = _roots(dot(sd, sd), dot(sd, so), dot(so, so) - 1.0)
    np.copyto(t, np.inf, where=t <= NEAR)
    return t, ((so[0] + t * sd[0]) / rx, (so[1] + t * sd[1]) / ry, (so[2] + t * sd[2]) / rz)


def frustum(o: Origin, d: Axes, r0: float, r1: float, h: float, axis: str = "y") -> Hit:
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
        y = o[1] + side * d[1]  # not finite where there is no root
        np.copyto(t, side, where=(side > NEAR) & (y >= 0) & (y <= h))
    x, y, z = o[0] + t * d[0], -k * (r0 + k * (o[1] + t * d[1])), o[2] + t * d[2]
    # One cap at most faces the camera.
    height, radius, sign = (0.0, r0, -1.0) if o[1] < 0 else (h, r1, 1.0)
    if radius > 0 and not 0 <= o[1] <= h:
        tc = (height - o[1]) / np.where(d[1] == 0, 1e-30, d[1])
        cx, cz = o[0] + tc * d[0], o[2] + tc * d[2]
        cap = (tc > NEAR) & (tc < t) & (cx * cx + cz * cz <= radius * radius)
        np.copyto(t, tc, where=cap)
        for side, value in ((x, 0.0), (y, sign), (z, 0.0)):
            np.copyto(side, value, where=cap)
    return t, (x, y, z)


def convex(o: Origin, d: Axes, planes: Sequence[Sequence[float]]) -> Hit:
    """Intersection of half-spaces [nx, ny, nz, q]: n·p <= q, seen from outside."""
    table = np.asarray(planes)
    away = table[:, 3] - dot(table.T[:3], o)  # below nought where the camera is outside: the ray may enter there alone
    front, back = np.flatnonzero(away < 0), np.flatnonzero(away >= 0)
    if len(front) == 0:
        return np.full(np.broadcast_shapes(*(axis.shape for axis in d)), np.inf), d
    order, spread = np.concatenate([front, back]), (slice(None), *(None,) * d[0].ndim)
    slope = dot(table.T[:3][:, order][:, *spread], d)  # [K, rays]
    t = away[order][spread] / slope
    into, out_of = t[: len(front)], t[len(front) :]
    np.copyto(into, np.inf, where=slope[: len(front)] >= 0)
    np.copyto(out_of, np.inf, where=slope[len(front) :] <= 0)
    enter, face = into[0], np.zeros(into[0].shape, np.intp)
    for k, other in enumerate(into[1:], 1):
        np.copyto(face, k, where=other > enter)
        np.maximum(enter, other, out=enter)
    np.copyto(enter, np.inf, where=(enter >= out_of.min(0, initial=np.inf)) | (enter <= NEAR))
    x, y, z = table.T[:3][:, front].take(face, axis=1)
    return enter, (x, y, z)


def torus(o: Origin, d: Axes, R: float, r: float) -> Hit:
    """Torus around the z axis: rays march by the distance to it, then Newton's method ends on the surface."""
    square = dot(d, d)
    length = np.sqrt(square)
    closest = -dot(d, o) / (length * length)
    reach = R + r
    near = np.nonzero(dot(o, o) - closest * closest * (length * length) <= reach * reach)  # its bounding sphere
    length = length[near]
    x, y, z = (np.broadcast_to(axis, square.shape)[near] for axis in d)
    rays = (x, y, z)
    t = np.maximum(closest[near] - reach / length, NEAR)
    for _ in range(_TORUS_STEPS):
        t = t + (_to_tube(o, rays, t, R)[0] - r) / length
    for _ in range(_TORUS_POLISH):
        gap, n = _torus_distance(o, rays, t, R, r)
        slope = dot(n, rays)
        t = np.where(slope < -1e-3, t - gap / np.where(slope < -1e-3, slope, 1.0), t)
    gap, n = _torus_distance(o, rays, t, R, r)
    hit = (np.abs(gap) < _TORUS_TOLERANCE) & (dot(n, rays) < 0)
    first, normal = np.full(square.shape, np.inf), np.zeros((3, *square.shape))
    first[near] = np.where(hit, t, np.inf)
    for whole, axis in zip(normal, n):
        whole[near] = axis
    return first, (normal[0], normal[1], normal[2])


def _to_tube(o: Origin, d: Axes, t: np.ndarray, R: float) -> tuple[np.ndarray, Axes, np.ndarray, np.ndarray]:
    """Distance to the circle inside the tube, the point, its distance to the axis, and how far beyond R that is."""
    x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
    rho = np.sqrt(x * x + y * y)
    out = rho - R
    return np.sqrt(out * out + z * z), (x, y, z), rho, out


def _torus_distance(o: Origin, d: Axes, t: np.ndarray, R: float, r: float) -> tuple[np.ndarray, Axes]:
    tube, (x, y, z), rho, out = _to_tube(o, d, t, R)
    scale = out / np.where(rho == 0, 1.0, rho) / np.where(tube == 0, 1.0, tube)
    return tube - r, (x * scale, y * scale, z / np.where(tube == 0, 1.0, tube))


def triangle(o: Origin, d: Axes, points: Sequence[Sequence[float]]) -> Hit:
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
