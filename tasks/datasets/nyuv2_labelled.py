"""NYUv2's labelled set: `nyu_depth_v2_labeled.mat` (HDF5) with 1,449 images and depths, and `splits.mat`.

MATLAB stores arrays the other way round, so HDF5 shows images as [N, 3, W, H] and depths as [N, W, H].
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import DatasetInfo, DepthData, ImageSet
from benchmark.errors import DataError, reading
from benchmark.system.digest import fingerprint
from tasks.datasets import digests
from tasks.datasets.matlab import variables
from tasks.datasets.places import bases, not_found

MAT, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
KEYS = {"train": "trainNdxs", "test": "testNdxs"}
MAX_DEPTH = 10.0  # metres, of the sensor: every published number keeps to it


@lru_cache(maxsize=4)
def _open(path: str) -> Any:
    import h5py

    with reading(path, "is no readable HDF5 file", "Fetch it again"):
        return h5py.File(path, "r")


def slab(path: str, key: str, index: int) -> np.ndarray:
    """Entry `index` of an HDF5 array, as [H, W] or [H, W, 3]."""
    file = _open(path)
    if key not in file:
        raise DataError(f"{path}: has no array {key!r}; it has {', '.join(file)}. Fetch it again")
    with reading(f"{path}: {key}[{index}]", "cannot be read", "Fetch it again"):
        return np.ascontiguousarray(np.asarray(file[key][index]).T)


@dataclass(frozen=True)
class LabelledImages(ImageSet):
    """The pictures `rows` of the labelled set; all are 480 × 640."""

    path: str
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        rows = hashlib.sha256(repr(self.rows).encode()).hexdigest()
        return fingerprint({"images": digests.of_whole_files([self.path], rows)})

    def image_id(self, index: int) -> str:
        return f"{MAT}#{self.rows[index]:04d}"

    def load(self, index: int) -> np.ndarray:
        return slab(self.path, "images", self.rows[index]).astype(np.uint8, copy=False)


@dataclass(frozen=True)
class LabelledDepth(DepthData):
    """Pictures with the in-painted `depths`, or the `rawDepths` whose holes are 0."""

    images: LabelledImages
    key: str = "depths"
    max_depth: float = field(default=MAX_DEPTH, init=False)

    @cached_property
    def digest(self) -> str:
        return fingerprint({"images": self.images.digest, "depth": self.key, "max_depth": self.max_depth})

    def target(self, index: int) -> np.ndarray:
        return slab(self.images.path, self.key, self.images.rows[index]).astype(np.float32, copy=False)


def locate(info: DatasetInfo, root: Path | None, also: Sequence[str], name: str) -> Path:
    """The file `name` in the dataset's folder. Raises DataError."""
    for base in bases(info, root, also):
        for folder in ("", "nyu_depth_v2", "nyuv2", "surfacenormal_metadata"):
            if (base / folder / name).is_file():
                return base / folder / name
    raise not_found(info, root, name)


def labelled_images(info: DatasetInfo, root: Path | None, also: Sequence[str], split: str) -> LabelledImages:
    """The official 795 or 654 images."""
    path = locate(info, root, also, MAT)
    return LabelledImages(str(path), split_rows(locate(info, root, also, SPLITS), split))


def split_rows(path: Path, split: str) -> tuple[int, ...]:
    """Row numbers from 0 of `splits.mat`, whose own count from 1."""
    with reading(path, f"has no {KEYS[split]} that can be read", "Fetch it again"):
        return tuple(int(n) - 1 for n in variables(path.read_bytes())[KEYS[split]].ravel())


def labelled_depth(info: DatasetInfo, root: Path | None, also: Sequence[str], split: str) -> Any:
    """Depth of the labelled set, in metres."""
    return LabelledDepth(labelled_images(info, root, also, split))
