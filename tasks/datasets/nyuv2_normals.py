"""NYUv2 surface normals. Train: GeoNet's `.mat` files. Test: Ladicky's normals of the labelled set's 654 images.

GeoNet pictures are stored minus a mean, in doubled form. Two of its files are bad and left out by name (Probe3D drops
them as the 6,920th and the 21,182nd of all); public loaders count from 30,907 to 30,916 files, so no count is official.
Where the depth is not in (0, 10] metres nothing counts. `valid=normal` leaves out the zero vectors among the others,
`valid=depth` counts them (Probe3D a1f1464: `train_snorm.py`, `evals/utils/metrics.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import DatasetInfo, ImageSet, NormalsData
from benchmark.errors import DataError, reading
from benchmark.system.digest import fingerprint
from tasks.datasets import digests
from tasks.datasets.blobs import Blobs, FileBlobs
from tasks.datasets.matlab import matlab_file
from tasks.datasets.names import Names
from tasks.datasets.nyuv2_labelled import LabelledImages, labelled_images, locate, slab
from tasks.datasets.places import checked, find
from tasks.datasets.user_maps import normals_from_rgb, unit

GEONET_BAD = (
    "bedroom_0129_r-1315328302.785180-1089784518.mat",
    "library_0006_r-1300708259.539496-3335480784.mat",
)
GEONET_MEAN = (122.175, 116.169, 103.508)
HEIGHT, WIDTH = 480, 640
MAX_DEPTH = 10.0
ARRAY = "all_normals.npy"


@dataclass(frozen=True)
class GeoNetImages(ImageSet):
    """Pictures inside GeoNet's `.mat` files."""

    files: Blobs

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def digest(self) -> str:
        return fingerprint({"geonet-images": self.files.digest, "rule": 2})

    def image_id(self, index: int) -> str:
        return self.files.name(index)

    def load(self, index: int) -> np.ndarray:
        stored = _variable(self.files, index, "img")
        # in the stored precision and cut off, as Probe3D does: 99.99999 becomes 99
        channels = [stored[..., c] + 2 * GEONET_MEAN[c] for c in range(3)]
        pixels: np.ndarray = np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)
        return pixels


class NormalsWithDepth(NormalsData):
    """Normals that come with a depth map, which says where they count."""

    by_depth: bool

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """([H, W, 3] normals of any length, [H, W] depth in metres)."""
        raise NotImplementedError

    def target(self, index: int) -> np.ndarray:
        """[H, W, 3] float32 unit vectors; zero where there is none, or the depth does not count."""
        normals: np.ndarray = np.nan_to_num(self.counted(index), copy=False)
        return normals

    def counted(self, index: int) -> np.ndarray:
        """As `target`, NaN where nothing counts: a zero vector that is left counts."""
        vectors, depth = self._read(index)
        normals = unit(vectors)
        normals[~((depth > 0) & (depth <= MAX_DEPTH) & np.isfinite(vectors).all(-1))] = np.nan
        if not self.by_depth:
            normals[(normals == 0).all(-1)] = np.nan
        return normals


@dataclass(frozen=True)
class GeoNetNormals(NormalsWithDepth):
    """GeoNet's training pictures and normals."""

    images: GeoNetImages
    by_depth: bool = False

    @cached_property
    def digest(self) -> str:
        return fingerprint({"geonet-normals": self.images.digest, "by depth": self.by_depth, "rule": 2})

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        files = self.images.files
        return _variable(files, index, "norm").astype(np.float32), _variable(files, index, "depth")


def _variable(files: Blobs, index: int, name: str) -> np.ndarray:
    variables = matlab_file(files, index)
    if name not in variables:
        raise DataError(f"{files.where(index)}: has no {name!r}. Fetch GeoNet's files again")
    values: np.ndarray = variables[name]
    return np.ascontiguousarray(values[:HEIGHT, :WIDTH])


def train_normals(info: DatasetInfo, root: Path | None, also: Sequence[str], by_depth: bool) -> Any:
    """GeoNet's pictures but the two bad ones; data1 and data2 may have been left in folders of their own."""
    store = find(info, root, "nyu_geonet", (), (), also)
    names = sorted(store.names("nyu_geonet", (".mat",)), key=lambda name: name.rsplit("/", 1)[-1])
    names = [n for n in names if n.rsplit("/", 1)[-1] not in GEONET_BAD]
    return GeoNetNormals(GeoNetImages(checked(info, store, names)), by_depth)


@dataclass(frozen=True)
class LabelledNormals(NormalsWithDepth):
    """The labelled set's pictures with Ladicky's normals from one array or from PNGs, and the raw depth."""

    images: LabelledImages
    array: str = ""  # .npy [1449, 480, 640, 3]
    pngs: FileBlobs | None = None
    by_depth: bool = False

    @cached_property
    def digest(self) -> str:
        targets = self.pngs.digest if self.pngs is not None else digests.of_whole_files([self.array], "")
        return fingerprint({"ladicky": targets, "images": self.images.digest, "by depth": self.by_depth, "rule": 2})

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        row = self.images.rows[index]
        if self.pngs is not None:
            normals = normals_from_rgb(self.pngs, index)
        else:
            with reading(f"{self.array}: normals {row}", "cannot be read", "Save all_normals again with numpy.save"):
                normals = np.load(self.array, mmap_mode="r", allow_pickle=False)[row].astype(np.float32)
        depth = slab(self.images.path, "rawDepths", row)
        if normals.shape != (*depth.shape, 3):
            where = self.pngs.where(index) if self.pngs is not None else self.array
            raise DataError(f"{where}: normals {row} are {list(normals.shape)}, the image is {list(depth.shape)}")
        return normals, depth


def heldout_normals(info: DatasetInfo, root: Path | None, also: Sequence[str], by_depth: bool) -> Any:
    """The 654 official test images."""
    images = labelled_images(info, root, also, "test")
    folder = Path(images.path).parent / "normals"
    if folder.is_dir():
        names = [f"{row:04d}.png" for row in images.rows]
        absent = [n for n in names if not (folder / n).is_file()]
        if absent:
            have = f"{len(names) - len(absent)} of {len(names)}"
            raise DataError(f"{info.name}: {folder / absent[0]} is missing; {have} are there. See bench show nyuv2")
        return LabelledNormals(images, pngs=FileBlobs(str(folder), Names(names)), by_depth=by_depth)
    path = locate(info, root, also, ARRAY)
    with reading(path, "is no plain numpy array", "Save all_normals again with numpy.save"):
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    if len(shape) != 4 or shape[3] != 3:
        raise DataError(f"{path}: is {list(shape)}, must be [N, 480, 640, 3]. Save all_normals again with numpy.save")
    return LabelledNormals(images, array=str(path), by_depth=by_depth)
