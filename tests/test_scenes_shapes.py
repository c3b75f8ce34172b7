"""Intersections agree with bisection on the solids' implicit functions, normals with their gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks.scenes import shapes
from tasks.scenes.objects import PARTS, Part

RAYS = 200


def inside_ellipsoid(p: np.ndarray, radii: tuple[float, ...]) -> np.ndarray:
    return ((p / np.asarray(radii)) ** 2).sum(-1) - 1


def inside_frustum(p: np.ndarray, r0: float, r1: float, h: float, axis: str = "y") -> np.ndarray:
    along, across = (1, [0, 2]) if axis == "y" else (2, [0, 1])
    y = p[..., along]
    wall = np.linalg.norm(p[..., across], axis=-1) - (r0 + (r1 - r0) * y / h)
    return np.maximum(np.maximum(wall, -y), y - h)


def inside_convex(p: np.ndarray, planes: tuple[tuple[float, ...], ...]) -> np.ndarray:
    table = np.asarray(planes)
    return (p @ table[:, :3].T - table[:, 3]).max(-1)


def inside_torus(p: np.ndarray, R: float, r: float) -> np.ndarray:
    return (np.hypot(p[..., 0], p[..., 1]) - R) ** 2 + p[..., 2] ** 2 - r * r


INSIDE: dict[str, Callable[..., np.ndarray]] = {
    "ellipsoid": inside_ellipsoid,
    "frustum": inside_frustum,
    "convex": inside_convex,
    "torus": inside_torus,
}
SOLIDS = [
    pytest.param(part, id=f"{name}-{k}-{part.shape}")
    for name, parts in PARTS.items()
    for k, part in enumerate(parts)
    if part.shape in INSIDE
]


def rays_at(part: Part, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An origin outside the part and directions towards points about it, in the part's frame."""
    rng = np.random.default_rng(seed)
    hull = part.hull.T - part.at
    centre, radius = hull.mean(0), np.linalg.norm(hull - hull.mean(0), axis=1).max()
    away = rng.normal(size=3)
    origin = centre + away / np.linalg.norm(away) * 4.0 * max(radius, 0.2)
    aims = centre + rng.normal(size=(RAYS, 3)) * radius * 0.4
    return origin, aims - origin


def first_crossing(inside: Callable[[np.ndarray], np.ndarray], o: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Ray parameter where the implicit function first turns negative: fine steps, then bisection."""
    steps = np.linspace(0.4, 1.9, 4001)
    negative = inside(o + steps[None, :, None] * d[:, None]) < 0  # [n, steps]
    found = negative.any(1)
    first = negative.argmax(1)
    high = steps[first]
    low = steps[np.maximum(first - 1, 0)]
    for _ in range(50):
        middle = (low + high) / 2
        within = inside(o + middle[:, None] * d) < 0
        high, low = np.where(within, middle, high), np.where(within, low, middle)
    return np.where(found, high, np.inf)


@pytest.mark.parametrize("part", SOLIDS)
def test_first_hit_agrees_with_bisection_and_normal_with_gradient(part: Part) -> None:
    def inside(p: np.ndarray) -> np.ndarray:
        return INSIDE[part.shape](p, *part.values)

    origin, d = rays_at(part, seed=1)
    with np.errstate(all="ignore"):
        t, n = part.intersect(tuple(origin.tolist()), tuple(d.T))
    expected = first_crossing(inside, origin, d)
    both = np.isfinite(t) & np.isfinite(expected)
    assert both.sum() > RAYS // 20
    np.testing.assert_allclose(t[both], expected[both], atol=2e-6)
    # Steps may slip past a corner that the formula hits, never the other way round.
    assert np.isfinite(t[np.isfinite(expected)]).mean() > 0.98
    grazing = np.isfinite(t) & ~np.isfinite(expected)
    assert np.abs(inside(origin + t[grazing, None] * d[grazing])).max(initial=0) < 1e-6

    normals = np.stack(np.broadcast_arrays(*n), -1)[both]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    points = origin + t[both, None] * d[both]
    step = 1e-6
    gradient = np.stack([inside(points + step * e) - inside(points - step * e) for e in np.eye(3)], -1)
    gradient /= np.linalg.norm(gradient, axis=-1, keepdims=True)
    agree = (normals * gradient).sum(-1) > 1 - 1e-5
    assert agree.mean() > 0.97  # but for edges, where the gradient jumps
    assert ((normals * d[both]).sum(-1) < 1e-9).all()


def test_triangle_hits_are_in_its_plane_and_in_its_corners_hull() -> None:
    points = ((0.0, 0.0), (2.0, 0.0), (0.0, 1.0))
    rng = np.random.default_rng(0)
    d = np.concatenate([rng.uniform(-1, 1, (500, 2)), np.ones((500, 1))], 1)
    t, n = shapes.triangle((0.3, 0.3, -2.0), tuple(d.T), points)
    x, y = 0.3 + 2 * d[:, 0], 0.3 + 2 * d[:, 1]
    np.testing.assert_array_equal(np.isfinite(t), (x >= 0) & (y >= 0) & (x / 2 + y <= 1))
    assert (t[np.isfinite(t)] == 2.0).all()
    assert (n[2] == -1).all()


@pytest.mark.parametrize("name", PARTS)
def test_parts_lie_between_their_points(name: str) -> None:
    for part in PARTS[name]:
        origin, d = rays_at(part, seed=2)
        with np.errstate(all="ignore"):
            t, _ = part.intersect(tuple(origin.tolist()), tuple(d.T))
        hits = (origin + t[:, None] * d)[np.isfinite(t)] + np.asarray(part.at)
        for direction in np.random.default_rng(3).normal(size=(50, 3)):  # what no plane tells apart is inside
            assert (hits @ direction).max(initial=-np.inf) <= (direction @ part.hull).max() + 1e-6


def test_cone_wall_is_hit_when_the_ray_runs_parallel_to_it() -> None:
    """The quadratic's leading coefficient is zero there."""
    steep = (np.array([-1.0]), np.array([-1.0]), np.array([0.0]))
    t, n = shapes.frustum((1.5, 1.5, 0.0), steep, 1.0, 0.0, 1.0)
    np.testing.assert_allclose(t, 1.0)  # reaches (0.5, 0.5, 0), on the wall, along the far wall's slope
    np.testing.assert_allclose(n[0] / n[1], 1.0)
