"""Sequences of encoded files (pictures, masks, depth maps), wherever they lie: in a folder, inside archives, in
parquet. All are small to pickle, so that worker processes can read them."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np

from benchmark.errors import DataError
from tasks.datasets import digests
from tasks.datasets.names import Names


class Blobs(Protocol):
    """N byte strings with names; `digest` is over names and content."""

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str: ...

    def name(self, index: int) -> str:
        """Stable across machines."""
        ...

    def where(self, index: int) -> str:
        """For people: the path to look at when item `index` is damaged."""
        ...

    def read(self, index: int) -> bytes:
        """Raises DataError naming the file."""
        ...


@dataclass(frozen=True)
class FileBlobs:
    """Files below `root`."""

    root: str
    names: Names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def where(self, index: int) -> str:
        return str(Path(self.root) / self.names[index])

    def read(self, index: int) -> bytes:
        try:
            return Path(self.where(index)).read_bytes()
        except OSError as e:
            raise DataError(f"{self.where(index)}: cannot be read ({e.strerror}). Check the dataset's folder") from None

    @cached_property
    def digest(self) -> str:
        return digests.of_files(self.root, self.names)


STORED, DEFLATED = 0, 8  # as in zip headers
ZIP_HEADER = 30
LARGEST = 2**30  # bytes that a member of a zip may unpack to: a thousandth of that, zipped, must not fill the memory


@dataclass(frozen=True)
class SliceBlobs:
    """Byte ranges of archives, read in place: members of plain tars (`header` 0) and of zips (`header` 1)."""

    files: tuple[str, ...]
    names: Names
    file_of: np.ndarray  # [N] index into files
    start: np.ndarray  # [N] bytes
    size: np.ndarray  # [N] bytes as stored
    method: np.ndarray  # [N] 0 stored, 8 deflated
    header: np.ndarray  # [N] 1: `start` is at a zip's local header

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def where(self, index: int) -> str:
        return f"{self.files[self.file_of[index]]}:{self.names[index]}"

    def read(self, index: int) -> bytes:
        data = self._ranges(index, ((0, int(self.size[index])),))
        try:
            return inflated(data) if self.method[index] == DEFLATED else data
        except zlib.error as e:
            raise self._damaged(index, e) from None

    def edges(self, index: int, count: int) -> tuple[int, bytes, bytes]:
        """(size, first, last `count` bytes) of item `index`; a stored one is not read in full."""
        if self.method[index] == DEFLATED:
            data = self.read(index)
            return len(data), data[:count], data[-count:]
        size = int(self.size[index])
        short = min(count, size)
        both = self._ranges(index, ((0, short), (size - short, short)))
        return size, both[:short], both[short:]

    def _ranges(self, index: int, parts: tuple[tuple[int, int], ...]) -> bytes:
        """The (offset, length) `parts` of an item's stored bytes, one after the other."""
        start = int(self.start[index])
        try:
            with open(self.files[self.file_of[index]], "rb", buffering=0) as f:
                if self.header[index]:
                    head = _read_at(f, start, ZIP_HEADER)
                    start += ZIP_HEADER + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
                data = b"".join(_read_at(f, start + offset, length) for offset, length in parts)
        except OSError as e:
            raise self._damaged(index, e) from None
        short = sum(length for _, length in parts) - len(data)
        if short:
            raise self._damaged(index, f"ends {short} bytes early")
        return data

    def _damaged(self, index: int, why: object) -> DataError:
        return DataError(f"{self.where(index)}: the archive is damaged here ({why}). Fetch it again")

    @cached_property
    def digest(self) -> str:
        ranges = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in (self.file_of, self.start)))
        return digests.of_archives(self.files, ranges.hexdigest(), self, int(self.size.sum()))


def _read_at(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def inflated(data: bytes) -> bytes:
    """A zip member's bytes unpacked. Raises zlib.error where they are damaged, cut short, or more than LARGEST."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    out = stream.decompress(data, LARGEST)
    if not stream.eof:
        raise zlib.error(f"unpacks to more than {LARGEST} bytes" if stream.unconsumed_tail else "ends early")
    return out


def named(blobs: Blobs, index: int) -> io.BytesIO:
    """Item `index` as a file object whose `name` says where it lies, so that decoders can name it in their errors."""
    handle: Any = io.BytesIO(blobs.read(index))
    handle.name = blobs.where(index)
    return cast(io.BytesIO, handle)


def concatenate(parts: Sequence[Blobs]) -> Blobs:
    """`parts` one after the other."""
    return parts[0] if len(parts) == 1 else ManyBlobs(tuple(parts))


@dataclass(frozen=True)
class ManyBlobs:
    """Several sequences as one."""

    parts: tuple[Blobs, ...]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(len(p) for p in self.parts))

    def _place(self, index: int) -> tuple[Blobs, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part], index - (self._ends[part - 1] if part else 0)

    def __len__(self) -> int:
        return self._ends[-1]

    def name(self, index: int) -> str:
        part, row = self._place(index)
        return part.name(row)

    def where(self, index: int) -> str:
        part, row = self._place(index)
        return part.where(row)

    def read(self, index: int) -> bytes:
        part, row = self._place(index)
        return part.read(row)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256("+".join(p.digest for p in self.parts).encode()).hexdigest()
