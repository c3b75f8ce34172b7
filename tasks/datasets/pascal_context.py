"""PASCAL Context on VOC 2010's images: 59 frequent classes (`pc59`), or those and background (`pc60`).

`context59` is `pc59` with its training pictures.

Published numbers use the masks that mmsegmentation's converter makes of PASCAL in Detail's `trainval_merged.json`, and
its 5,104 val pictures. Either is read, the masks (`SegmentationClassContext/*.png`, 0 = background) or the file itself.
`pc59-mat` and `pc60-mat` take the authors' own `trainval/*.mat` instead: 459 labels, of which 59 are kept and the rest
is background, on VOC 2010's 5,105 val pictures. Those masks differ (mmsegmentation, pull request 474), so their rows
have a name of their own. `pc59` ignores background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.arrays import index_image
from tasks.datasets.blobs import Blobs
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import IGNORED, INVALID, Pictures, Relabel, SegmentationSet
from tasks.datasets.matlab import matlab_file
from tasks.datasets.pascal_detail import JSON, phase_masks, read_segments
from tasks.datasets.places import Store, bases, checked, find, known_options, lines, note_size, split_error
from tasks.datasets.prompts import prompt_list

ALSO = ("pascal_context", "pc60", "pc59", "voc2010")
CONVERTED, LISTS = "SegmentationClassContext", "ImageSets/SegmentationContext"
PHASES = {"train": "train", "test": "val"}
OWN_LIST = "ImageSets/Main/val.txt"
OWN_LABELS = ("trainval", "../../trainval", "../trainval")
RAW_LABELS = 460  # 0 … 459
TRUTHS = {
    "png": f"{CONVERTED}: the masks of mmsegmentation's converter from {JSON}",
    "json": f"{JSON} of PASCAL in Detail, with the labels of mmsegmentation's converter",
    "mat": "the authors' 459-label trainval/*.mat on VOC 2010's val list, which no published PC59 or PC60 number uses",
}


@dataclass(frozen=True)
class PascalContext(Dataset):
    """The 59-class set; `background` adds class 0, `own` takes the authors' `.mat` labels."""

    info: DatasetInfo
    root: Path | None
    background: bool
    own: bool

    def data(self, kind: str, split: str) -> SegmentationSet:
        if kind != "segmentation" or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        archives = ("VOCtrainval_03-May-2010.tar", "VOC2010*.tar", "VOC2010*.zip")
        store = find(self.info, self.root, "JPEGImages", ("VOCdevkit/VOC2010", "VOC2010"), archives, ALSO)
        phase = PHASES[split]
        read: Callable[[Blobs, int], np.ndarray]
        if self.own:
            names, masks = self._own_masks(store)
            found, to_60, read, truth = names, _kept(0), read_own, TRUTHS["mat"]
        elif store.has(CONVERTED) and store.has(listed := f"{LISTS}/{phase}.txt"):
            names = lines(store, listed)
            masks = checked(self.info, store, [f"{CONVERTED}/{n}.png" for n in names])
            found, to_60, read, truth = names, tuple(range(60)), index_image, TRUTHS["png"]
        else:
            detail = phase_masks(self._json(store, phase), phase)
            records = detail.names()
            found = [n.removesuffix(".json") for n in records]
            masks, to_60, read, truth = detail.blobs(records), _kept(INVALID), read_segments, TRUTHS["json"]
        images = Pictures(checked(self.info, store, [f"JPEGImages/{n}.jpg" for n in found]))
        note_size(self.info, split, len(images), expected(self.info.name, split))
        classes = prompt_list("pc60_classes" if self.background else "pc59_classes")
        background = 0 if self.background else None
        return SegmentationSet(images, masks, classes, self._relabel(to_60), read, background, truth=truth)

    def _own_masks(self, store: Store) -> tuple[list[str], Blobs]:
        names = lines(store, OWN_LIST)
        folder = next((p for p in OWN_LABELS if names and store.has(f"{p}/{names[0]}.mat")), OWN_LABELS[0])
        return names, checked(self.info, store, [f"{folder}/{n}.mat" for n in names])

    def _json(self, store: Store, phase: str) -> Path:
        """Where PASCAL in Detail's file is: in VOC2010, beside VOCdevkit or in the data set's folder."""
        near = [Path(store.where(up + JSON)) for up in ("", "../", "../../")]
        for path in (*near, *(base / JSON for base in bases(self.info, self.root, ALSO))):
            if path.is_file():
                return path
        masks = f"{CONVERTED} with {LISTS}/{phase}.txt"
        text = f"{self.info.name}: no {JSON} and no {masks} beside {store.where('JPEGImages')}"
        if phase == "val" and any(store.has(p) for p in OWN_LABELS):
            text += f"; trainval/*.mat is another ground truth, for rows of its own: --task {self.info.name}-mat"
        raise DataError(f"{text}. Get it: bench data prepare {self.info.name}")

    def _relabel(self, to_60: tuple[int, ...]) -> Relabel:
        """raw -> 0 … 59 with background, or 0 … 58 without (background ignored); 255 is ignored in PNG masks."""
        shift = 0 if self.background else 1
        table = [new if new == INVALID else IGNORED if new < shift else new - shift for new in to_60]
        if len(table) < 256:
            table += [INVALID] * (255 - len(table)) + [IGNORED]
        return Relabel(tuple(table))


def _kept(others: int) -> tuple[int, ...]:
    """0 … 459 -> 0 … 59: `pc60_raw_labels.txt` has the raw label of each; all that are not in it become `others`."""
    table = [others] * RAW_LABELS
    for new, raw in enumerate(prompt_list("pc60_raw_labels")):
        table[int(raw)] = new
    return tuple(table)


def read_own(masks: Blobs, index: int) -> np.ndarray:
    """[H, W] raw labels, `LabelMap` in the authors' `.mat`."""
    variables = matlab_file(masks, index)
    if "LabelMap" not in variables:
        raise DataError(f"{masks.where(index)}: has no LabelMap. Fetch PASCAL Context again")
    return np.asarray(variables["LabelMap"])


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> PascalContext:
    """PASCAL Context under `root`; `pc60` has background, `context59` is `pc59` with its training pictures, `-mat`
    has the authors' labels; no options."""
    known_options(info, options)
    return PascalContext(info, root, background=info.name.startswith("pc60"), own=info.name.endswith("-mat"))
