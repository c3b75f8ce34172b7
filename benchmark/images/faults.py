"""Which samples a person should see first: what cannot be read, and targets that do not fit their pictures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.contracts import (
    CorrespondenceData,
    DepthData,
    MapSamples,
    NormalsData,
    RetrievalData,
    SegmentationData,
    ignored_label,
)
from benchmark.contracts.kinds import spread
from benchmark.contracts.progress import NewProgress, silent
from benchmark.errors import BenchError, reading
from benchmark.system.plurals import number_of

NAMED = 5  # faults that are told one by one


@dataclass
class Fault:
    """What is wrong with a sample, in a line; `unread`: it cannot be drawn."""

    row: int
    text: str
    unread: bool = False


@dataclass
class Scan:
    """What was found in so many of all samples."""

    looked: int
    total: int
    faults: list[Fault]

    @property
    def lines(self) -> list[str]:
        """For people."""
        words = f"{self.looked:,} of {self.total:,} looked at: "
        if not self.faults:
            return [words + "nothing wrong"]
        lines = [f"{words}{number_of(len(self.faults), 'sample')} with a fault, shown first"]
        lines += [fault.text for fault in self.faults[:NAMED]]
        return lines + [f"and {len(self.faults) - NAMED} more"] * (len(self.faults) > NAMED)

    def chosen(self, count: int) -> list[int]:
        """Up to `count` rows with a fault, then `count` evenly spread ones, as far as they are others."""
        wrong = {fault.row for fault in self.faults}
        return [*sorted(wrong)[:count], *(row for row in spread(self.total, count) if row not in wrong)]


def scan(data: Any, most: int, progress: NewProgress = silent) -> Scan:
    """Looks at `most` samples of `data`, evenly spread, at a picture and a target each."""
    rows = spread(len(data), most)
    bar = progress("looking at samples", len(rows))

    def look(row: int) -> Fault | None:
        bar.advance()
        try:
            with reading(name_of(data, row), "cannot be read", "Replace the file"):
                text = _misfit(data, row)
        except BenchError as e:
            return Fault(row, str(e), unread=True)
        return Fault(row, f"{name_of(data, row)}: {text}") if text else None

    with ThreadPoolExecutor(4) as pool:
        return Scan(len(rows), len(data), [fault for fault in pool.map(look, rows) if fault])


def name_of(data: Any, row: int) -> str:
    """What a person knows sample `row` by."""
    images = next(iter(data.pictures().values()), None)
    return str(images.image_id(row)) if images is not None and row < len(images) else f"sample {row}"


def sizes_differ(picture: np.ndarray, target: np.ndarray, called: str = "target") -> str:
    """The line for a target of another height or width; empty: they are equal."""
    if picture.shape[:2] == target.shape[:2]:
        return ""
    of_target, of_picture = (" × ".join(map(str, array.shape[:2])) for array in (target, picture))
    return f"the {called} is {of_target}, the picture {of_picture}"


def _misfit(data: Any, row: int) -> str:
    """What sample `row` says of itself that cannot be right. Raises what reading it raises."""
    if not isinstance(data, MapSamples):
        if isinstance(data, CorrespondenceData):
            for picture in data.pairs[row]:
                data.images.picture(int(picture))
        elif isinstance(data, RetrievalData):
            data.queries.picture(row)
        else:
            for images in data.pictures().values():
                if len(images) == len(data):
                    images.picture(row)
        return ""
    picture, target = data.images.picture(row), np.asarray(data.target(row))
    if said := sizes_differ(picture, target):
        return said
    scored = np.ones(target.shape[:2], bool)
    if isinstance(data, SegmentationData):
        classes = len(data.class_names)
        scored = (target != ignored_label(classes)) & (target >= 0)
        if (beyond := scored & (target >= classes)).any():
            return f"label {int(target[beyond].max())} is no class of {classes}"
    elif isinstance(data, DepthData):
        scored = np.isfinite(target) & (target > 0) & (target < (data.max_depth or np.inf))
    elif isinstance(data, NormalsData):
        scored = np.isfinite(np.asarray(data.counted(row))).all(-1)
    return "" if scored.any() else "nothing of it is scored"
