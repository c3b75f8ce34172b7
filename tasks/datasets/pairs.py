"""Pairs of pictures with marked points, as readers hand them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmark.contracts import CorrespondenceData, ImageSet
from benchmark.system.digest import fingerprint


@dataclass(frozen=True)
class PairSet(CorrespondenceData):
    """`marked[i]` holds the source's and the target's places of pair i, [K, 2] each."""

    images: ImageSet
    pairs: np.ndarray
    marked: Sequence[tuple[np.ndarray, np.ndarray]]
    extents: Sequence[float]
    categories: Sequence[str]
    views: Sequence[str] = ()

    @cached_property
    def digest(self) -> str:
        points = [[one.tolist(), other.tolist()] for one, other in self.marked]
        rest = [self.pairs.tolist(), points, list(self.extents), list(self.categories), list(self.views)]
        return fingerprint({"pairs": self.images.digest, "marked": rest})

    def points(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        return self.marked[pair]

    def extent(self, pair: int) -> float:
        return float(self.extents[pair])
