"""Parquet files as the hub ships them: pictures are {bytes, path} structs in small row groups."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq

from benchmark.data.hidden import is_hidden
from benchmark.data.tolerance import tolerance
from benchmark.errors import DataError, reading
from tasks.datasets import digests, pages

SMALL_GROUP = 16 << 20  # bytes of a row group of which several are kept


@lru_cache(maxsize=8)
def _open(path: str) -> pq.ParquetFile:
    with reading(path, "is no readable parquet file", "Fetch it again"):
        return pq.ParquetFile(path, memory_map=True)


@lru_cache(maxsize=1024)
def _ends(path: str) -> np.ndarray:
    """[row groups] the rows up to and including each."""
    metadata = _open(path).metadata
    return np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])


@cache
def _places(path: str, group: int, column: str) -> pages.Places | None:
    """Where single values lie, in eight bytes each; None where the row group must be read as a whole."""
    return pages.place(_open(path), path, group, column)


@lru_cache(maxsize=1)
def _large_group(path: str, group: int, column: str) -> pyarrow.ChunkedArray:
    """One column of one row group: neighbours are read together, as loops read them."""
    return _open(path).read_row_group(group, columns=[column]).column(0)


_row_group = lru_cache(maxsize=4)(_large_group.__wrapped__)


def cell(path: str, column: str, row: int) -> Any:
    """The value at `row` of `column`; the bytes of an image struct."""
    ends = _ends(path)
    group = int(np.searchsorted(ends, row, side="right"))
    row -= int(ends[group - 1]) if group else 0
    with reading(f"{path}: row group {group}", "is damaged", "Fetch it again"):
        if (places := _places(path, group, column)) is not None:
            return places.read(row)
        small = _open(path).metadata.row_group(group).total_byte_size <= SMALL_GROUP
        value = (_row_group if small else _large_group)(path, group, column)[row].as_py()
    return value["bytes"] if isinstance(value, dict) else value


@dataclass(frozen=True)
class RowBlobs:
    """The `column` of parquet files, one row each: bytes, or the hub's {bytes, path} image structs."""

    files: tuple[str, ...]
    column: str
    ends: tuple[int, ...]  # rows up to and including each file
    rows: np.ndarray  # [N] global row numbers

    def __len__(self) -> int:
        return len(self.rows)

    def _place(self, index: int) -> tuple[int, int]:
        row = int(self.rows[index])
        file = int(np.searchsorted(self.ends, row, side="right"))
        return file, row - (self.ends[file - 1] if file else 0)

    def name(self, index: int) -> str:
        file, row = self._place(index)
        path = Path(self.files[file])
        return f"{_folder(path)}{path.name}#{row}"

    def where(self, index: int) -> str:
        file, row = self._place(index)
        return f"{self.files[file]}: row {row}, column {self.column!r}"

    def read(self, index: int) -> bytes:
        file, row = self._place(index)
        data = cell(self.files[file], self.column, row)
        if not isinstance(data, bytes) or not data:
            raise DataError(f"{self.where(index)}: holds no bytes. Fetch the parquet files that embed the pictures")
        return data

    @cached_property
    def digest(self) -> str:
        folders = "".join(_folder(Path(file)) for file in self.files)  # names hold them
        said = self.column.encode() + folders.encode("utf-8", "surrogateescape")
        rows = hashlib.sha256(said + np.ascontiguousarray(self.rows).tobytes()).hexdigest()
        return digests.of_whole_files(self.files, rows)


def _folder(path: Path) -> str:
    """What a file whose own name names no split, validation/0000.parquet, is called by before that name."""
    return f"{path.parent.name}/" if path.stem.isdigit() else ""


def find_files(places: Sequence[Path], words: Sequence[str], configs: Sequence[str] = ()) -> list[Path]:
    """Sorted parquet files of a split, by the first of `words` (its names) that one of `places` has; [] without.

    In the layouts of the hub: `<word>*.parquet` in the folder, in `data` or in `<config>`, and what the hub makes of
    script repositories, `<config>/<word>/NNNN.parquet`. Where there are several configurations the first of `configs`
    counts. The last place may hold other data sets: there a configuration is one of `configs`. Raises DataError.
    """
    for place in places:
        inside = [p for p in _folders(place) if place != places[-1] or p.name in configs]
        for word in words:
            for folder in (place, place / "data"):
                if files := _flat(folder, word) or _split_folder(folder, word):
                    return files
            found = {p.name: files for p in inside if (files := _flat(p, word) or _split_folder(p, word))}
            if len(found) > 1 and not found.keys() & set(configs):
                raise DataError(f"{place}: has parquet of several configurations ({', '.join(found)}). Keep one")
            if found:
                return next((found[c] for c in configs if c in found), next(iter(found.values())))
    return []


def loose_files(places: Sequence[Path]) -> list[Path]:
    """All parquet files, whatever their names, of the first of `places` that has any in it or in its `data`."""
    found = (_parquet(folder) for place in places for folder in (place, place / "data"))
    return next((files for files in found if files), [])


def _parquet(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.parquet") if not is_hidden(p.name))


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(p for p in place.iterdir() if p.is_dir() and not is_hidden(p.name) and p.name != "data")
    except OSError:
        return []


def _flat(folder: Path, word: str) -> list[Path]:
    """`test-00000-of-00002.parquet`, `TEST.parquet` …, but no `testing…` and no `trainval…`."""
    name = re.compile(rf"{re.escape(word)}(?![a-z]).*\.parquet", re.IGNORECASE)
    return [p for p in _parquet(folder) if name.fullmatch(p.name)]


def _split_folder(folder: Path, word: str) -> list[Path]:
    """`<word>/*.parquet`. Raises DataError for what the hub calls `partial-<word>`: its first five gigabytes."""
    subfolders = {p.name.lower(): p for p in _folders(folder)}
    if found := _parquet(subfolders.get(word, folder / word)):
        return found
    partial = subfolders.get(f"partial-{word}")
    if partial and _parquet(partial) and not tolerance().part:
        raise DataError(f"{partial}: holds a part of the split, which is all that the hub converts of large ones")
    return []


class Table:
    """Several parquet files as one table; columns are read one at a time."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(str(f) for f in files)
        self.ends: tuple[int, ...] = tuple(accumulate(_open(f).metadata.num_rows for f in self.files))

    def __len__(self) -> int:
        return self.ends[-1]

    def first_of(self, *columns: str) -> str:
        """The first of `columns` that the files have. Raises DataError listing what they do have."""
        names = _open(self.files[0]).schema_arrow.names
        for column in columns:
            if column in names:
                return column
        raise DataError(f"{self.files[0]}: has no column {' or '.join(columns)}; it has {', '.join(names)}")

    def has(self, column: str) -> bool:
        return column in _open(self.files[0]).schema_arrow.names

    def values(self, column: str) -> list[Any]:
        """All values of a small column."""
        found: list[Any] = []
        for file in self.files:
            with reading(f"{file}: column {column!r}", "is damaged", "Fetch it again"):
                found += _open(file).read(columns=[column]).column(0).to_pylist()
        return found

    def blobs(self, column: str, rows: np.ndarray | None = None) -> RowBlobs:
        """The pictures of `column`, all or those of `rows`."""
        return RowBlobs(self.files, column, self.ends, np.arange(len(self)) if rows is None else np.asarray(rows))
