"""Pictures in a fixed order, as a data set hands them out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from benchmark.errors import DataError
from benchmark.system.digest import fingerprint

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from benchmark.contracts.progress import NewProgress

IGNORE = 255  # the mask value that is never scored, where there are at most 255 classes


def ignored_label(classes: int) -> int:
    """What a target carries where it is neither trained on, chosen on nor scored: 255, or -1 where 255 is a class.

    -1 (and every label below) is so in every target. This is the one place that decides it: heads, metrics, mm and
    pictures ask here.
    """
    return IGNORE if classes <= IGNORE else -1


class ImageSet(ABC):
    """Pictures in a fixed order: the unit the feature store knows. Picklable, so that workers can decode it."""

    uniform_shape: tuple[int, int] | None = None  # (height, width) of every picture, where all have one
    cheap: bool = False  # whether reading costs less than the start of a worker process

    @property
    @abstractmethod
    def digest(self) -> str:
        """64 hex digits over content; two sets with one digest hold the same pictures in the same order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image_id(self, index: int) -> str:
        """A name that is stable across machines, e.g. a path relative to the dataset's root."""

    @abstractmethod
    def load(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8 sRGB; several threads may ask at once. Raises DataError naming the file when it cannot be
        read."""

    def picture(self, index: int) -> np.ndarray:
        """`load`, which is what densebench asks for. Raises DataError where it gives something else."""
        found = self.load(index)
        array = hasattr(found, "dtype") and hasattr(found, "shape")
        if not array or found.dtype != "uint8" or found.ndim != 3 or found.shape[2] != 3 or 0 in found.shape:
            kind = f"{found.dtype} {list(found.shape)}" if array else type(found).__name__
            raise DataError(f"{self.image_id(index)}: is {kind}, where a picture is [H, W, 3] uint8. Convert it")
        return found

    def for_layout(self, index: int) -> np.ndarray | Image:
        """`picture`, or the same pixels as a Pillow picture in RGB where decoding gives one: it is resized next."""
        return self.picture(index)

    def prepare(self, progress: NewProgress) -> None:  # noqa: B027  # most pictures lie on a disk
        """Makes what is read and not there yet, e.g. renders it. Asked before the first picture is read, from a thread
        beside a running pass where a later one needs it."""

    def file_edges(self) -> list[str] | None:
        """[N] what tells files apart at the cost of reading their ends; None for pictures that are not files."""
        return None

    def file_digest(self, index: int) -> str:
        """sha256 of the whole file. Asked only of sets that have `file_edges`."""
        raise NotImplementedError(f"{type(self).__name__} has file_edges and no file_digest")


class ImageSubset(ImageSet):
    """The pictures `rows` of another set, in that order."""

    def __init__(self, base: ImageSet, rows: Sequence[int]) -> None:
        self.base, self.rows = base, tuple(int(row) for row in rows)
        self.uniform_shape, self.cheap = base.uniform_shape, base.cheap

    @cached_property
    def digest(self) -> str:
        return fingerprint({"base": self.base.digest, "rows": self.rows})

    def __len__(self) -> int:
        return len(self.rows)

    def image_id(self, index: int) -> str:
        return self.base.image_id(self.rows[index])

    def load(self, index: int) -> np.ndarray:
        return self.base.load(self.rows[index])

    def for_layout(self, index: int) -> np.ndarray | Image:
        return self.base.for_layout(self.rows[index])

    def prepare(self, progress: NewProgress) -> None:
        self.base.prepare(progress)

    def file_edges(self) -> list[str] | None:
        found = self.base.file_edges()
        return None if found is None else [found[row] for row in self.rows]

    def file_digest(self, index: int) -> str:
        return self.base.file_digest(self.rows[index])
