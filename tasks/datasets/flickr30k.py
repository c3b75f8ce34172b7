"""Flickr30K on Karpathy's test split: 1,000 images with five captions each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.contracts import Dataset, DatasetInfo
from tasks.datasets.captions import (
    LISTING_ARCHIVES,
    LISTING_FOLDERS,
    caption_count,
    caption_split,
    from_entries,
    karpathy,
)
from tasks.datasets.kinds import CaptionSet
from tasks.datasets.places import find, known_options

SPLIT_FILE = "dataset_flickr30k.json"
FOLDERS = ("flickr30k-images", "flickr30k_images/flickr30k_images", "flickr30k_images", "Images", "images")
# As its owners send it, as nlphuji's repository has it, and as Kaggle and the releases made from it call it.
ARCHIVES = ("flickr30k-images.tar", "flickr30k*.zip", "flickr-image-dataset.zip", "archive.zip")


@dataclass(frozen=True)
class Flickr30k(Dataset):
    """Karpathy's test split."""

    info: DatasetInfo
    root: Path | None
    keep: int | None

    def data(self, kind: str, split: str) -> CaptionSet:
        return caption_split(self.info, self.root, kind, split, self.keep, self._karpathy, SPLIT_FILE)

    def _karpathy(self, split: str) -> CaptionSet:
        listing = find(self.info, self.root, SPLIT_FILE, LISTING_FOLDERS, LISTING_ARCHIVES)
        entries = karpathy(listing, SPLIT_FILE, split)
        marker = entries[0].file if entries else FOLDERS[0]
        folder = find(self.info, self.root, marker, FOLDERS, ARCHIVES)
        return from_entries(self.info, folder, entries, self.keep)


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Flickr30k:
    """Flickr30K under `root`. Options: captions = 5 | all."""
    known_options(info, options, "captions")
    return Flickr30k(info, root, caption_count(info, options))
