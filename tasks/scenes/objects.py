"""The objects' parts (objects.toml) as primitives ready to be intersected, each between points of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.scenes import shapes
from tasks.scenes.tables import OBJECTS, read_table

Point = tuple[float, float, float]

# (sin, cos) of multiples of 36°, written out: libm's last digit differs between machines.
_TENTHS = (
    (0.0, 1.0), (0.587785252292473, 0.809016994374947), (0.951056516295154, 0.309016994374947),
    (0.951056516295154, -0.309016994374947), (0.587785252292473, -0.809016994374947), (0.0, -1.0),
    (-0.587785252292473, -0.809016994374947), (-0.951056516295154, -0.309016994374947),
    (-0.951056516295154, 0.309016994374947), (-0.587785252292473, 0.809016994374947),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One primitive in units of the object's size; `at` is its origin, and all of it lies between the points `hull`."""

    shape: str
    values: tuple[Any, ...]
    at: Point
    hull: np.ndarray  # [3, P]
    paint: str = "main"
    texture: str = "plain"

    def intersect(self, o: shapes.Origin, d: shapes.Axes) -> shapes.Hit:
        """First hit of rays given in the part's own frame, and its normals."""
        hit: Callable[..., shapes.Hit] = getattr(shapes, self.shape)
        return hit(o, d, *self.values)


def _prism_planes(low: list[float], high: list[float], y0: float, y1: float) -> tuple[tuple[float, ...], ...]:
    h = y1 - y0
    planes: list[tuple[float, ...]] = [(0.0, 1.0, 0.0, y1), (0.0, -1.0, 0.0, -y0)]
    for axis in (0, 1):
        lean = (low[axis] - high[axis]) / h
        for sign in (1.0, -1.0):
            n = (sign, lean, 0.0) if axis == 0 else (0.0, lean, sign)
            planes.append((*n, low[axis] + lean * y0))
    return tuple(planes)


def _plane_through(a: Point, b: Point, c: Point, inside: Point) -> tuple[float, ...]:
    u = tuple(q - p for p, q in zip(a, b))
    v = tuple(q - p for p, q in zip(a, c))
    n = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    q = shapes.dot(n, a)
    sign = -1.0 if shapes.dot(n, inside) > q else 1.0
    return (sign * n[0], sign * n[1], sign * n[2], sign * q)


def _star_arms(outer: float, inner: float, thickness: float) -> Iterator[tuple[tuple[float, ...], ...]]:
    """Five convex arms: each the hull of the two central peaks, a tip and its two notches."""
    front, back = (0.0, 0.0, -thickness), (0.0, 0.0, thickness)
    for arm in range(0, 10, 2):
        tip = (outer * _TENTHS[arm][0], outer * _TENTHS[arm][1], 0.0)
        notches = [(inner * _TENTHS[k % 10][0], inner * _TENTHS[k % 10][1], 0.0) for k in (arm - 1, arm + 1)]
        inside = (0.5 * tip[0], 0.5 * tip[1], 0.0)
        yield tuple(
            _plane_through(*corners, inside)
            for notch in notches
            for corners in ((front, tip, notch), (back, tip, notch), (front, back, notch))
        )


def _corners(low: Point, high: Point) -> np.ndarray:
    return np.array(list(itertools.product(*zip(low, high))))


def _vertices(planes: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """[P, 3] where three planes of a convex solid meet on it."""
    table = np.array(planes)
    threes = table[list(itertools.combinations(range(len(table)), 3))]  # [T, 3, 4]
    threes = threes[np.abs(np.linalg.det(threes[..., :3])) > 1e-9]
    points = np.linalg.solve(threes[..., :3], threes[..., 3:])[..., 0]
    found: np.ndarray = points[(points @ table[:, :3].T <= table[:, 3] + 1e-9).all(1)]
    return found


def _parts(row: dict[str, Any]) -> Iterator[Part]:
    shape, at = row["shape"], tuple(row.get("at", (0.0, 0.0, 0.0)))
    looks = {"paint": row.get("paint", "main"), "texture": row.get("texture", "plain")}

    def part(kind: str, values: tuple[Any, ...], hull: np.ndarray) -> Part:
        return Part(kind, values, at, (hull + at).T, **looks)

    if shape == "ellipsoid":
        x, y, z = row["r"]
        yield part(shape, (tuple(row["r"]),), _corners((-x, -y, -z), (x, y, z)))
    elif shape == "frustum":
        (r0, r1), h, axis = row["r"], row["h"], row.get("axis", "y")
        ends = np.concatenate([_corners((-r, y, -r), (r, y, r)) for r, y in ((r0, 0.0), (r1, h))])
        yield part(shape, (r0, r1, h, axis), ends if axis == "y" else ends[:, [0, 2, 1]])
    elif shape in ("prism", "planes"):
        planes = (
            _prism_planes(row["low"], row["high"], *row["y"]) if shape == "prism" else tuple(map(tuple, row["planes"]))
        )
        yield part("convex", (np.array(planes),), _vertices(planes))
    elif shape == "torus":
        wide = row["R"] + row["r"]
        yield part(shape, (row["R"], row["r"]), _corners((-wide, -wide, -row["r"]), (wide, wide, row["r"])))
    elif shape == "triangle":
        points = tuple(map(tuple, row["points"]))
        yield part(shape, (points,), np.array([(x, y, 0.0) for x, y in points]))
    else:
        for planes in _star_arms(row["outer"], row["inner"], row["thickness"]):
            yield part("convex", (np.array(planes),), _vertices(planes))


_TABLE = read_table("objects.toml")
PARTS: dict[str, tuple[Part, ...]] = {
    name: tuple(part for row in _TABLE[name]["parts"] for part in _parts(row)) for name in OBJECTS
}
# category -> all its parts' points [3, P], and where each part's begin
HULLS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    name: (
        np.concatenate([part.hull for part in parts], axis=1),
        np.cumsum([0, *(part.hull.shape[1] for part in parts[:-1])]),
    )
    for name, parts in PARTS.items()
}
