"""DOCCI: one long description per image, 5,000 in the test split.

`docci_descriptions.jsonlines` has example_id, split, image_file and description. Its own splits `qual_dev` and
`qual_test` are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError
from tasks.datasets.captions import Entry, caption_split, from_entries
from tasks.datasets.kinds import CaptionSet
from tasks.datasets.places import Store, find, known_options, lines

SPLIT_FILE = "docci_descriptions.jsonlines"


@dataclass(frozen=True)
class Docci(Dataset):
    """The official train and test splits."""

    info: DatasetInfo
    root: Path | None

    def data(self, kind: str, split: str) -> CaptionSet:
        return caption_split(self.info, self.root, kind, split, None, self._official)

    def _official(self, split: str) -> CaptionSet:
        listing = find(self.info, self.root, SPLIT_FILE, ("DOCCI",))
        found = entries(listing, split)
        return from_entries(self.info, self._pictures(found[0].file if found else "images"), found, None)

    def _pictures(self, first: str) -> Store:
        """Where the `first` picture is: people keep an `images` folder of something else beside the tar."""
        try:
            return find(self.info, self.root, first, ("DOCCI",), ("docci_images.tar",))
        except DataError:
            return find(self.info, self.root, "images", ("DOCCI",), ("docci_images.tar",))


def entries(store: Store, split: str) -> list[Entry]:
    """The pictures of `split`, in the file's order. Raises DataError naming the line that is wrong."""
    found = []
    for number, line in enumerate(lines(store, SPLIT_FILE), 1):
        try:
            row = json.loads(line)
            if row["split"] == split:
                found.append(Entry("images/" + row["image_file"], (" ".join(row["description"].split()),)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise DataError(f"{store.where(SPLIT_FILE)}:{number}: {type(e).__name__} {e}. Fetch it again") from None
    return found


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Docci:
    """DOCCI under `root`; no options."""
    known_options(info, options)
    return Docci(info, root)
