"""PASCAL Context on VOC 2010's images: 59 frequent classes (`pc59`), or those and background (`pc60`).

Masks: mmsegmentation's `SegmentationClassContext/*.png` (0 = background), or the authors' `trainval/*.mat` with 459
labels, of which 59 are kept and all others are background. In `pc59` background is ignored. The split is
mmsegmentation's `ImageSets/SegmentationContext/val.txt` (5,104 names), or VOC 2010's own `ImageSets/Main/val.txt`,
which has one more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.contracts import DataKind, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.arrays import index_image, matlab_file
from tasks.datasets.blobs import Blobs
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import IGNORED, INVALID, Pictures, Relabel, SegmentationSet
from tasks.datasets.places import checked, find, known_options, lines, note_size, split_error
from tasks.datasets.prompts import prompt_list

LISTS = ("ImageSets/SegmentationContext/val.txt", "ImageSets/Main/val.txt")
RAW = ("trainval", "../../trainval", "../trainval")
RAW_LABELS = 460  # 0 … 459


@dataclass(frozen=True)
class PascalContext:
    """The 59-class set; `background` adds class 0."""

    info: DatasetInfo
    root: Path | None
    background: bool

    def data(self, kind: DataKind, split: str) -> SegmentationSet:
        if kind != "segmentation" or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        store = find(
            self.info,
            self.root,
            "JPEGImages",
            ("VOCdevkit/VOC2010", "VOC2010"),
            ("VOC2010*.tar", "VOC2010*.zip"),
            also=("pascal_context", "pc60", "pc59", "voc2010"),
        )
        names = lines(store, next((p for p in LISTS if store.has(p)), LISTS[0]))
        raw = next((p for p in RAW if store.has(f"{p}/{names[0]}.mat")), None) if names else None
        pattern = "SegmentationClassContext/{}.png"
        if raw is not None and not store.has("SegmentationClassContext"):
            pattern = raw + "/{}.mat"
        images = Pictures(checked(self.info, store, [f"JPEGImages/{n}.jpg" for n in names]))
        masks = checked(self.info, store, [pattern.format(n) for n in names])
        note_size(self.info, split, len(images), expected(self.info.name, split, found=len(names)))
        from_raw = _raw_to_60() if pattern.endswith(".mat") else tuple(range(60))
        classes = prompt_list("pc60_classes" if self.background else "pc59_classes")
        return SegmentationSet(
            images, masks, classes, self._relabel(from_raw), read_mask, 0 if self.background else None
        )

    def _relabel(self, to_60: tuple[int, ...]) -> Relabel:
        """raw -> 0 … 59 with background, or 0 … 58 without (background ignored); 255 is ignored in PNG masks."""
        shift = 0 if self.background else 1
        table = [IGNORED if new < shift else new - shift for new in to_60]
        if len(table) < 256:
            table += [INVALID] * (255 - len(table)) + [IGNORED]
        return Relabel(tuple(table))


def _raw_to_60() -> tuple[int, ...]:
    """459 raw labels -> 0 … 59: `pc60_raw_labels.txt` has the raw label of each; all others are background."""
    table = [0] * RAW_LABELS
    for new, raw in enumerate(prompt_list("pc60_raw_labels")):
        table[int(raw)] = new
    return tuple(table)


def read_mask(masks: Blobs, index: int) -> np.ndarray:
    """[H, W] raw labels of a PNG, or of `LabelMap` in the authors' `.mat`."""
    if not masks.name(index).endswith(".mat"):
        return index_image(masks, index)
    variables = matlab_file(masks, index)
    if "LabelMap" not in variables:
        raise DataError(f"{masks.where(index)}: has no LabelMap. Fetch PASCAL Context again")
    return np.asarray(variables["LabelMap"])


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> PascalContext:
    """PASCAL Context under `root`; `pc60` has background; no options."""
    known_options(info, options)
    return PascalContext(info, root, background=info.name == "pc60")
