"""`scenes` as a dataset: splits and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.contracts import Dataset, DatasetInfo
from benchmark.errors import DataError, UsageError
from tasks.scenes.kinds import (
    CAPTIONS,
    Pictures,
    SceneCaptions,
    SceneDepth,
    SceneLabels,
    SceneNormals,
    SceneRetrieval,
    SceneSegmentation,
)
from tasks.scenes.pairs import ScenePairs
from tasks.scenes.splits import SPLITS

DEFAULT_SIZE = 96


@dataclass(frozen=True)
class Scenes(Dataset):
    """The embedded dataset; a split is rendered when the first of its pictures is asked for."""

    info: DatasetInfo
    size: int = DEFAULT_SIZE
    counts: Mapping[str, int] | None = None  # split -> number of pictures, where fewer are wanted
    which: str = "both"

    def data(self, kind: str, split: str) -> Any:
        """The `<Kind>Data` of "train" or "test" (retrieval, correspondence: "test"). Raises DataError for another."""
        if kind in ("segmentation", "depth", "normals", "captions") and split in ("train", "test"):
            kinds = {"segmentation": SceneSegmentation, "depth": SceneDepth, "normals": SceneNormals}
            found = self.pictures(split)
            return SceneCaptions(found, self.which) if kind == "captions" else kinds[kind](found)
        if kind == "labels" and split in ("train", "test"):
            return SceneLabels(self.pictures(f"labels-{split}"))
        if kind == "retrieval" and split == "test":
            return SceneRetrieval(self.pictures("retrieval"))
        if kind == "correspondence" and split == "test":
            return ScenePairs(self.pictures("pairs"))
        raise DataError(
            f"scenes: no {kind} data for split {split!r}. It has segmentation, depth, normals, captions and labels "
            "in train and test, correspondence and retrieval in test"
        )

    def pictures(self, split: str) -> Pictures:
        """The pictures of one of SPLITS."""
        return Pictures(split, self.size, (self.counts or {}).get(split, SPLITS[split].n))


def open_dataset(info: DatasetInfo, root: Path | None, options: Mapping[str, str]) -> Scenes:
    """The embedded dataset (`root` is not used).

    Options: `size` in pixels; `n_train`, `n_test`, `n_labels_train`, `n_labels_test`, `n_retrieval`, `n_pairs` for
    the first n pictures only; `captions` = both | long | short. Raises UsageError for anything else.
    """
    stored = {f"n_{name.replace('-', '_')}": name for name, split in SPLITS.items() if split.n}
    counts, size, which = {}, DEFAULT_SIZE, "both"
    for key, value in options.items():
        if key in stored:
            counts[stored[key]] = _whole(key, value, 1, SPLITS[stored[key]].n)
        elif key == "size":
            size = _whole(key, value, 16, 1024)
        elif key == "captions" and value in CAPTIONS:
            which = value
        else:
            raise UsageError(
                f"scenes has no option {key}={value}; it has size, captions (both, long, short), {', '.join(stored)}"
            )
    return Scenes(info, size, counts, which)


def _whole(key: str, value: str, low: int, high: int) -> int:
    if not value.isdecimal() or not low <= int(value) <= high:
        raise UsageError(f"scenes: {key}={value} must be a whole number from {low} to {high}")
    return int(value)
