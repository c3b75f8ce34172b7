"""The objects' parts (objects.toml) as primitives ready to be intersected, with a bounding sphere each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.scenes import shapes
from tasks.scenes.tables import OBJECTS, read_table

Point = tuple[float, float, float]
Hit = Callable[..., tuple[np.ndarray, shapes.Axes]]

# (sin, cos) of multiples of 36°, written out: libm's last digit differs between machines.
_TENTHS = (
    (0.0, 1.0), (0.587785252292473, 0.809016994374947), (0.951056516295154, 0.309016994374947),
    (0.951056516295154, -0.309016994374947), (0.587785252292473, -0.809016994374947), (0.0, -1.0),
    (-0.587785252292473, -0.809016994374947), (-0.951056516295154, -0.309016994374947),
    (-0.951056516295154, 0.309016994374947), (-0.587785252292473, 0.809016994374947),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One primitive in units of the object's size; `at` is its origin, the sphere (`centre`, `radius`) bounds it."""

    shape: str
    values: tuple[Any, ...]
    at: Point
    centre: Point
    radius: float
    paint: str = "main"
    texture: str = "plain"

    def intersect(self, o: shapes.Origin, d: shapes.Axes) -> tuple[np.ndarray, shapes.Axes]:
        """First hit of rays given in the part's own frame: parameter [n] and normal, three arrays [n]."""
        hit: Hit = getattr(shapes, self.shape)
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


def _parts(row: dict[str, Any]) -> Iterator[Part]:
    shape, at = row["shape"], tuple(row.get("at", (0.0, 0.0, 0.0)))
    looks = {"paint": row.get("paint", "main"), "texture": row.get("texture", "plain")}

    def part(kind: str, values: tuple[Any, ...], centre: Point, radius: float) -> Part:
        moved = (at[0] + centre[0], at[1] + centre[1], at[2] + centre[2])
        return Part(kind, values, at, moved, radius, **looks)

    if shape == "ellipsoid":
        yield part(shape, (tuple(row["r"]),), (0.0, 0.0, 0.0), max(row["r"]))
    elif shape == "frustum":
        (r0, r1), h, axis = row["r"], row["h"], row.get("axis", "y")
        middle = (0.0, h / 2, 0.0) if axis == "y" else (0.0, 0.0, h / 2)
        yield part(shape, (r0, r1, h, axis), middle, math.sqrt(max(r0, r1) * max(r0, r1) + h * h / 4))
    elif shape == "prism":
        (lx, lz), (hx, hz), (y0, y1) = row["low"], row["high"], row["y"]
        x, z, y = max(lx, hx), max(lz, hz), (y1 - y0) / 2
        planes = _prism_planes(row["low"], row["high"], y0, y1)
        yield part("convex", (planes,), (0.0, y0 + y, 0.0), math.sqrt(x * x + y * y + z * z))
    elif shape == "planes":
        bx, by, bz, radius = row["bound"]
        yield part("convex", (tuple(map(tuple, row["planes"])),), (bx, by, bz), radius)
    elif shape == "torus":
        yield part(shape, (row["R"], row["r"]), (0.0, 0.0, 0.0), row["R"] + row["r"])
    elif shape == "triangle":
        points = tuple(map(tuple, row["points"]))
        cx, cy = (sum(p[i] for p in points) / 3 for i in (0, 1))
        squares = [(p[0] - cx) * (p[0] - cx) + (p[1] - cy) * (p[1] - cy) for p in points]
        yield part(shape, (points,), (cx, cy, 0.0), math.sqrt(max(squares)))
    else:
        for planes in _star_arms(row["outer"], row["inner"], row["thickness"]):
            yield part("convex", (planes,), (0.0, 0.0, 0.0), row["outer"])


_TABLE = read_table("objects.toml")
PARTS: dict[str, tuple[Part, ...]] = {
    name: tuple(part for row in _TABLE[name]["parts"] for part in _parts(row)) for name in OBJECTS
}
