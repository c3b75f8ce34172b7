"""Tasks, data sets and encoders of another package that break in one way each; what breaks stands in the name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import (
    Dataset,
    DatasetInfo,
    DatasetSource,
    DepthData,
    ImageSamples,
    ImageSet,
    ImageSubset,
    Measurement,
    Method,
    Need,
    Outcome,
    Samples,
    Tap,
    Task,
    View,
)
from benchmark.errors import NotApplicable
from benchmark.statistics.statistic import Statistic
from benchmark.system.digest import fingerprint

PRESETS = Path(__file__).with_name("broken_parts.toml")
MEAN = Measurement("mean", Statistic("mean", ("level",)), True, "")


@dataclass(frozen=True)
class Pictures(ImageSet):
    split: str
    n: int = 6
    fault: str = ""

    @property
    def digest(self) -> str:
        return fingerprint({"of": self.split, "n": self.n, "fault": self.fault})

    def __len__(self) -> int:
        return self.n

    def image_id(self, index: int) -> str:
        return f"{self.split}/{index}"

    def load(self, index: int) -> Any:
        if index == 3 and self.fault == "exit":
            sys.exit(0)
        if index == 3 and self.fault == "divides":
            return index // 0
        levels = np.random.default_rng(index).integers(0, 255, (32, 32, 3))
        return levels.astype(np.float32 if self.fault == "float" else np.uint8)


class Odd(ImageSamples):
    def __init__(self, images: ImageSet) -> None:
        self.images = images

    @property
    def digest(self) -> str:
        return fingerprint({"odd": self.images.digest})

    def take(self, rows: Sequence[int]) -> Odd:
        return Odd(ImageSubset(self.images, rows))


class TakesNothing(Odd):
    def take(self, rows: Sequence[int]) -> Any:
        return None


class NoDigest(Odd):
    digest: Any = None


class Depth(DepthData):
    digest = "d" * 64

    def __init__(self, images: ImageSet, side: int, metres: float) -> None:
        self.images, self.side, self.metres = images, side, metres

    def target(self, index: int) -> np.ndarray:
        return np.full((self.side, self.side), self.metres, np.float32)


def leave(*anything: Any) -> Any:
    """What a script does at its end."""
    sys.exit(0)


def command() -> None:
    """A command that ends the process by itself."""
    leave()


@dataclass(frozen=True)
class Of(Dataset):
    info: DatasetInfo
    make: Callable[[str], Any]

    def data(self, kind: str, split: str) -> Samples:
        made: Samples = self.make(split)
        return made


def source(name: str, make: Callable[[str], Any], kind: str = "odd", **facts: Any) -> DatasetSource:
    info = DatasetInfo(name, name, "CC0", "none", "none", "embedded", (kind,), splits=("test",))
    return DatasetSource(info, lambda root, options: Of(info, make), embedded=True, **facts)


def no_text(name: str) -> DatasetInfo:
    return DatasetInfo(name, name, "CC0", "none", "none", "embedded", ("odd",))


def trained(split: str) -> Odd:
    """Two of the test pictures are training pictures."""
    return Odd(ImageSubset(Pictures("one"), (0, 1, 2) if split == "train" else (1, 2, 4)))


DATASETS: Mapping[str, Any] = {
    "whole": source("whole", lambda split: Odd(Pictures(split))),
    "exits": source("exits", leave),
    "exits_late": source("exits_late", lambda split: Odd(Pictures(split, fault="exit"))),
    "divides": source("divides", lambda split: Odd(Pictures(split, fault="divides"))),
    "floats": source("floats", lambda split: Odd(Pictures(split, fault="float"))),
    "empty": source("empty", lambda split: Odd(Pictures(split, 0))),
    "no_digest": source("no_digest", lambda split: NoDigest(Pictures(split))),
    "takes_nothing": source("takes_nothing", lambda split: TakesNothing(Pictures(split))),
    "a_list": source("a_list", lambda split: [1, 2]),
    "a_key": source("a_key", lambda split: dict[str, Any]()[split]),
    "seen": replace(source("seen", trained), info=replace(no_text("seen"), splits=("train", "test"))),
    "no_open": DatasetSource(no_text("no_open"), lambda root, options: None),  # type: ignore[arg-type, return-value]
    "unread": source("unread", lambda split: Odd(Pictures(split)), kind="unheard"),
    "only_lost": source("only_lost", lambda split: Odd(Pictures(split)), only=("lost",)),
    "other_size": source("other_size", lambda split: Depth(Pictures(split), 16, 1.0), kind="depth"),
    "no_depth": source("no_depth", lambda split: Depth(Pictures(split), 32, 0.0), kind="depth"),
}


@dataclass(frozen=True)
class Fields:
    level: float


class Mean(Method[Fields]):
    schema = Fields

    def needs(self, card: Any, data: Mapping[str, Any]) -> Mapping[str, Need]:
        return {"test/cls": Need(data["test"].images, View("encoder"), Tap("cls"))}

    def run(self, context: Any) -> Outcome:
        level = context.features("test/cls")[:].flatten(1).mean(1).numpy().astype(float)
        images = context.data["test"].images
        names = np.array([images.image_id(i) for i in range(len(images))])
        return Outcome({"id": names, "level": level}, [MEAN], main_metric="mean", n=len(level))


class Trained(Mean):
    def splits(self) -> Sequence[str]:
        return ("train", "test")


class Exits(Mean):
    run: Any = leave


class NeedsExit(Mean):
    needs: Any = leave


class NeedsKey(Mean):
    def needs(self, card: Any, data: Mapping[str, Any]) -> Mapping[str, Need]:
        return {"test/cls": data["nowhere"]}


class NeedsList(Mean):
    def needs(self, card: Any, data: Mapping[str, Any]) -> Any:
        return [1]


class NotFor(Mean):
    def needs(self, card: Any, data: Mapping[str, Any]) -> Mapping[str, Need]:
        raise NotApplicable("no encoder of this width")


class GivesNone(Mean):
    def run(self, context: Any) -> Any:
        return None


class ShortColumn(Mean):
    def run(self, context: Any) -> Outcome:
        return Outcome({"id": np.array(["a"]), "level": np.ones(3)}, [MEAN], main_metric="mean", n=3)


class OtherMetric(Mean):
    def run(self, context: Any) -> Outcome:
        return Outcome({"id": np.array(["a"]), "level": np.ones(1)}, [MEAN], main_metric="mIoU", n=1)


class NoColumn(Mean):
    def run(self, context: Any) -> Outcome:
        return Outcome({"id": np.array(["a"])}, [MEAN], main_metric="mean", n=1)


def task(name: str, method: type[Mean], presets: Any = PRESETS) -> Task:
    return Task(name, "odd", {"fields": method}, title=name, metric="mean", presets=presets)


TASKS: Mapping[str, Any] = {
    "mean": task("mean", Mean, str(PRESETS)),  # a path as text does
    "trained": task("trained", Trained),
    "ends": task("ends", Exits),
    "needs_exit": task("needs_exit", NeedsExit),
    "needs_key": task("needs_key", NeedsKey),
    "needs_list": task("needs_list", NeedsList),
    "not_for": task("not_for", NotFor),
    "gives_none": task("gives_none", GivesNone),
    "short_column": task("short_column", ShortColumn),
    "other_metric": task("other_metric", OtherMetric),
    "no_column": task("no_column", NoColumn),
    "no_presets": task("no_presets", Mean, None),
    "no_fast": task("no_fast", Mean, PRESETS.with_name("mutants.toml")),
}
ENCODERS: Mapping[str, Any] = {"leaves": leave, "divided": lambda spec: 1 // 0}
globals().update({**DATASETS, **TASKS, **ENCODERS})
