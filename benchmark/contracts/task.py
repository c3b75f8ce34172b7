"""What a task is, what it sees while it runs and what it hands back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

from benchmark.contracts.encoder import Encoder, EncoderCard
from benchmark.contracts.features import Need
from benchmark.contracts.steps import StepInput, StepSource
from benchmark.errors import BenchError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

    from benchmark.statistics.statistic import Statistic

FieldStatus = Literal["confirmed", "inferred", "unknown"]


@dataclass(frozen=True)
class Measurement:
    """A metric's name, its statistic over the per-sample table, and how to read it."""

    name: str  # mIoU, R@1, top-1, RMSE …
    statistic: Statistic
    higher_is_better: bool
    unit: str  # "%", "m", "°", ""


HeadKind = Literal["segmentation", "depth", "normals", "labels"]


@dataclass(frozen=True)
class KeptHead:
    """A trained head: what `--save-heads` keeps and `bench look --head` draws on new pictures.

    One that is linear on features as the encoder gives them has `weight` [O, D] and `bias` [O], and `use` (plain JSON)
    says what it reads: `view`, `view_size`, and for maps `layer` and `with_cls`, for labels `cls` and `mean_patches`;
    for depth `near` and `far` in metres and `upsample`. Any other names no `view`: the method that trained it reads it
    (`Method.answer`), and finds in `use` what it put there. Classes have their `names` in both, and a `palette`.
    """

    kind: HeadKind
    arrays: Mapping[str, torch.Tensor]
    use: Mapping[str, Any]


