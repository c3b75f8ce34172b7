"""ImageNet-1K: folders by synset, the official tars in place, webdataset shards, or the hub's parquet.

Class i is the i-th of the sorted 1,000 synsets, and carries CLIP's curated name. A flat validation folder needs
`LOC_val_solution.csv` (synset names) or the devkit's `ILSVRC2012_validation_ground_truth.txt`, whose numbers are the
devkit's own order and so need its `meta.mat`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError, reading
from tasks.datasets.catalog import expected
from tasks.datasets.imagenet_truth import validation_synsets
from tasks.datasets.kinds import LabelSet, Pictures
from tasks.datasets.parts import check_parts
from tasks.datasets.places import Store, bases, find, known_options, note_size, split_error
from tasks.datasets.prompts import prompt_list
from tasks.datasets.shards import PICTURES, find_shards

JPEG = (".jpeg", ".jpg")
FOLDERS = ("ILSVRC/Data/CLS-LOC", "ILSVRC2012", "imagenet")
NAMES = {"train": ("train", "ILSVRC2012_img_train"), "test": ("val", "validation", "ILSVRC2012_img_val")}
TARS = {"train": "ILSVRC2012_img_train.tar", "test": "ILSVRC2012_img_val.tar"}
WORDS = {"train": ("train",), "test": ("validation", "val")}  # of parquet and shards; the hub's "test" has no labels
SHARD_FOLDERS = {"train": ("train",), "test": ("validation", "val", "test")}  # clip-benchmark's test is ours
CONFIGS = ("default",)


@dataclass(frozen=True)
class ImageNet(Dataset):
    """The 1,000-class set; `test` is the validation split, as everybody reports it."""

    info: DatasetInfo
    root: Path | None

    def data(self, kind: str, split: str) -> LabelSet:
        if kind != "labels" or split not in self.info.splits:
            raise split_error(self.info, kind, split)
        listed = self._folders(split)
        found = listed or self._hub(split) or self._shards(split) or self._tar(split)
        if found is None:
            raise find_error(self.info, self.root, split)
        count = expected(self.info.name, split)
        names = [found.images.image_id(i) for i in range(len(found.images))] if listed and split == "test" else []
        note_size(self.info, split, len(found.images), count, names)
        return found

    def _folders(self, split: str) -> LabelSet | None:
        for name in NAMES[split]:
            try:
                store = find(self.info, self.root, name, FOLDERS, also=("imagenet", "ILSVRC2012"))
            except DataError:
                continue
            if (found := self._from_store(store, name)) is not None:
                return found
        return None

    def _tar(self, split: str) -> LabelSet | None:
        from tasks.datasets.archives import Archive

        for base in bases(self.info, self.root, ("imagenet",)):
            if (base / TARS[split]).is_file():
                return self._from_store(Archive([base / TARS[split]]), "")
        return None

    def _from_store(self, store: Store, folder: str) -> LabelSet | None:
        """None for a folder without pictures: it may hold shards or parquet."""
        names = store.names(folder, JPEG)
        if not names:
            return None
        parents = [PurePosixPath(n).parent.name for n in names]
        if PurePosixPath(names[0]).parent == PurePosixPath(folder):
            truth = validation_synsets(self.info, bases(self.info, self.root, ("imagenet",)))
            parents = [truth.get(PurePosixPath(n).stem, "") for n in names]
        labels = synset_labels(parents, store.where(names[0]))
        return LabelSet(Pictures(store.blobs(names)), labels, class_list())

    def _hub(self, split: str) -> LabelSet | None:
        from tasks.datasets.parquet import Table, find_files

        files = find_files(bases(self.info, self.root, ("imagenet", "imagenet-1k")), WORDS[split], CONFIGS)
        if not files:
            return None
        check_parts(self.info, split, files)
        table = Table(files)
        labels = np.array(table.values(table.first_of("label")), dtype=np.int64)
        return LabelSet(Pictures(table.blobs(table.first_of("image"))), labels, class_list())

    def _shards(self, split: str) -> LabelSet | None:
        places = bases(self.info, self.root, ("imagenet", "imagenet-1k", "wds_imagenet1k"))
        shards = find_shards(self.info, places, split, WORDS, SHARD_FOLDERS)
        if shards is None:
            return None
        samples = shards.samples(PICTURES)
        labels = []
        for sample in samples:
            with reading(shards.archive.where(sample.picture), "has no readable label beside it", "Check the shards"):
                if "cls" in sample.parts:
                    labels.append(int(shards.archive.read(sample.parts["cls"])))
                elif "json" in sample.parts:
                    labels.append(int(json.loads(shards.archive.read(sample.parts["json"]))["label"]))
                else:
                    raise DataError(f"{shards.archive.where(sample.picture)}: has no .cls beside it. Check the shards")
        images = Pictures(shards.archive.blobs([s.picture for s in samples]))
        return LabelSet(images, np.array(labels, dtype=np.int64), class_list())


def class_list() -> tuple[str, ...]:
    """The 1,000 names, in class order."""
    return prompt_list("imagenet1k_classes")


def synset_labels(synsets: Sequence[str], where: str) -> np.ndarray:
    """[N] int64 class of each synset. Raises DataError for one that is not of the 1,000."""
    number = {s: i for i, s in enumerate(prompt_list("imagenet1k_synsets"))}
    strange = next((s for s in synsets if s not in number), None)
    if strange is not None:
        raise DataError(f"{where} …: {strange!r} is none of the 1,000 synsets. Check the folder or the ground truth")
    return np.array([number[s] for s in synsets], dtype=np.int64)


def find_error(info: DatasetInfo, root: Path | None, split: str) -> DataError:
    """The error for a split found in none of the layouts."""
    from tasks.datasets.places import not_found

    wanted = f"{NAMES[split][0]}/<synset>/*.JPEG, {TARS[split]}, shards or parquet"
    return not_found(info, root, wanted, (TARS[split],), ("imagenet",))


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> ImageNet:
    """ImageNet-1K under `root`; no options."""
    known_options(info, options)
    return ImageNet(info, root)
