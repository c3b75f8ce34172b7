"""What a data set gives for each kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np


DataKind = Literal["segmentation", "depth", "normals", "captions", "labels", "retrieval"]
IGNORE = 255  # the mask value that is never scored, where there are at most 255 classes


def ignored_label(classes: int) -> int:
    """What a target carries where it is neither trained on, chosen on nor scored: 255, or -1 where 255 is a class.

    -1 (and every label below) is so in every target. This is the one place that decides it: heads, metrics, mm and
    pictures ask here.
    """
    return IGNORE if classes <= IGNORE else -1


@runtime_checkable
class ImageSet(Protocol):
    """Pictures in a fixed order: the unit the feature store knows. Picklable, so that workers can decode it."""

    digest: str  # 64 hex digits over content; two sets with one digest hold the same pictures in the same order

    def __len__(self) -> int: ...

    def image_id(self, index: int) -> str:
        """A name that is stable across machines, e.g. a path relative to the dataset's root."""
        ...

    def load(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8 sRGB. Raises DataError naming the file when it cannot be read."""
        ...


class SegmentationData(Protocol):
    """Images with a class index per pixel."""

    images: ImageSet
    digest: str
    class_names: Sequence[str]
    background: int | None  # index of the background class, where the class list has one

    def target(self, index: int) -> np.ndarray:
        """[H, W] uint8 or int32 class index, 255 (or -1 past 255 classes) where ignored; same size as the image."""
        ...


class DepthData(Protocol):
    """Images with planar depth."""

    images: ImageSet
    digest: str

    def target(self, index: int) -> np.ndarray:
        """[H, W] float32 metres; 0, negative or non-finite where invalid."""
        ...


class NormalsData(Protocol):
    """Images with surface normals."""

    images: ImageSet
    digest: str

    def target(self, index: int) -> np.ndarray:
        """[H, W, 3] float32 unit vectors in the camera frame; a zero vector where invalid.

        Where some zero vectors count (they are 90° from every prediction), a further method `counted` gives the same
        with NaN where nothing counts.
        """
        ...


class CaptionData(Protocol):
    """Images with one or more captions each."""

    images: ImageSet
    digest: str
    captions: Sequence[Sequence[str]]  # one non-empty list for each image


class LabelData(Protocol):
    """Images with one class each."""

    images: ImageSet
    digest: str
    labels: np.ndarray  # [N] int64
    class_names: Sequence[str]


class RetrievalData(Protocol):
    """Queries and an index of images; a hit shares both label and domain with the query.

    A set may also have `more_labels`, query -> its further labels: then a hit with any of them counts.
    """

    queries: ImageSet
    index: ImageSet
    digest: str
    query_labels: np.ndarray  # [Q] int64
    index_labels: np.ndarray  # [N] int64
    query_domains: Sequence[str]  # [Q]
    index_domains: Sequence[str]  # [N]
    self_index: (
        np.ndarray | None
    )  # [Q] position of each query in the index (to be excluded), -1 where absent; None: none is there


@dataclass(frozen=True)
class DatasetInfo:
    """What `bench show DATASET` prints."""

    name: str
    title: str
    licence: str
    citation: str
    url: str
    layout: str  # the folder layout expected under --data
    kinds: tuple[DataKind, ...]
    splits: tuple[str, ...] = ("train", "test")
    how_to_get: str = ""


class Dataset(Protocol):
    """A dataset found on disk (or embedded)."""

    info: DatasetInfo

    def data(self, kind: DataKind, split: str) -> Any:
        """The `<Kind>Data` of `split` ("train" or "test"). Raises DataError when files are missing."""
        ...
