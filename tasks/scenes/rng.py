"""Counter-based random numbers made of 64-bit integer arithmetic: the same on every machine and numpy version.

The mixer is splitmix64's finaliser (Steele, Lea & Flood, OOPSLA 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_UNIT = 2.0**-53


def mix(value: int) -> int:
    """A bijection of 64-bit integers that spreads every input bit over all output bits."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _M1) & _MASK
    value = ((value ^ (value >> 27)) * _M2) & _MASK
    return value ^ (value >> 31)


class Stream:
    """A stream of numbers named by integers: streams with different names are unrelated."""

    def __init__(self, *name: int) -> None:
        key = len(name)
        for part in name:
            key = mix(key + _GOLDEN + mix(part))
        self.key = key
        self.count = 0

    def bits(self) -> int:
        """The next 64 random bits."""
        self.count += 1
        value = (self.key + self.count * _GOLDEN) & _MASK  # `mix`, without the call
        value = ((value ^ (value >> 30)) * _M1) & _MASK
        value = ((value ^ (value >> 27)) * _M2) & _MASK
        return value ^ (value >> 31)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A double in [low, high)."""
        return low + (high - low) * ((self.bits() >> 11) * _UNIT)

    def integer(self, n: int) -> int:
        """An integer in 0 … n-1."""
        return (self.bits() * n) >> 64

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self.uniform() < p

    def pick(self, items: Sequence[T]) -> T:
        """One of `items`, equally likely."""
        return items[self.integer(len(items))]

    def sample(self, items: Sequence[T], n: int) -> list[T]:
        """`n` different items in random order."""
        pool = list(items)
        return [pool.pop(self.integer(len(pool))) for _ in range(n)]

    def direction(self) -> tuple[float, float]:
        """A unit vector (cos, sin), uniform on the circle, without trigonometry."""
        while True:
            x, y = self.uniform(-1, 1), self.uniform(-1, 1)
            square = x * x + y * y
            if 0.01 < square <= 1:
                length = math.sqrt(square)
                return x / length, y / length

    def field(self, n: int) -> np.ndarray:
        """[n] uint64 random bits; does not advance the stream's counter."""
        x = np.arange(n, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(mix(self.key ^ _M1))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_M1)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_M2)
        return x ^ (x >> np.uint64(31))
