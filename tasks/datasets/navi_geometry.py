"""NAVI's framing (short side, centre square, square around the object) and normals from depth.

Every step takes the pixels that Probe3D's takes (a1f1464: `evals/datasets/navi.py`, `utils.py`): Pillow's nearest
neighbour is that of a pixel's centre, torch's and OpenCV's that of its corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.contracts import Interpolation
from benchmark.errors import DataError
from benchmark.images.decode import resize

WORKING_SIDE = 1024  # pixels; Probe3D first brings pictures to this short side
FILTER: Interpolation = "bilinear"  # Pillow's number 2, which Probe3D's resize_navi.py asks for and calls bicubic
FAR = 1e6  # metres: Probe3D's depth of a pixel that has none


@dataclass(frozen=True)
class Frame:
    """A centre square of the picture on a grid that repeats no pixel, and the part of that grid that is shown.

    Normals need the grid: neighbours in an enlarged map are copies of one another, and a slope becomes a staircase.
    """

    rows: np.ndarray  # [base] rows of the working picture on the grid; base is the short side of the centre square
    columns: np.ndarray  # [base]
    working: tuple[int, int]  # (height, width) of the working picture
    shape: tuple[int, int]  # (height, width) of the original
    square: tuple[int, int, int]  # (top, left, side) of the shown part of the grid
    size: int  # side of what is shown, enlarged by nearest neighbour

    def picture(self, image: np.ndarray, where: str) -> np.ndarray:
        """[size, size, 3] of an [H, W, 3] picture. Raises DataError when it is not as large as its depth."""
        if image.shape[:2] != self.shape:
            raise DataError(
                f"{where}: is {image.shape[1]}x{image.shape[0]}, its depth is {self.shape[1]}x{self.shape[0]}. "
                "Both must be the same size"
            )
        return self._shown(resize(image, *self.working, FILTER)[self.rows[:, None], self.columns[None]])

    def map(self, values: np.ndarray) -> np.ndarray:
        """[size, size] of an [H, W] map, by nearest neighbour."""
        return self._shown(self._grid(values))

    def nearest_of_all(self, depth: np.ndarray) -> np.float32:
        """The least depth of the whole [H, W] map's object as the working picture has it."""
        rows, columns = (centres(n, m) for n, m in zip(self.shape, self.working))
        values = depth[rows[:, None], columns[None]]
        return np.float32(values[values > 0].min())

    def normals(self, depth: np.ndarray, focal: float) -> np.ndarray:
        """[size, size, 3] of an [H, W] depth map, by the rays of the pixels it was taken at; `focal` in its pixels."""
        rows, columns = self._taken()
        x = ((columns + 0.5 - self.shape[1] / 2) / focal).astype(np.float32)
        y = ((rows + 0.5 - self.shape[0] / 2) / focal).astype(np.float32)
        return self._shown(normals_of(self._grid(depth), x, y))

    def probe3d_normals(self, depth: np.ndarray, focal: float) -> np.ndarray:
        """[size, size, 3] as Probe3D takes them: the shown part alone, seen from a camera above its first corner."""
        top, left, side = self.square
        part = self._grid(depth)[top : top + side, left : left + side]
        at = (np.arange(side, dtype=np.float32) + 0.5) / np.float32(focal * len(self.rows) / min(self.shape))
        every = corners(side, self.size)
        found = normals_of(np.where(part > 0, part, np.float32(FAR)), at, at, turned=False)
        found[part == 0] = 0
        return np.ascontiguousarray(found[every[:, None], every[None]])

    def surface(self, depth: np.ndarray, focal: float) -> tuple[np.ndarray, float, np.ndarray]:
        """([size, size, 3] metres right of, below and ahead of the camera, NaN off the object; focal length and [2] the
        principal point in pixels of what is shown) of an [H, W] depth map; `focal` in its pixels. A ray goes through
        the middle of its pixel on the grid."""
        (top, left, side), base = self.square, len(self.rows)
        focal = focal * base / min(self.shape)
        slopes = (np.arange(base) + 0.5 - base / 2) / focal
        grid = np.where((values := self._grid(depth)) > 0, values, np.nan)
        points = np.stack([slopes[None] * grid, slopes[:, None] * grid, grid], -1)
        enlarged = self.size / side
        return self._shown(points), focal * enlarged, (base / 2 - np.array([left, top])) * enlarged

    def _taken(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the original on the grid."""
        rows = centres(self.shape[0], self.working[0])[self.rows]
        return rows, centres(self.shape[1], self.working[1])[self.columns]

    def _grid(self, values: np.ndarray) -> np.ndarray:
        rows, columns = self._taken()
        grid: np.ndarray = values[rows[:, None], columns[None]]
        return grid

    def _shown(self, grid: np.ndarray) -> np.ndarray:
        top, left, side = self.square
        every = corners(side, self.size)
        return np.ascontiguousarray(grid[(top + every)[:, None], (left + every)[None]])


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
        base = min(side, self.size)
        rows, columns = (_middle(corners(n, base * n // side), base) for n in working)
        frame = Frame(rows, columns, working, shape, (0, 0, base), base)
        square = object_square(frame.map(depth) > 0) if self.around_object else frame.square
        return Frame(rows, columns, working, shape, square, self.size)


def centres(source: int, target: int) -> np.ndarray:
    """[target] source positions of nearest-neighbour resizing by the centres of the target's pixels (Pillow)."""
    return np.minimum(((np.arange(target) + 0.5) * source / target).astype(np.int64), source - 1)


def corners(source: int, target: int) -> np.ndarray:
    """[target] source positions of nearest-neighbour resizing by the corners of the target's pixels (torch, OpenCV)."""
    return np.arange(target) * source // target


def _middle(positions: np.ndarray, length: int) -> np.ndarray:
    """The middle `length` of `positions`; half a margin is rounded to even, as torchvision does."""
    start = round((len(positions) - length) / 2)
    return positions[start : start + length]


def object_square(mask: np.ndarray) -> tuple[int, int, int]:
    """(top, left, side) of Probe3D's square around `mask` ([S, S]) in the picture; all of it without an object.

    As long as from the object's first to its last row (or column), so without the last; where the square does not fit
    around the middle, it ends with the object.
    """
    size = mask.shape[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, size
    first, last = np.array([rows[0], columns[0]]), np.array([rows[-1], columns[-1]])
    side = max(int((last - first).max()), 1)
    spare = np.maximum(side - (last - first), 0)
    corner = first - spare // 2
    if (corner < 0).any() or (corner + side > size).any():
        corner = np.maximum(first - spare, 0)
    top, left = (int(c) for c in corner)
    return top, left, side


def normals_of(depth: np.ndarray, x: np.ndarray, y: np.ndarray, turned: bool = True) -> np.ndarray:
    """[H, W, 3] float32 unit normals of a depth map: x right, y down, z into the scene, facing the camera (z < 0).

    `x` [W] and `y` [H] are the slopes of the pixels' rays (x / z, y / z). Each normal is the normalised mean of the
    four cross products of neighbouring differences; zero where a pixel or one of its four neighbours has no depth.
    `turned`: one that would look away is turned round.
    """
    height, width = depth.shape
    points = np.stack([x[None] * depth, y[:, None] * depth, depth], -1).astype(np.float64)
    middle = points[1:-1, 1:-1]
    left, up = points[1:-1, :-2] - middle, points[:-2, 1:-1] - middle
    right, down = points[1:-1, 2:] - middle, points[2:, 1:-1] - middle
    total = -(np.cross(left, up) + np.cross(up, right) + np.cross(right, down) + np.cross(down, left))
    if turned:
        total = np.where(((total * middle).sum(-1) > 0)[..., None], -total, total)
    known = depth > 0
    valid = known[1:-1, 1:-1] & known[1:-1, :-2] & known[:-2, 1:-1] & known[1:-1, 2:] & known[2:, 1:-1]
    length = np.linalg.norm(total, axis=-1)
    valid &= length > 0
    normals = np.zeros((height, width, 3), dtype=np.float32)
    normals[1:-1, 1:-1][valid] = (total[valid] / length[valid][:, None]).astype(np.float32)
    return normals
