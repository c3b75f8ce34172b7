"""Two views of one scene with exact matches: rays are cast through the points, so occlusion is known, not guessed.

Points lie on the near object, at the centres of the source's pixels. One is kept if the target's ray through its
projection meets the same point of the surface first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from benchmark.contracts import CorrespondenceData
from benchmark.system.digest import fingerprint
from tasks.scenes.canvas import TAN_HALF_VIEW
from tasks.scenes.fill import SEED
from tasks.scenes.kinds import Pictures
from tasks.scenes.layout import POINTS, Camera, Layout, compose, scene_stream
from tasks.scenes.objects import HULLS, PARTS
from tasks.scenes.surroundings import FAR, MOUNTAINS
from tasks.scenes.tables import OBJECTS

RULE = 1  # raised when other points are chosen
MOST, TRIED = 16, 128  # points of a pair, and of its source that are looked for in its target
SAME = 1e-4  # metres within which two rays meet one point
EDGES = (20.0, 40.0)  # degrees between the classes of view-point change
SPLIT = "pairs"


def cast(layout: Layout, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the rays through (u, v) [P], the picture's plane at distance 1, meet first.

    Planar depth [P] in metres (inf in the sky and on the mountains), and the number [P] of the object from 1 (0: none).
    """
    camera = layout.camera
    dy, dz = v * camera.cos - camera.sin, v * camera.sin + camera.cos
    below = dy < -1e-6
    depth = np.where(below, -camera.height / np.where(below, dy, -1.0), np.inf)
    depth[depth * dz >= (MOUNTAINS if layout.surroundings.mountains else FAR)] = np.inf
    number = np.zeros(len(u), np.int64)
    with np.errstate(all="ignore"):  # misses are infinities, by design
        for place, item in enumerate(layout.items, 1):
            c, s = item.cos, item.sin
            sx, sy, sz = (item.look.size * k for k in item.look.scale)
            d = (c * u - s * dz) / sx, dy / sy, (s * u + c * dz) / sz
            o = (s * item.z - c * item.x) / sx, camera.height / sy, (-s * item.x - c * item.z) / sz
            for part in PARTS[item.look.category]:
                t, _ = part.intersect((o[0] - part.at[0], o[1] - part.at[1], o[2] - part.at[2]), d)
                number[t < depth] = place
                depth = np.minimum(depth, t)
    return depth, number


def plane(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) of places [P, 2] in pixels."""
    scale = 2 * TAN_HALF_VIEW / size
    return (places[:, 0] - size / 2) * scale, (size / 2 - places[:, 1]) * scale


def world(camera: Camera, u: np.ndarray, v: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """[P, 3] metres right of, above and before the foot of the camera."""
    dy, dz = v * camera.cos - camera.sin, v * camera.sin + camera.cos
    return np.stack([depth * u, depth * dy + camera.height, depth * dz], 1)


def projected(camera: Camera, points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Places [P, 2] in pixels of points [P, 3] of `world`, and their planar depth [P]."""
    x, y, z = points[:, 0], points[:, 1] - camera.height, points[:, 2]
    ahead = z * camera.cos - y * camera.sin
    scale = size / (2 * TAN_HALF_VIEW)
    return np.stack(
        [size / 2 + x / ahead * scale, size / 2 - (y * camera.cos + z * camera.sin) / ahead * scale], 1
    ), ahead


def carried(second: Layout, points: np.ndarray) -> np.ndarray:
    """Points [P, 3] of the world of the first view of a pair in that of the second."""
    assert second.surroundings.turn is not None
    c, s, p, q = second.surroundings.turn
    x, z = points[:, 0] - p, points[:, 2] - q
    return np.stack([c * x + s * z, points[:, 1], c * z - s * x], 1)


def degrees_between(first: Layout, second: Layout) -> float:
    """The angle of the rotation from one camera to the other."""
    assert second.surroundings.turn is not None
    c = second.surroundings.turn[0]
    a, b = first.camera, second.camera
    trace = c + (a.cos * b.cos + c * a.sin * b.sin) + (a.sin * b.sin + c * a.cos * b.cos)
    return math.degrees(math.acos(min(1.0, max(-1.0, (trace - 1) / 2))))


@lru_cache(maxsize=1024)
def matched(pair: int, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Places [K, 2] in the source and in the target, and the longer side of what the target shows of the object."""
    first, second = (compose(SEED, 2 * pair + view, SPLIT) for view in (0, 1))
    here, there = (_on_object(layout, size) for layout in (first, second))
    order = np.argsort(scene_stream(SEED, pair, SPLIT, POINTS).field(len(here)), kind="stable")
    source = here[order[:TRIED]]
    u, v = plane(source, size)
    points = carried(second, world(first.camera, u, v, cast(first, u, v)[0]))
    target, ahead = projected(second.camera, points, size)
    depth, number = cast(second, *plane(target, size))
    inside = ((target > 0) & (target < size)).all(1)
    seen = np.flatnonzero(inside & (number == 1) & (np.abs(depth - ahead) < SAME))[:MOST]
    return source[seen], target[seen], float((there.max(0) - there.min(0)).max() + 1)


def _on_object(layout: Layout, size: int) -> np.ndarray:
    """[P, 2] centres of the pixels that show the near object; looked for where its parts' outlines lie."""
    item = layout.items[0]
    x, y, z = HULLS[item.look.category][0] * (item.look.size * np.array(item.look.scale))[:, None]
    hull = np.stack([item.x + item.cos * x + item.sin * z, y, item.z - item.sin * x + item.cos * z], 1)
    edges = projected(layout.camera, hull, size)[0]
    low, high = np.clip([edges.min(0) - 1, edges.max(0) + 2], 0, size).astype(int)
    columns, rows = np.meshgrid(*(np.arange(*ends) + 0.5 for ends in zip(low, high)))
    pixels = np.stack([columns.ravel(), rows.ravel()], 1)
    found: np.ndarray = pixels[cast(layout, *plane(pixels, size))[1] == 1]
    return found


@dataclass(frozen=True)
class ScenePairs(CorrespondenceData):
    """The first and the second view of each scene."""

    images: Pictures
    metric: bool = True

    @property
    def digest(self) -> str:
        return fingerprint({"scene pairs": self.images.digest, "rule": RULE})

    @cached_property
    def pairs(self) -> np.ndarray:  # type: ignore[override]
        return np.arange(len(self.images) // 2 * 2, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def categories(self) -> Sequence[str]:  # type: ignore[override]
        return [OBJECTS[pair % len(OBJECTS)] for pair in range(len(self))]

    @cached_property
    def views(self) -> Sequence[str]:  # type: ignore[override]
        names = [f"{low:.0f}–{high:.0f}°" for low, high in pairwise((0, *EDGES, 70))]
        angles = [degrees_between(*(compose(SEED, 2 * i + view, SPLIT) for view in (0, 1))) for i in range(len(self))]
        return [names[int(np.searchsorted(EDGES, angle))] for angle in angles]

    def points(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        return matched(pair, self.images.size)[:2]

    def extent(self, pair: int) -> float:
        return matched(pair, self.images.size)[2]

    def located(self, pair: int, places: np.ndarray) -> np.ndarray:
        layout = compose(SEED, 2 * pair + 1, SPLIT)
        u, v = plane(places, self.images.size)
        return world(layout.camera, u, v, cast(layout, u, v)[0])
