"""Webdataset shards: plain tars in which files of one sample share everything before the first dot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from benchmark.contracts import DatasetInfo
from benchmark.data.hidden import is_hidden
from benchmark.errors import DataError
from tasks.datasets.archives import Archive
from tasks.datasets.parts import check_parts

PICTURES = ("jpg", "jpeg", "png", "webp")
OFFICIAL = "ILSVRC2012_img_"  # ImageNet's own tars are no shards
DEPTHS = ("*.tar", "*/*.tar", "*/*/*.tar")
WORDS = {"train": ("train",), "test": ("test",)}


@dataclass
class Sample:
    """One sample: its key, its picture, and its other members by extension."""

    key: str
    picture: str = ""
    parts: dict[str, str] = field(default_factory=dict)


class Shards:
    """Several shards as one list of samples, in shard order and then in the tars' order of names."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.archive = Archive(self.files, shard_names=True)

    def samples(self, pictures: Sequence[str]) -> list[Sample]:
        """Samples that have a picture with one of the extensions `pictures`. Raises DataError when none has."""
        found: dict[str, Sample] = {}
        for name in self.archive.names():
            path = PurePosixPath(name)
            stem, _, extension = path.name.partition(".")
            key = str(path.with_name(stem)) if stem else name
            sample = found.setdefault(key, Sample(key))
            if extension.lower() in pictures and not sample.picture:
                sample.picture = name
            else:
                sample.parts[extension.lower()] = name
        samples = [s for s in found.values() if s.picture]
        if not samples:
            raise DataError(f"{self.files[0]}: holds no sample with a {' or '.join(pictures)} picture. Check it")
        return samples


def find_shards(
    info: DatasetInfo,
    places: Sequence[Path],
    split: str,
    words: Mapping[str, Sequence[str]] = WORDS,
    folders: Mapping[str, Sequence[str]] = WORDS,
) -> Shards | None:
    """The shards of `split` in the first of `places` that has any: by one of `words` in their names, or in a folder
    called so (`folders`). Sub-folders count, but of the last place, which may hold other data sets, only the latter.

    Raises DataError where their numbers say that some are not there.
    """
    for place in places:
        shared = place == places[-1]
        below = (f for depth in DEPTHS[: 2 if shared else 3] for f in place.glob(depth))
        tars = [f for f in below if _is_shard(f, place)]
        for word in dict.fromkeys((*words[split], *folders[split])):
            start = re.compile(f"(?<![a-z]){word}", re.IGNORECASE)
            by_name = [f for f in tars if word in words[split] and start.search(f.stem)]
            if shared:
                by_name = [f for f in by_name if f.parent == place]
            by_folder = [f for f in tars if word in folders[split] and f.parent.name.lower() == word]
            if found := by_name or by_folder:
                files = sorted({f.name: f for f in sorted(found, reverse=True)}.values())  # a second copy is left out
                check_parts(info, split, files)
                return Shards(files)
    return None


def _is_shard(file: Path, place: Path) -> bool:
    return not file.name.startswith(OFFICIAL) and not any(is_hidden(p) for p in file.relative_to(place).parts)
