"""A data set: what it is called, where it lies, and the samples of its splits."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmark.contracts.correspondence import CorrespondenceData
from benchmark.contracts.kinds import (
    CaptionData,
    DepthData,
    LabelData,
    NormalsData,
    RetrievalData,
    Samples,
    SegmentationData,
)
from benchmark.errors import DataError, UsageError

KINDS: Mapping[str, Any] = {
    "segmentation": SegmentationData,
    "depth": DepthData,
    "normals": NormalsData,
    "captions": CaptionData,
    "labels": LabelData,
    "retrieval": RetrievalData,
    "correspondence": CorrespondenceData,
}


@dataclass(frozen=True)
class DatasetInfo:
    """What `bench show DATASET` prints."""

    name: str
    title: str
    licence: str
    citation: str
    url: str
    layout: str  # the folder layout expected under --data
    kinds: tuple[str, ...]  # of its data: of KINDS, or a kind that only tasks of the same package read
    splits: tuple[str, ...] = ("train", "test")
    how_to_get: str = ""


class Dataset(ABC):
    """A dataset found on disk (or embedded)."""

    info: DatasetInfo

    @abstractmethod
    def data(self, kind: str, split: str) -> Samples:
        """The samples of `split` ("train" or "test") as `kind` has them. Raises DataError when files are missing."""

    def samples(self, kind: str, split: str) -> Samples:
        """`data`, which is what densebench asks for. Raises DataError where it gives something else."""
        return sound(self.data(kind, split), kind, f"{self.info.name}: its {kind} data")

    def check_apart(self) -> None:  # noqa: B027  # most data sets have splits of their own
        """Raises UsageError where a trained task would be scored on the folder it is trained on."""

    def wrong_field(self, field: str, message: str) -> UsageError:
        """The error for a protocol's `field` that these data say themselves, e.g. with the line of their file."""
        return UsageError(f"{self.info.name}: {field}: {message}")


def sound(found: Any, kind: str, where: str) -> Samples:
    """`found` as samples of `kind`. Raises DataError where code of others made something else of them."""
    base = KINDS.get(kind, Samples)
    if not isinstance(found, base):
        what = f"{where}: {type(found).__name__}"
        raise DataError(f"{what} is no benchmark.contracts.{base.__name__}. Make it a subclass")
    if not len(found):
        raise DataError(f"{where}: holds no sample. See bench data verify")
    for name, thing in (("", found), *found.pictures().items()):
        if not re.fullmatch("[0-9a-f]{64}", str(thing.digest)):
            of = f"its {name}" if name else type(found).__name__
            raise DataError(f"{where}: the digest of {of} is {thing.digest!r}. Return 64 hex digits over the content")
    return cast(Samples, found)


@dataclass(frozen=True)
class DatasetSource:
    """A data set of another package: what the entry points of the group `densebench.datasets` load to."""

    info: DatasetInfo
    open: Callable[[Path | None, Mapping[str, str]], Dataset]  # (folder of --data, options of --data-option)
    embedded: bool = False  # whether it comes with its package, so that nothing need be fetched
    only: tuple[str, ...] = ()  # the tasks it is for, where not all that read its kinds
    short: tuple[str, ...] = ()  # the tasks that its name alone stands for; empty: all of them

    def __post_init__(self) -> None:
        """Raises ValueError for text where several words are asked for: each letter would be one."""
        lists = {"kinds": self.info.kinds, "splits": self.info.splits, "only": self.only, "short": self.short}
        for name, value in lists.items():
            if isinstance(value, str):
                raise ValueError(f"data set {self.info.name}: {name} is text. Write ({value!r},)")
