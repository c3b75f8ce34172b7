"""What a row holds: the fields of its `result.json`, in the order in which they are written.

A row is parsed once, when it is read. Rows of every schema since OLDEST load for ever: fields that came later have a
default. A field that is added here is described in docs/rows.md (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.rows.parse import SPARSE, Count, Misfit, Name, Record, parse
from benchmark.statistics.statistic import Statistic

SCHEMA = 2  # 2: sealed, with what could make it stale
OLDEST = 1
SEALED = 2  # since this schema a row holds the sha256 of itself


@dataclass(frozen=True, kw_only=True)
class Weights(Record):
    """Where a model's weights came from."""

    source: Name | None = None  # repository and revision, or file
    sha256: Name | None  # of the weights; None where a model has none


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Record):
    """The model that was measured."""

    name: Name  # as tables show it
    asked: Name | None = field(default=None, metadata=SPARSE)  # what it would be called without --name
    family: Name | None = None  # the adapter's word
    code: Mapping[str, str] = field(default_factory=dict)  # module of the adapter -> its version
    backend: Name | None = None  # torch or jax
    params: int | None = None  # image tower + text tower
    embed_dim: int | None = None  # channels of a patch feature
    image_size: int | None = None  # pixels of a side, as it was trained
    patch_size: int | None = None  # pixels of a side
    dtype: Name  # it ran in
    stored_as: Name | None = None  # how dense features were kept (--store)
    licence: Name | None = None  # of the weights
    options: Mapping[str, Any] = field(default_factory=dict)  # --gelu, --positions …
    transform: Mapping[str, Any] = field(default_factory=dict)  # how pictures are laid out, cut and normalised
    weights: Weights


@dataclass(frozen=True, kw_only=True)
class TaskFacts(Record):
    """What it was measured on."""

    name: Name
    dataset: Name
    version: int | None = None  # of the task's code
    split: Name | None = None
    n: Count  # samples
    limit: int | None = None  # --limit
    dataset_digest: Name | None  # of the pictures and labels
    dataset_options: Mapping[str, Any] | None = field(
        default=None, metadata=SPARSE
    )  # of `run()`, where some were given
    place: Name | None = field(default=None, metadata=SPARSE)  # six digits of the path of the user's own task file
    ground_truth: str = field(default="", metadata=SPARSE)  # which one, where a data set has several


@dataclass(frozen=True, kw_only=True)
class ProtocolField(Record):
    """One value of a protocol, and how sure it is."""

    value: Any
    status: Name = ""  # confirmed, inferred or unknown
    source: str = ""  # who says so


@dataclass(frozen=True, kw_only=True)
class ProtocolFacts(Record):
    """How it was measured."""

    name: Name  # the preset, "+set" behind it where --set changed it
    hash: Name  # of task, schema and every value
    schema: Name | None = None  # which method of the task reads the fields
    fields: Mapping[str, ProtocolField] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metric(Record):
    """One number."""

    value: float
    ci95: tuple[float, float]  # 95 % interval, from resampled samples
    higher_is_better: bool
    unit: Name  # %, °, m or nothing
    chance: float | None = field(default=None, metadata=SPARSE)  # what the best answer that sees no picture gets
    statistic: Statistic  # how the value comes from the columns of `samples.parquet`


@dataclass(frozen=True, kw_only=True)
class Timing(Record):
    """Seconds by stage."""

    extract_s: float = 0.0
    fit_s: float = 0.0
    score_s: float = 0.0
    total_s: float
    images_per_s: float | None = None  # None where all features were there already
    trained_by: int | None = field(default=None, metadata=SPARSE)  # processes that encoded its head's crops, if several


@dataclass(frozen=True, kw_only=True)
class Densebench(Record):
    """The densebench that made a row."""

    version: Name
    commit: Name | None = None
    dirty: bool | None = None  # whether its files differed from that commit


@dataclass(frozen=True, kw_only=True)
class Environment(Record):
    """The machine and the libraries."""

    python: str | None = None
    platform: str | None = None
    cpu: str | None = None
    instruction_set: str | None = None  # which vector instructions torch's kernels use
    cpu_flags: tuple[str, ...] = ()  # vector and matrix units, as Linux names them
    cores: int | None = None
    threads: int | None = None
    device: str | None = None
    gpu: str | None = None
    cuda: str | None = None
    packages: Mapping[str, Any] = field(default_factory=dict)  # name -> version
    densebench: Densebench


@dataclass(frozen=True, kw_only=True)
class RowData(Record):
    """A whole `result.json`."""

    schema: int  # version of this layout
    id: Name  # 16 hex digits of what was asked for
    created: Name  # ISO 8601
    command: str = ""
    seed: int
    request: Name = ""  # digest of everything asked for, by which a finished row is found again
    model: ModelFacts
    task: TaskFacts
    protocol: ProtocolFacts
    metrics: Mapping[str, Metric]
    main_metric: Name  # the one that tables show
    details: Mapping[str, Any] = field(default_factory=dict)  # what the task chose or counted
    kept_predictions: int = 0  # how many best, median and worst pictures lie beside it
    n_bad: int  # pictures left out (--max-bad)
    bad: tuple[str, ...] = ()  # which, and why
    partial: tuple[str, ...] = ()  # splits smaller than the official ones
    notes: tuple[str, ...] = ()  # what else was seen in the data
    timing: Timing
    peak_memory_mb: float | None = None  # of this model, in MiB
    peak_memory_method: str = ""  # how it was read
    peak_gpu_memory_mb: float | None = None
    environment: Environment
    samples_sha256: Name = field(default="", metadata=SPARSE)  # of `samples.parquet`; `save` fills it in
    sha256: Name = field(default="", metadata=SPARSE)  # of this file without this field; `save` fills it in


def parse_row(data: Any) -> RowData:
    """The row that a `result.json` holds. Raises Misfit for what is no whole row, or one of a schema that this
    densebench does not read."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise Misfit(f"schema {schema} is newer than this densebench knows ({SCHEMA}). Update densebench")
    if isinstance(schema, int) and schema < OLDEST:
        raise Misfit(f"schema {schema} is older than this densebench reads ({OLDEST}). Run it again")
    row = parse(RowData, data)
    if row.main_metric not in row.metrics:
        raise Misfit(f"main_metric {row.main_metric!r} is not among its metrics")
    return row
