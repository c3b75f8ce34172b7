"""The options of a run, with their defaults and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.errors import UsageError
from benchmark.features.codec import CODECS
from benchmark.registry import Unit
from benchmark.rows.row import STORE, slug
from benchmark.system.paths import cache_dir, data_dir, results_dir

BACKENDS = ("torch", "jax")
DTYPES = ("auto", "float32", "bfloat16", "float16")
LEAST = {"--limit": 2, "--batch-size": 1, "--workers": 0, "--gpus": 1}
SEEDS = 2**32  # what every library that is given the seed takes


@dataclass(frozen=True)
class RunOptions:
    """How to run; what to run (models and units) is given beside it."""

    protocol: str | None = None  # None: the suite's, else "fast"
    overrides: Mapping[str, str] = field(default_factory=dict)  # protocol field -> text
    name: str | None = None  # what rows call the model; None: what it was asked for by
    weights: str | None = None
    backend: str = "torch"
    device: str = "auto"
    dtype: str = "auto"
    model_options: Mapping[str, str] = field(default_factory=dict)
    dataset_options: Mapping[str, str] = field(default_factory=dict)
    batch_size: int | None = None  # None: found by halving
    limit: int | None = None
    data: Path = field(default_factory=data_dir)
    results: Path = field(default_factory=results_dir)
    cache: Path = field(default_factory=cache_dir)
    store: str = STORE
    offline: bool = False
    trust_remote_code: bool = False
    seed: int = 0
    workers: int | None = None  # None: chosen
    ray: str | None = None  # address of a Ray cluster, or "local": models × units on many processes or machines
    gpus: int | None = None  # at most so many of its GPUs, or cores where there are none; None: all
    max_bad: int = 0
    save_predictions: int = 0
    save_heads: bool = False  # keep trained heads beside their rows
    cross_check: bool = False  # compute mIoU a second time with mmsegmentation's IoUMetric
    force: bool = False
    check: bool = True  # the cheap conformance check before a model's first run
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("data", "results", "cache"):  # text will do from Python
            object.__setattr__(self, name, Path(getattr(self, name)))
        for name, value, known in (
            ("--backend", self.backend, BACKENDS),
            ("--dtype", self.dtype, DTYPES),
            ("--store", self.store, CODECS),
        ):
            if value not in known:
                raise UsageError(f"{name} {value!r} is not one of {', '.join(known)}")
        for name, number in zip(LEAST, (self.limit, self.batch_size, self.workers, self.gpus)):
            if number is not None and number < LEAST[name]:
                raise UsageError(f"{name} {number} is below {LEAST[name]}")
        if not 0 <= self.seed < SEEDS:
            raise UsageError(f"--seed {self.seed}: must be from 0 to {SEEDS - 1}")
        if self.name is not None and (not self.name or slug(self.name) != self.name):
            raise UsageError(f"--name {self.name!r}: it becomes a folder: use letters, digits, '.', '_', '@' and '-'")
        if self.max_bad < 0 or self.save_predictions < 0:
            raise UsageError("--max-bad and --save-predictions cannot be negative")

    def limit_of(self, unit: Unit) -> int | None:
        """At most so many samples of each split of `unit`: --limit, else what its suite says."""
        return unit.limit if self.limit is None else self.limit