class Answer(NamedTuple):
    """What a head says of a picture."""

    shown: np.ndarray  # [h, w, 3] uint8: the part of the picture that it speaks of
    values: np.ndarray  # classes [h, w], metres [h, w], vectors [h, w, 3], or scores of classes [C]


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
    head: KeptHead | None = None  # of methods that say `keeps_head`
    blind: Sequence[Mapping[str, Any]] = ()  # columns of `samples` as answers that see no picture would have them

    def __post_init__(self) -> None:
        """Raises ValueError where columns, measurements and the main metric do not belong together."""
        lengths = {name: len(column) for name, column in self.samples.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values() or self.n < 1:
            raise ValueError(f"an outcome of {self.n} has columns of these lengths: {lengths}. Make them one, above 0")
        read = {column for m in self.measurements for column in m.statistic.columns}
        if missing := sorted(read - lengths.keys()):
            raise ValueError(f"a measurement reads column {missing[0]!r} of an outcome with {', '.join(lengths)}")
        if self.main_metric not in (names := [m.name for m in self.measurements]):
            raise ValueError(f"the main metric {self.main_metric!r} is not measured: {', '.join(names)}")

    def chance(self, measurement: Measurement) -> float | None:
        """What the best of the blind answers gets; None where there is none for this metric."""
        column = measurement.statistic.columns[0]
        values = [measurement.statistic.of({**self.samples, **b}) for b in self.blind if column in b]
        return (max if measurement.higher_is_better else min)(values, default=None)


P = TypeVar("P")
Size = tuple[int, int]  # (height, width) in pixels


class Method(ABC, Generic[P]):
    """A task under one schema of protocol: what it needs, what it costs, and how it is run."""

    schema: ClassVar[type]  # frozen dataclass of the fields of a preset

    def __init__(self, protocol: P) -> None:
        self.protocol = protocol

    @property
    def keeps_head(self) -> bool:
        """Whether its outcome has a `head`."""
        return False

    def splits(self) -> Sequence[str]:
        """The splits to load, the scored one last: "test" for zero-shot tasks, "train" and "test" for probes."""
        return ("test",)

    def dataset_options(self, dataset: str) -> Mapping[str, str]:
        """How the protocol wants `dataset` opened, where the user does not say otherwise."""
        return {}

    def not_applicable(self, card: EncoderCard) -> str | None:
        """Why this encoder cannot do the task under the protocol, or None."""
        return None

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        """Every stored feature that `run` reads, by the name it reads it by, e.g. "test/patches".

        `data` maps "train" and/or "test" to `Samples`.
        """
        return {}

    def wanted(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        """`needs`, which is what densebench asks for. Raises BenchError where it gives something else."""
        found = self.needs(card, data)
        if not isinstance(found, Mapping) or not all(isinstance(need, Need) for need in found.values()):
            raise BenchError(
                f"needs of {type(self).__name__} gives {type(found).__name__}, no mapping of names to Need"
            )
        return found

    def live_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        """Forwards whose features are not kept, by the size of the picture: for test pictures of these shapes and so
        many training pictures. (0, 0) stands for the encoder's own size."""
        return self.crop_forwards(card, shapes, train)

    def crop_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        """Those of `live_forwards` that `step_source` makes."""
        return {}

    def step_source(self, context: TaskContext) -> StepSource | None:
        """What the steps of a head that trains long read; `run` reads it by `context.steps`. On many workers those that
        have nothing else to do make it, too."""
        return None

    def head_steps(self) -> int:
        """Gradient steps of the head; 0 where it is convex, or read from a file."""
        return 0

    def head_rows(self, card: EncoderCard, train: int) -> tuple[int, int]:
        """(vectors of `train` training pictures that a convex head is fitted on, values of the longest), for heads on
        whole pictures; sampled pixels are counted by their needs."""
        return 0, 0

    def answer(self, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
        """What a kept head that names no `view` says of one `picture` [H, W, 3] uint8."""
        raise BenchError(f"{type(self).__name__} keeps a head without a view, but has no answer of its own")

    @abstractmethod
    def run(self, context: TaskContext) -> Outcome:
        """Fits, if there is something to fit, and scores."""


@dataclass(frozen=True)
class Task:
    """A kind of measurement: of which data, by which methods."""

    name: str
    kind: str  # of the data it reads: it runs on every data set that offers it
    methods: Mapping[str, type[Method[Any]]]  # schema name in the TOML preset -> method
    needs_text: bool = False
    trained: bool = False  # learns from a training split
    # Of a task of another package; ours have these facts in tasks.toml and their presets in tasks/protocols.
    title: str = ""
    metric: str = ""  # the main one
    version: int = 1  # raised whenever the same features and protocol give other numbers
    presets: Path | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where a method could not be told from another one by its protocol."""
        if len({method.schema for method in self.methods.values()}) < len(self.methods):
            raise ValueError(f"task {self.name}: two methods have one schema. Give each a dataclass of its own")

    @property
    def schemas(self) -> Mapping[str, type]:
        """Schema name in the TOML preset -> frozen dataclass of its fields."""
        return {name: method.schema for name, method in self.methods.items()}

    def method(self, protocol: Any) -> Method[Any]:
        """The method for the fields of a preset. The one place that asks of which schema they are."""
        return next(method for method in self.methods.values() if method.schema is type(protocol))(protocol)

    def refusal(self, card: EncoderCard, protocol: Any) -> str | None:
        """Why this encoder cannot do the task under the protocol, or None."""
        return self.method(protocol).not_applicable(card) or (no_text_tower(card) if self.needs_text else None)


def no_text_tower(card: EncoderCard) -> str | None:
    """The words for an encoder that reads no text, or None."""
    return None if card.has_text else f"{card.name} has no text tower"


class FeatureReader(Protocol):
    """The stored array of one Need; reads slices from disk, so memory stays flat."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *item)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> torch.Tensor:
        """float32 tensor on the CPU for an int, slice or index array; [M, …] for a pair of index arrays [M], items and
        rows of their first axes."""
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
    def look_at(self) -> Sequence[int]:
        """Positions of the test samples to hand back pictures of, in place of best, median and worst; empty: those."""
        ...

    @property
    def cross_check(self) -> bool:
        """Whether to compute the headline number a second time with the field's reference implementation."""
        ...

    def features(self, need: str) -> FeatureReader:
        """The stored array of one of the method's needs, by its name there."""
        ...

    def text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32 CPU, L2-normalised, in batches and cached; raises NotApplicable without a text tower."""
        ...

    def encoder(self) -> Encoder:
        """The live encoder, for protocols that must train through or slide over it."""
        ...

    def steps(self, source: StepSource, start: int = 0) -> Iterator[StepInput]:
        """The inputs of step `start` and all that follow, some of them made by other workers of the run."""
        ...

    def progress(self, label: str, total: int) -> Progress: ...
