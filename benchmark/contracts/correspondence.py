"""Pairs of pictures in which the same points are marked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from benchmark.contracts.images import ImageSet, ImageSubset
from benchmark.contracts.kinds import Samples
from benchmark.system.digest import fingerprint

if TYPE_CHECKING:
    import numpy as np


class CorrespondenceData(Samples):
    """Pairs of pictures, and points of the source that are seen in the target too. A picture may be in many pairs.

    Places are x and y in pixels of a picture as it is read; the first pixel lies between 0 and 1.
    """

    images: ImageSet  # each picture once
    pairs: np.ndarray  # [N, 2] int64: source and target of each pair among the images
    categories: Sequence[str]  # [N] what is on both: scores are averaged over them
    views: Sequence[str] = ()  # [N] how far apart the views are, as a few classes; empty: not known
    metric: bool = False  # whether `located` is known
    posed: bool = False  # whether `carried` and `projected` are known too

    def __len__(self) -> int:
        return len(self.pairs)

    def pictures(self) -> Mapping[str, ImageSet]:
        return {"images": self.images}

    @abstractmethod
    def points(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        """[K, 2] places in the source and [K, 2] the same points' places in the target."""

    @abstractmethod
    def extent(self, pair: int) -> float:
        """Pixels of the target that PCK's thresholds are shares of: the longer side of the object's bounding box."""

    def located(self, pair: int, places: np.ndarray) -> np.ndarray:
        """[K, 3] metres, in any frame: the surfaces seen at `places` [K, 2] of the target; not finite where there is
        none. Asked only of data that are `metric`."""
        raise NotImplementedError(f"{type(self).__name__} knows no surfaces")

    def carried(self, pair: int, places: np.ndarray) -> np.ndarray:
        """[K, 3] metres, in the frame of `located`: the surfaces seen at `places` [K, 2] of the source. Asked only of
        data that are `posed`, as `projected`."""
        raise NotImplementedError(f"{type(self).__name__} knows no cameras")

    def projected(self, pair: int, points: np.ndarray) -> np.ndarray:
        """[K, 2] places in the target of points [K, 3] of the frame of `located`."""
        raise NotImplementedError(f"{type(self).__name__} knows no cameras")

    def take(self, rows: Sequence[int]) -> CorrespondenceData:
        return _CorrespondencePart(self, rows)

    def without(self, ids: set[str]) -> CorrespondenceData:
        gone = [i for i in range(len(self.images)) if self.images.image_id(i) in ids]
        return self.take([i for i, pair in enumerate(self.pairs.tolist()) if not set(pair).intersection(gone)])


class _CorrespondencePart(CorrespondenceData):
    def __init__(self, base: CorrespondenceData, rows: Sequence[int]) -> None:
        import numpy as np

        self.base, self.rows, self.truth = base, [int(row) for row in rows], base.truth
        shown, places = np.unique(base.pairs[self.rows], return_inverse=True)
        self.images, self.pairs = ImageSubset(base.images, shown.tolist()), places.reshape(-1, 2)
        self.categories = [base.categories[row] for row in self.rows]
        self.views = [base.views[row] for row in self.rows] if base.views else ()
        self.metric, self.posed = base.metric, base.posed

    @cached_property
    def digest(self) -> str:
        return fingerprint({"base": self.base.digest, "rows": self.rows})

    def points(self, pair: int) -> tuple[np.ndarray, np.ndarray]:
        return self.base.points(self.rows[pair])

    def extent(self, pair: int) -> float:
        return self.base.extent(self.rows[pair])

    def located(self, pair: int, places: np.ndarray) -> np.ndarray:
        return self.base.located(self.rows[pair], places)

    def carried(self, pair: int, places: np.ndarray) -> np.ndarray:
        return self.base.carried(self.rows[pair], places)

    def projected(self, pair: int, points: np.ndarray) -> np.ndarray:
        return self.base.projected(self.rows[pair], points)

    def thing_of(self, image_id: str) -> str | None:
        return self.base.thing_of(image_id)
