"""Pictures and labels in MNIST's idx files (`*-images-idx3-ubyte[.gz]`, `*-labels-idx1-ubyte[.gz]`)."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from benchmark.errors import DataError, reading
from tasks.datasets import digests

UBYTE = 8  # the only element type MNIST's files use


def is_idx(path: Path) -> bool:
    """Whether `path` is named like an idx file."""
    return path.name.removesuffix(".gz").endswith("-ubyte")


@lru_cache(maxsize=4)
def read_idx(path: str) -> np.ndarray:
    """The array of an idx file: [N, H, W] or [N] uint8. Raises DataError naming what is wrong with it."""
    with reading(path, "cannot be read", "Fetch it again"):
        data = gzip.decompress(Path(path).read_bytes()) if path.endswith(".gz") else Path(path).read_bytes()
    if len(data) < 4 or data[0] or data[1] or data[2] != UBYTE:
        raise DataError(f"{path}: does not start like an idx file of bytes. Fetch it again")
    rank = data[3]
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", rank, 4)) if len(data) >= 4 + 4 * rank else ()
    start, count = 4 + 4 * rank, math.prod(shape)
    if not shape or len(data) != start + count:
        raise DataError(f"{path}: holds {len(data)} bytes, its header says {start + count}. Fetch it again")
    return np.frombuffer(data, np.uint8, count, start).reshape(shape)


@dataclass(frozen=True)
class IdxBlobs:
    """Pictures `rows` of an idx3 file, each handed out as a PGM file."""

    path: str
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        return digests.of_whole_files(
            [self.path], hashlib.sha256(np.ascontiguousarray(self.rows).tobytes()).hexdigest()
        )

    def name(self, index: int) -> str:
        return f"{Path(self.path).name}#{self.rows[index]:05d}"

    def where(self, index: int) -> str:
        return f"{self.path}: picture {self.rows[index]}"

    def read(self, index: int) -> bytes:
        picture = read_idx(self.path)[self.rows[index]]
        header = f"P5 {picture.shape[1]} {picture.shape[0]} 255\n".encode()
        return header + bytes(picture.tobytes())


class IdxStore:
    """An idx3 file as a tree of pictures named by their number."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        if read_idx(self.path).ndim != 3:
            raise DataError(f"{path}: holds no pictures ([N, H, W] is expected). Is it the label file?")

    def has(self, name: str) -> bool:
        return name.isdigit() and int(name) < len(read_idx(self.path))

    def names(self, folder: str = "", suffixes: tuple[str, ...] = ()) -> list[str]:
        return [f"{i:05d}" for i in range(len(read_idx(self.path)))]

    def where(self, name: str) -> str:
        return f"{self.path}: picture {name}"

    def missing(self, names: Sequence[str]) -> list[str]:
        return [n for n in names if not self.has(n)]

    def blobs(self, names: Sequence[str]) -> IdxBlobs:
        return IdxBlobs(self.path, np.array([int(n) for n in names], dtype=np.int64))

    def read(self, name: str) -> bytes:
        return self.blobs([name]).read(0)
