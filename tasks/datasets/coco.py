"""COCO captions on Karpathy's test split: 5,000 images of val2014.

The split is `dataset_coco.json`. Its sentence ids are COCO's annotation ids, so captions come from
`annotations/captions_*2014.json` through pycocotools where those files are there, else from the split file itself.
Images have 5 to 7 captions; published numbers use the first five (option `captions=all` keeps all).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError, reading
from tasks.datasets.captions import (
    LISTING_ARCHIVES,
    LISTING_FOLDERS,
    Entry,
    caption_count,
    caption_split,
    from_entries,
    karpathy,
)
from tasks.datasets.kinds import CaptionSet
from tasks.datasets.places import Folder, find, known_options

SPLIT_FILE = "dataset_coco.json"
SUBSETS = ("val2014", "train2014")


@dataclass(frozen=True)
class Coco(Dataset):
    """Karpathy's test split."""

    info: DatasetInfo
    root: Path | None
    keep: int | None

    def data(self, kind: str, split: str) -> CaptionSet:
        return caption_split(self.info, self.root, kind, split, self.keep, self._karpathy, SPLIT_FILE)

    def _karpathy(self, split: str) -> CaptionSet:
        listing = find(self.info, self.root, SPLIT_FILE, LISTING_FOLDERS, LISTING_ARCHIVES)
        pictures = find(self.info, self.root, SUBSETS[0], ("images",), ("val2014.zip", "train2014.zip"))
        entries = karpathy(listing, SPLIT_FILE, split)
        files = {e.file.split("/")[0] for e in entries}
        notes = find_annotations(self.info, self.root, sorted(files & set(SUBSETS)))
        if notes:
            entries = [official_captions(e, notes) for e in entries]
        return from_entries(self.info, pictures, entries, self.keep)


def find_annotations(info: DatasetInfo, root: Path | None, subsets: Sequence[str]) -> dict[str, Any]:
    """subset -> pycocotools index of its captions file; empty unless every subset has one."""
    found = {}
    for subset in subsets:
        name = f"captions_{subset}.json"
        try:
            store = find(info, root, name, ("annotations",))
        except DataError:
            return {}
        if isinstance(store, Folder):
            found[subset] = load_captions(Path(store.where(name)))
    return found


def load_captions(path: Path) -> Any:
    """The pycocotools index of a captions file. Raises DataError when it is none."""
    from pycocotools.coco import COCO

    with (
        reading(path, "is no COCO captions file", "Fetch it again"),
        contextlib.redirect_stdout(io.StringIO()),  # pycocotools prints its progress
    ):
        return COCO(str(path))


def official_captions(entry: Entry, notes: Mapping[str, Any]) -> Entry:
    """`entry` with the captions COCO's own file has under the same ids."""
    folder = entry.file.split("/")[0]
    if folder not in notes:
        raise DataError(f"{entry.file}: {SPLIT_FILE} names no folder {folder!r} of COCO's. Fetch it again")
    index = notes[folder]
    absent = [i for i in entry.ids if i not in index.anns]
    if absent:
        raise DataError(f"{entry.file}: caption {absent[0]} of {SPLIT_FILE} is not in COCO's file. Fetch both again")
    with reading(entry.file, "has no caption in COCO's file", "Fetch both again"):
        texts = tuple(index.anns[i]["caption"].strip() for i in entry.ids)
    return replace(entry, captions=texts) if texts else entry


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Coco:
    """COCO under `root`. Options: captions = 5 | all."""
    known_options(info, options, "captions")
    return Coco(info, root, caption_count(info, options))
