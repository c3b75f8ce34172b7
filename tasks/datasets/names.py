"""A list of strings in two flat arrays: a million file names pickle in milliseconds and cost their own bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class Names(Sequence[str]):
    """An immutable sequence of strings, stored as one UTF-8 blob and its offsets."""

    def __init__(self, items: Iterable[str]) -> None:
        encoded = [item.encode("utf-8", "surrogateescape") for item in items]
        self._blob = b"".join(encoded)
        self._ends = np.cumsum([len(e) for e in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        position = index % len(self)
        start = int(self._ends[position - 1]) if position else 0
        return self._blob[start : int(self._ends[position])].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def readable(name: str) -> str:
    """`name` as text that can be written and hashed: bytes of a file name that are no UTF-8 are spelled out."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
