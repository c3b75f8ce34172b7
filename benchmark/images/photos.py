"""Pictures in memory, for what is built to read a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.contracts import ImageSet


class Photos(ImageSet):
    """Pictures [H, W, 3] uint8 with their names. They have no digest: nothing of them is stored."""

    digest = ""

    def __init__(self, pictures: Sequence[np.ndarray], names: Sequence[str] = ("picture",)) -> None:
        self.pictures, self.names = pictures, names

    def __len__(self) -> int:
        return len(self.pictures)

    def image_id(self, index: int) -> str:
        return self.names[index]

    def load(self, index: int) -> np.ndarray:
        return self.pictures[index]
