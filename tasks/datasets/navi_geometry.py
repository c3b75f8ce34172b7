"""NAVI's framing (short side, centre square, square around the object) and normals from depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.errors import DataError
from benchmark.images import resize

WORKING_SIDE = 1024  # pixels; Probe3D first brings pictures to this short side, bicubic


@dataclass(frozen=True)
class Frame:
    """Which row and column of the working picture each framed pixel shows, and the camera's new numbers."""

    rows: np.ndarray  # [size] rows of the working picture
    columns: np.ndarray  # [size]
    working: tuple[int, int]  # (height, width) of the working picture
    shape: tuple[int, int]  # (height, width) of the original
    scale: float  # framed pixels per original pixel
    centre: tuple[float, float]  # (x, y) of the optical axis in framed pixels: the middle of the original picture

    def picture(self, image: np.ndarray, where: str) -> np.ndarray:
        """[size, size, 3] of an [H, W, 3] picture. Raises DataError when it is not as large as its depth."""
        if image.shape[:2] != self.shape:
            raise DataError(
                f"{where}: is {image.shape[1]}x{image.shape[0]}, its depth is {self.shape[1]}x{self.shape[0]}. "
                "Both must be the same size"
            )
        return np.ascontiguousarray(resize(image, *self.working)[self.rows[:, None], self.columns[None]])

    def map(self, values: np.ndarray) -> np.ndarray:
        """[size, size] of an [H, W] map, by nearest neighbour."""
        rows = nearest(self.shape[0], self.working[0])[self.rows]
        columns = nearest(self.shape[1], self.working[1])[self.columns]
        return np.ascontiguousarray(values[rows[:, None], columns[None]])


@dataclass(frozen=True)
class Framing:
    """Short side to `size` by nearest neighbour, centre crop; with `around_object`, the object's square of that."""

    size: int
    around_object: bool

    def frame(self, depth: np.ndarray) -> Frame:
        """The frame for a picture whose depth map is `depth` ([H, W], 0 off the object)."""
        shape = (depth.shape[0], depth.shape[1])
        shrink = min(1.0, WORKING_SIDE / min(shape))
        working = (int(shape[0] * shrink), int(shape[1] * shrink))
        side = min(working)
        grid = nearest(side, self.size)
        rows, columns = (working[0] - side) // 2 + grid, (working[1] - side) // 2 + grid
        scale = self.size / side
        frame = Frame(rows, columns, working, shape, scale * shrink, (0.0, 0.0))
        if self.around_object:
            top, left, extent = object_square(frame.map(depth) > 0)
            inner = nearest(extent, self.size)
            rows, columns, scale = rows[top + inner], columns[left + inner], scale * self.size / extent
        x = (working[1] / 2 - columns[0] - 0.5) * scale + 0.5
        y = (working[0] / 2 - rows[0] - 0.5) * scale + 0.5
        return Frame(rows, columns, working, shape, scale * shrink, (x, y))


def nearest(source: int, target: int) -> np.ndarray:
    """[target] source positions of nearest-neighbour resizing (centres of the target's pixels)."""
    return np.minimum(((np.arange(target) + 0.5) * source / target).astype(np.int64), source - 1)


def object_square(mask: np.ndarray) -> tuple[int, int, int]:
    """(top, left, side) of the smallest square around `mask` ([S, S]) in the picture; all of it without an object."""
    size = mask.shape[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, size
    side = int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1
    top = int(rows[0] + rows[-1] + 1 - side) // 2
    left = int(columns[0] + columns[-1] + 1 - side) // 2
    return min(max(top, 0), size - side), min(max(left, 0), size - side), side


def normals_of(depth: np.ndarray, focal: float, centre: tuple[float, float]) -> np.ndarray:
    """[H, W, 3] float32 unit normals of a depth map: x right, y down, z into the scene, facing the camera (z < 0).

    Each is the normalised mean of the four cross products of neighbouring differences; zero where a pixel or one of
    its four neighbours has no depth.
    """
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) + 0.5 - centre[0]) / focal
    y = (np.arange(height, dtype=np.float32) + 0.5 - centre[1]) / focal
    points = np.stack([x[None] * depth, y[:, None] * depth, depth], -1).astype(np.float64)
    middle = points[1:-1, 1:-1]
    left, up = points[1:-1, :-2] - middle, points[:-2, 1:-1] - middle
    right, down = points[1:-1, 2:] - middle, points[2:, 1:-1] - middle
    total = np.cross(left, up) + np.cross(up, right) + np.cross(right, down) + np.cross(down, left)
    total = np.where(((total * middle).sum(-1) > 0)[..., None], -total, total)
    known = depth > 0
    valid = known[1:-1, 1:-1] & known[1:-1, :-2] & known[:-2, 1:-1] & known[1:-1, 2:] & known[2:, 1:-1]
    length = np.linalg.norm(total, axis=-1)
    valid &= length > 0
    normals = np.zeros((height, width, 3), dtype=np.float32)
    normals[1:-1, 1:-1][valid] = (total[valid] / length[valid][:, None]).astype(np.float32)
    return normals
