"""NYU Depth v2: depth from the BTS files or the labelled set, normals from GeoNet (train) and Ladicky (test).

Depth PNGs hold millimetres in 16 bits; 0 is invalid. The test images are the 654 of the official split; a BTS test
file's number is its place in `nyu_depth_v2_labeled.mat`, counted from 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.arrays import index_image
from tasks.datasets.blobs import Blobs
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import DepthSet, Pictures
from tasks.datasets.nyuv2_labelled import MAX_DEPTH, labelled_depth
from tasks.datasets.nyuv2_normals import heldout_normals, train_normals
from tasks.datasets.places import Store, checked, find, known_options, lines, note_size, option, split_error

ALSO = ("nyu", "nyu_depth_v2", "nyu_v2")
FOLDERS = ("nyu_depth_v2", "nyu")
LISTS = {
    "train": ("nyudepthv2_train_files_with_gt.txt", "nyu_train.txt"),
    "test": ("nyudepthv2_test_files_with_gt.txt", "nyu_test.txt"),
}
ROOTS = {
    "train": ("sync", "nyu_depth_v2/sync", ""),
    "test": ("official_splits/test", "nyu_depth_v2/official_splits/test", ""),
}
PER_METRE = np.float32(1000)


@dataclass(frozen=True)
class NyuV2(Dataset):
    """Depth and normals; `source` chooses the depth files."""

    info: DatasetInfo
    root: Path | None
    source: str = "bts"
    by_depth: bool = False  # of normals: see nyuv2_normals

    def data(self, kind: str, split: str) -> Any:
        if kind not in self.info.kinds or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        if kind == "normals":
            read = train_normals if split == "train" else heldout_normals
            found = read(self.info, self.root, ALSO, self.by_depth)
        elif self.source == "labelled":
            found = labelled_depth(self.info, self.root, ALSO, split)
        else:
            found = bts_depth(self.info, self.root, split)
        if self.source == "bts" or kind == "normals":
            note_size(self.info, split, len(found.images), expected(self.info.name, split, kind))
        return found


def bts_depth(info: DatasetInfo, root: Path | None, split: str) -> DepthSet:
    """The BTS split: pairs of rgb JPEG and synchronised 16-bit depth PNG, by list file."""
    store, listing = _find_list(info, root, split)
    pairs = [line.split()[:2] for line in lines(store, listing)]
    pairs = [[p.lstrip("/") for p in pair] for pair in pairs if len(pair) == 2 and pair[1] != "None"]
    if not pairs:
        raise DataError(f"{store.where(listing)}: names no pairs of picture and depth. Fetch the list again")
    store, start = _find_pictures(info, root, split, store, pairs[0][0])
    images = Pictures(checked(info, store, [start + a for a, _ in pairs]))
    depths = checked(info, store, [start + b for _, b in pairs])
    return DepthSet(images, depths, read_depth, "nyu-depth-png-mm", MAX_DEPTH)


def _find_list(info: DatasetInfo, root: Path | None, split: str) -> tuple[Store, str]:
    error: DataError | None = None
    for name in LISTS[split]:
        for folders in ((), FOLDERS, ("train_test_inputs",), tuple(f"{f}/train_test_inputs" for f in FOLDERS)):
            try:
                return find(info, root, name, folders, ("nyu*.zip", "nyu*.tar"), ALSO), name
            except DataError as e:
                error = error or e
    raise error or DataError(f"{info.name}: no list of {split} files")


def _find_pictures(info: DatasetInfo, root: Path | None, split: str, beside: Store, first: str) -> tuple[Store, str]:
    """The tree and the prefix (`sync/`) of the `first` picture: beside its list, or where sync and its like lie."""
    starts = [base + "/" if base else "" for base in ROOTS[split]]
    for start in starts:
        if beside.has(start + first):
            return beside, start
    for start in starts:
        with contextlib.suppress(DataError):
            return find(info, root, start + first, FOLDERS, (), ALSO), start
    return beside, starts[0]


def read_depth(maps: Blobs, index: int) -> np.ndarray:
    """[H, W] float32 metres of a 16-bit PNG in millimetres; 0 invalid."""
    values = index_image(maps, index)
    if values.dtype == np.uint8:
        raise DataError(f"{maps.where(index)}: is an 8-bit PNG; NYU depth has 16 bits. Fetch the file again")
    return values.astype(np.float32) / PER_METRE


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> NyuV2:
    """NYUv2 under `root`. Options: source = bts | labelled (depth only), valid = normal | depth (normals only)."""
    known_options(info, options, "source", "valid")
    by_depth = option(info, options, "valid", ("normal", "depth")) == "depth"
    return NyuV2(info, root, option(info, options, "source", ("bts", "labelled")), by_depth)
