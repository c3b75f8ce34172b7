"""What a task is, what it sees while it runs and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from benchmark.statistics.statistic import Statistic
from benchmark.contracts.data import DataKind
from benchmark.contracts.encoder import Encoder, EncoderCard
from benchmark.contracts.features import Need

FieldStatus = Literal["confirmed", "inferred", "unknown"]


@dataclass(frozen=True)
class Measurement:
    """A metric's name, its statistic over the per-sample table, and how to read it."""

    name: str  # mIoU, R@1, top-1, RMSE …
    statistic: Statistic
    higher_is_better: bool
    unit: str  # "%", "m", "°", ""


@dataclass
class Outcome:
    """What a task hands back: a per-sample table (column -> array with N rows) and how to summarise it."""

    samples: Mapping[str, Any]
    measurements: Sequence[Measurement]
    main_metric: str
    n: int
    details: Mapping[str, Any] = field(default_factory=dict)  # chosen penalty, per-class values …
    fit_s: float = 0.0
    score_s: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)  # kept beside the row: "curve.csv", "pictures/best-1.png"
    blind: Sequence[Mapping[str, Any]] = ()  # columns of `samples` as answers that see no picture would have them

    def chance(self, measurement: Measurement) -> float | None:
        """What the best of the blind answers gets; None where there is none for this metric."""
        column = measurement.statistic.columns[0]
        values = [measurement.statistic.of({**self.samples, **b}) for b in self.blind if column in b]
        return (max if measurement.higher_is_better else min)(values, default=None)


class Task(Protocol):
    """One of the nine kinds of measurement."""

    name: ClassVar[str]
    kind: ClassVar[DataKind]
    needs_text: ClassVar[bool]
    schemas: ClassVar[Mapping[str, type]]  # schema name in the TOML preset -> frozen dataclass

    def not_applicable(self, card: EncoderCard, protocol: Any) -> str | None:
        """Why this encoder cannot do the task under `protocol`, or None."""
        ...

    def needs(self, card: EncoderCard, protocol: Any, data: Mapping[str, Any]) -> Sequence[Need]:
        """Every stored feature the run will read; `data` maps "train" and/or "test" to a `<Kind>Data`."""
        ...

    def splits(self, protocol: Any) -> Sequence[str]:
        """The splits to load: ("test",) for zero-shot tasks, ("train", "test") for probes."""
        ...

    def run(self, context: TaskContext) -> Outcome: ...


class FeatureReader(Protocol):
    """The stored array of one Need; reads slices from disk, so memory stays flat."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *item)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> torch.Tensor:
        """float32 tensor on the CPU for an int, slice or index array."""
        ...


class Progress(Protocol):
    """A bar; `advance` as work is done."""

    def advance(self, amount: int = 1) -> None: ...

    def note(self, text: str) -> None:
        """A few words beside the label, e.g. the loss; they replace the ones before."""
        ...


class TaskContext(Protocol):
    """What a task may touch while it runs."""

    @property
    def card(self) -> EncoderCard: ...
    @property
    def protocol(self) -> Any: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...

    @property
    def scratch(self) -> Path:
        """A folder of this job alone, for the checkpoints of a head that trains long; removed once its row is saved."""
        ...

    @property
    def keep_predictions(self) -> int:
        """How many best, median and worst predictions to hand back as pictures in `Outcome.files`; 0: none."""
        ...

    @property
    def cross_check(self) -> bool:
        """Whether to compute the headline number a second time with the field's reference implementation."""
        ...

    def features(self, need: Need) -> FeatureReader: ...

    def text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32 CPU, L2-normalised, in batches and cached; raises NotApplicable without a text tower."""
        ...

    def encoder(self) -> Encoder:
        """The live encoder, for protocols that must train through or slide over it."""
        ...

    def progress(self, label: str, total: int) -> Progress: ...
