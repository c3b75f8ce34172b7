"""Tar shards as a source: members that share a stem, read in place, without unpacking."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.samples import Sample
from adapters.tipsv2.recipe.shard_index import BLOCK, Index, open_index, plain
from adapters.tipsv2.recipe.shards import Reader, find_shards
from adapters.tipsv2.recipe.source_files import sample_from
from benchmark.errors import DataError
from benchmark.system.digest import fingerprint
from benchmark.system.paths import cache_dir

BESIDE = 2**14  # bytes that are read past a picture: its captions lie there, mostly


@dataclass
class TarSource:
    """Sample i of the shards, counted through all of them. Columns are those of `stem.json`; `stem.txt` is "txt"."""

    reader: Reader
    index: Index
    config: DataConfig

    def __len__(self) -> int:
        return min(int(self.index.starts[-1]), self.config.samples or 2**62)

    @property
    def starts(self) -> np.ndarray:
        """[S + 1] where the samples of each shard begin, up to `data.samples`."""
        starts = np.minimum(self.index.starts, len(self))
        return np.append(starts[:-1][np.diff(starts) > 0], starts[-1])

    @property
    def ids_digest(self) -> str:
        """Over stems and sizes of the pictures of all shards, whatever these are called, and how many of them count."""
        return fingerprint([self.index.ids, len(self)])

    def load(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self.index.starts, index, "right")) - 1
        where = f"{self.reader.shards[shard].name}, sample {index}"
        entry = self.index.entries[index]
        first = (int(entry["image"]) - 1) * BLOCK
        near = self.reader.read(shard, first, first + BLOCK + int(entry["size"]) + BESIDE)
        image = self._member(shard, int(entry["image"]), where, first, near)
        if len(image) != entry["size"]:
            raise DataError(f"{where}: its place holds something else; the shard was changed")
        row: Any = {}
        if entry["json"]:
            content = self._member(shard, int(entry["json"]), where, first, near)
            try:
                row = json.loads(content)
            except ValueError as error:
                raise DataError(f"{where}: captions cannot be read ({error})") from None
        if entry["text"] and isinstance(row, dict):
            content = self._member(shard, int(entry["text"]), where, first, near)
            row.setdefault("txt", content.decode("utf-8", "replace").strip())
        return sample_from(image, row, self.config, where)

    def held_out(self, count: int) -> list[Sample]:
        return []

    def _member(self, shard: int, block: int, where: str, first: int, near: bytes) -> bytes:
        """The member whose bytes begin at `block`, from `near`, which begins at `first`, or read by itself. Raises
        DataError where none is there: the shard was changed."""
        place = (block - 1) * BLOCK
        inside = place - first
        header = near[inside : inside + BLOCK] if inside >= 0 else b""
        if len(header) < BLOCK:
            near, inside = self.reader.read(shard, place, place + BLOCK + BESIDE), 0
            header = near[:BLOCK]
        try:
            known = plain(header)
            size = known[1] if known else tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
        except tarfile.TarError as error:
            raise DataError(f"{where}: its place holds something else; the shard was changed ({error})") from None
        content = near[inside + BLOCK : inside + BLOCK + size]
        if len(content) < size:
            content = self.reader.read(shard, place + BLOCK, place + BLOCK + size)
        if len(content) < size:
            raise DataError(f"{where}: ends inside a member; the shard is truncated")
        return content


def open_tar(config: DataConfig) -> TarSource:
    """The shards that `data.path` names (`shards.find_shards`); their index lies in `data.cache`. Raises DataError
    naming an unreadable shard."""
    shards = find_shards(config.path)
    root = Path(config.cache) if config.cache else cache_dir() / "recipe"
    return TarSource(Reader(shards), open_index(shards, root), config)
