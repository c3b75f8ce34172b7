"""Parquet files as the hub ships them: pictures are {bytes, path} structs in small row groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq

from benchmark.errors import DataError
from benchmark.hidden import is_hidden
from tasks.datasets.blobs import RowBlobs


@lru_cache(maxsize=8)
def _open(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pyarrow.ArrowInvalid) as e:
        raise DataError(f"{path}: is no readable parquet file ({str(e).splitlines()[0]}). Fetch it again") from None


@lru_cache(maxsize=4)
def _row_group(path: str, group: int, column: str) -> pyarrow.ChunkedArray:
    """One column of one row group: neighbours are read together, as loops read them."""
    try:
        return _open(path).read_row_group(group, columns=[column]).column(0)
    except (OSError, pyarrow.ArrowInvalid) as e:
        raise DataError(f"{path}: row group {group} is damaged ({str(e).splitlines()[0]}). Fetch it again") from None


def cell(path: str, column: str, row: int) -> Any:
    """The value at `row` of `column`; the bytes of an image struct."""
    metadata = _open(path).metadata
    for group in range(metadata.num_row_groups):
        count = metadata.row_group(group).num_rows
        if row < count:
            value = _row_group(path, group, column)[row].as_py()
            return value["bytes"] if isinstance(value, dict) else value
        row -= count
    raise IndexError(row)


def files_below(folder: Path, stems: Sequence[str]) -> list[str]:
    """Sorted `<stem>*.parquet` directly in `folder` or in `folder/data`, for the first stem that has any."""
    for stem in stems:
        for place in (folder, folder / "data"):
            if found := sorted(str(p) for p in place.glob(f"{stem}*.parquet") if not is_hidden(p.name)):
                return found
    return []


class Table:
    """Several parquet files as one table; columns are read one at a time."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = tuple(files)
        self.ends: tuple[int, ...] = tuple(accumulate(_open(f).metadata.num_rows for f in files))

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
        return [v for f in self.files for v in _open(f).read(columns=[column]).column(0).to_pylist()]

    def blobs(self, column: str, rows: np.ndarray | None = None) -> RowBlobs:
        """The pictures of `column`, all or those of `rows`."""
        return RowBlobs(self.files, column, self.ends, np.arange(len(self)) if rows is None else np.asarray(rows))
