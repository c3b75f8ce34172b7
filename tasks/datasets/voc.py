"""PASCAL VOC 2012 segmentation (`VOCdevkit/VOC2012`, or its tar): palette PNGs whose 255 border is ignored.

The option `train` chooses the training list: `train` (1,464 images) or `trainaug` (10,582, with SBD's masks from
`SegmentationClassAug/*.png` or from SBD's own `benchmark_RELEASE/dataset/cls/*.mat`). An image that has VOC's own
mask keeps it. `voc21` is the validation half, for zero-shot segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.arrays import index_image
from tasks.datasets.blobs import Blobs
from tasks.datasets.catalog import expected
from tasks.datasets.kinds import Pictures, Relabel, SegmentationSet
from tasks.datasets.matlab import matlab_file
from tasks.datasets.places import Store, checked, find, known_options, lines, note_size, option, split_error
from tasks.datasets.prompts import prompt_list

LISTS = "ImageSets/Segmentation"
SBD = ("../../benchmark_RELEASE/dataset", "../benchmark_RELEASE/dataset", "benchmark_RELEASE/dataset")


@dataclass(frozen=True)
class Voc2012(Dataset):
    """The 21-class segmentation set; background is class 0."""

    info: DatasetInfo
    root: Path | None
    train_list: str = "train"

    def data(self, kind: str, split: str) -> SegmentationSet:
        if kind != "segmentation" or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        store = find(
            self.info,
            self.root,
            f"{LISTS}/val.txt",
            ("VOCdevkit/VOC2012", "VOC2012"),
            ("VOCtrainval_11-May-2012.tar",),
            also=("voc2012", "voc"),
        )
        if split == "train" and self.train_list == "trainaug":
            names, masks = _augmented(self.info, store)
            count = expected(self.info.name, "trainaug")
        else:
            names = lines(store, f"{LISTS}/{'train' if split == 'train' else 'val'}.txt")
            masks = [f"SegmentationClass/{n}.png" for n in names]
            count = expected(self.info.name, split)
        images = Pictures(checked(self.info, store, [f"JPEGImages/{n}.jpg" for n in names]))
        note_size(self.info, split, len(images), count)
        labels = checked(self.info, store, masks)
        return SegmentationSet(images, labels, prompt_list("voc21_classes"), Relabel.identity(21), read_mask, 0)


def _augmented(info: DatasetInfo, store: Store) -> tuple[list[str], list[str]]:
    """Names and mask files of the augmented list; the list itself is made from SBD's when `trainaug.txt` is absent."""
    own, held_out = lines(store, f"{LISTS}/train.txt"), set(lines(store, f"{LISTS}/val.txt"))
    sbd = next((p for p in SBD if store.has(f"{p}/train.txt")), None)
    if store.has(f"{LISTS}/trainaug.txt"):
        names = sorted(lines(store, f"{LISTS}/trainaug.txt"))
    elif sbd is not None:
        names = sorted({*own, *lines(store, f"{sbd}/train.txt"), *lines(store, f"{sbd}/val.txt")} - held_out)
    else:
        raise DataError(
            f"{info.name}: no {store.where(LISTS + '/trainaug.txt')} and no SBD (benchmark_RELEASE/dataset) beside "
            "VOCdevkit. See bench show voc2012"
        )
    extra = "SegmentationClassAug/{}.png" if store.has("SegmentationClassAug") or sbd is None else sbd + "/cls/{}.mat"
    originals = set(own)
    return names, [f"SegmentationClass/{n}.png" if n in originals else extra.format(n) for n in names]


def read_mask(masks: Blobs, index: int) -> np.ndarray:
    """[H, W] raw labels of a palette PNG, or of SBD's `GTcls.Segmentation`."""
    if not masks.name(index).endswith(".mat"):
        return index_image(masks, index)
    try:
        return np.asarray(matlab_file(masks, index)["GTcls"][0, 0]["Segmentation"])
    except (KeyError, ValueError, IndexError):
        raise DataError(f"{masks.where(index)}: has no GTcls.Segmentation. Fetch SBD again") from None


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Voc2012:
    """VOC 2012 under `root`. Options: train = train | trainaug."""
    known_options(info, options, "train")
    return Voc2012(info, root, option(info, options, "train", ("train", "trainaug")))
