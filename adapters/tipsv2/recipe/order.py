"""The order of an epoch: a permutation that depends on seed and epoch alone.

Small sources keep theirs as an array. Of 116 million samples that would be 928 MB in every worker and 8 s at every
epoch; past SMALL it is a keyed bijection of the range instead, which takes no memory: a Feistel network over a × b ≥ n
(Black and Rogaway 2002, "Ciphers with arbitrary finite domains"), walked until it falls inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

SMALL = 2**20
ROUNDS = 8
WORD = 2**64 - 1
GROUP = 16  # shards that are mixed at a time in the order "shards"
Key = tuple[int, ...]


def shuffled(length: int, key: Key) -> Callable[[int], int]:
    """offset → index, both in [0, length): a bijection that depends on `key` alone."""
    if length <= SMALL:
        return _array(length, key)
    return _Feistel(length, key)


def _array(length: int, key: Key) -> Callable[[int], int]:
    order = np.random.default_rng(key).permutation(length)
    return lambda offset: int(order[offset])


class _Feistel:
    def __init__(self, length: int, key: Key) -> None:
        self.length = length
        self.rows = math.isqrt(length - 1) + 1
        self.columns = -(-length // self.rows)
        self.keys = [int(k) for k in np.random.default_rng(key).integers(2**64, size=ROUNDS, dtype=np.uint64)]

    def __call__(self, offset: int) -> int:
        while True:
            row, column = divmod(offset, self.columns)
            for even, odd in zip(self.keys[::2], self.keys[1::2], strict=True):
                row = (row + _mixed(column ^ even)) % self.rows
                column = (column + _mixed(row ^ odd)) % self.columns
            offset = row * self.columns + column
            if offset < self.length:
                return offset


def _mixed(value: int) -> int:
    """splitmix64's finaliser (Steele et al. 2014)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & WORD
    return value ^ (value >> 31)


class Order:
    """The sample at an offset of an epoch. With `starts` [S + 1], where shards begin and the last one ends, the shards
    are permuted and the samples of GROUP at a time are mixed: what is read lies near to what was read."""

    def __init__(self, length: int, seed: int, starts: np.ndarray | None = None) -> None:
        self.length, self.seed, self.starts = length, seed, starts
        self._epoch: tuple[int, Callable[[int], int]] | None = None

    def __call__(self, epoch: int, offset: int) -> int:
        if self._epoch is None or self._epoch[0] != epoch:
            key = (self.seed, 0, epoch)
            self._epoch = epoch, shuffled(self.length, key) if self.starts is None else self._by_shards(key)
        return self._epoch[1](offset)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_epoch": None}

    def _by_shards(self, key: Key) -> Callable[[int], int]:
        assert self.starts is not None
        shards = np.random.default_rng(key).permutation(len(self.starts) - 1)
        first = self.starts[shards]
        ends = np.cumsum(self.starts[shards + 1] - first)  # of the permuted shards
        groups = np.append(ends[GROUP - 1 :: GROUP], ends[-1:])  # where each group ends

        @lru_cache(maxsize=2)
        def inside(group: int, size: int) -> Callable[[int], int]:
            return shuffled(size, (*key, group))

        def index(offset: int) -> int:
            group = int(np.searchsorted(groups, offset, "right"))
            begin = int(groups[group - 1]) if group else 0
            place = begin + inside(group, int(groups[group]) - begin)(offset - begin)
            shard = int(np.searchsorted(ends, place, "right"))
            return int(first[shard]) + place - (int(ends[shard - 1]) if shard else 0)

        return index
