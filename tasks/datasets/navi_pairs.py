"""Pairs of NAVI's pictures: one object from two places, whose surfaces and cameras are known.

Probe3D's pairs (a1f1464, `evals/datasets/navi.py`): each fourth picture with one other of its object, up to 120° of
rotation apart, drawn. It draws in the order in which its folders are listed, and may draw a picture for itself, where
rounding makes its angle more than 0; here the order is that of the names, and it is always another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from benchmark.contracts import CorrespondenceData
from benchmark.errors import DataError
from benchmark.system.digest import fingerprint

EDGES = (0, 30, 60, 90, 120)  # degrees; of the last no pair is farther apart
SEED = 8  # Probe3D's
TRIED, MOST = 512, 32  # points of the source that are looked for in its target, and kept
SAME = 0.005  # metres: a point is seen in the target where its surface is as far away as the point
RULE = 1  # raised when other pairs or points are chosen


def pose(camera: Any, where: str) -> np.ndarray:
    """[4, 4] from metres of the object's frame to those of the camera's: x right, y down, z ahead.

    Raises DataError where the annotation has no quaternion and translation in millimetres."""
    try:
        w, x, y, z = (float(n) for n in camera["q"])
        out = np.eye(4)
        out[:3, 3] = [float(n) / 1000 for n in camera["t"]]
        length = w * w + x * x + y * y + z * z
        if not (np.isfinite(out).all() and 0 < length < np.inf):
            raise ValueError(f"q = {camera['q']}, t = {camera['t']}")
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        raise DataError(f"{where}: has no camera pose ({type(e).__name__}: {e}). Fetch its annotations again") from None
    s = 2 / length
    out[:3, :3] = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    return out


def degrees(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N] angles of the rotations from pose [4, 4] to poses [N, 4, 4]."""
    trace = np.einsum("ij,nij->n", one[:3, :3], others[:, :3, :3])
    found: np.ndarray = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    return found


def choose(groups: Sequence[str], poses: np.ndarray, step: int) -> list[tuple[int, int, float]]:
    """(source, target, degrees) among N pictures: every `step`-th with one of the same group that is drawn. A picture
    that has none within reach is left out."""
    draw, found = np.random.default_rng(SEED), []
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    for i in range(0, len(groups), step):
        others = np.array([j for j in members[groups[i]] if j != i], np.int64)
        angles = degrees(poses[i], poses[others]) if len(others) else np.zeros(0)
        near = np.flatnonzero((angles > 0) & (angles <= EDGES[-1]))
        if len(near):
            k = int(near[draw.integers(len(near))])
            found.append((i, int(others[k]), float(angles[k])))
    return found


class NaviPairs(CorrespondenceData):
    """`images` [M] (`NaviImages`) with the camera and the pose of each, and pairs of them with their angles."""

    images: Any  # NaviImages
    metric = posed = True

    def __init__(
        self, images: Any, cameras: Sequence[Any], poses: np.ndarray, pairs: np.ndarray, angles: Sequence[float]
    ) -> None:
        self.images, self.cameras, self.poses, self.pairs = images, cameras, poses, pairs
        self.categories = [self.thing_of(images.image_id(int(source))) for source, _ in pairs]
        names = [f"{low}–{high}°" for low, high in pairwise(EDGES)]
        self.views = [names[int(np.searchsorted(EDGES[1:-1], angle, "right"))] for angle in angles]
        self._shown = lru_cache(maxsize=64)(self._show)

    def __getstate__(self) -> Mapping[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_shown"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._shown = lru_cache(maxsize=64)(self._show)

    @cached_property
    def digest(self) -> str:
        rest = [self.pairs.tolist(), self.poses.tolist(), list(self.cameras), RULE]
        return fingerprint({"navi-pairs": self.images.digest, "rest": rest})

    def thing_of(self, image_id: str) -> str:
        """The object on a picture."""
        return image_id.split("/", 1)[0]

    def points(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        source, target = (int(i) for i in self.pairs[pair])
        rows, columns = np.nonzero(np.isfinite(self._shown(source)[0][..., 0]))
        order = np.random.default_rng([SEED, pair]).permutation(len(rows))[:TRIED]
        places = np.stack([columns[order], rows[order]], 1) + 0.5
        carried = self.carried(pair, places)
        there = self.projected(pair, carried)
        with np.errstate(invalid="ignore"):
            seen = np.abs(self._at(target, there)[:, 2] - carried[:, 2]) < SAME
        return places[seen][:MOST], there[seen][:MOST]

    def extent(self, pair: int) -> float:
        shown = np.isfinite(self._shown(int(self.pairs[pair, 1]))[0][..., 0])
        sides = [np.flatnonzero(shown.any(axis)) for axis in (0, 1)]
        return float(max(side[-1] - side[0] + 1 if len(side) else 1 for side in sides))

    def located(self, pair: int, places: np.ndarray) -> np.ndarray:
        return self._at(int(self.pairs[pair, 1]), places)

    def carried(self, pair: int, places: np.ndarray) -> np.ndarray:
        source, target = (int(i) for i in self.pairs[pair])
        move = self.poses[target] @ np.linalg.inv(self.poses[source])
        found: np.ndarray = self._at(source, places) @ move[:3, :3].T + move[:3, 3]
        return found

    def projected(self, pair: int, points: np.ndarray) -> np.ndarray:
        _, focal, centre = self._shown(int(self.pairs[pair, 1]))
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = points[:, :2] / np.maximum(points[:, 2:], 1e-9) * focal + centre
        return found

    def _at(self, image: int, places: np.ndarray) -> np.ndarray:
        """[K, 3] metres from the camera of `image` at the pixels of `places` [K, 2]; NaN off the object and outside."""
        surface = self._shown(image)[0]
        size, found = len(surface), np.full((len(places), 3), np.nan)
        inside = np.flatnonzero(((places >= 0) & (places < size)).all(1))
        columns, rows = np.floor(places[inside]).astype(np.int64).T
        found[inside] = surface[rows, columns]
        return found

    def _show(self, image: int) -> tuple[np.ndarray, float, np.ndarray]:
        raw = self.images.raw_depth(image)
        frame = self.images.framing.frame(raw)
        focal = self.cameras[image].focal(raw.shape, self.images.pictures.where(image))
        return frame.surface(raw, focal)  # type: ignore[no-any-return]
