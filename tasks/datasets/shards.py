"""Webdataset shards: plain tars in which files of one sample share everything before the first dot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from benchmark.errors import DataError
from benchmark.hidden import is_hidden
from tasks.datasets.archives import Archive

PATTERNS = ("*{}*-*.tar", "*{}*.tar", "{}/*.tar")
WORDS = {"train": ("train",), "test": ("test", "validation", "val")}


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


def find_shards(places: Sequence[Path], split: str, words: Mapping[str, Sequence[str]] = WORDS) -> Shards | None:
    """The shards of `split` in the first of `places` that has any, by the word for the split in their names."""
    for base in places:
        for word in words[split]:
            for pattern in PATTERNS:
                if files := sorted(p for p in base.glob(pattern.format(word)) if not is_hidden(p.name)):
                    return Shards(files)
    return None
