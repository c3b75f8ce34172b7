"""`published.csv`: the numbers of papers, one a line."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import BenchError, reading
from benchmark.system.paths import reference_dir
from benchmark.system.texts import text_of

ELSEWHERE = "measured_elsewhere.csv"
METRIC_NAMES = {  # of the tables -> of rows
    "top1": "top-1",
    "knn_top1": "kNN top-1",
    "linear_top1": "linear top-1",
    "mean_R@1": "mean R@1",
    "angular_RMSE": "angular RMSE",
    "abs rel": "abs-rel",
    "d1 %": "δ1",
    "mean deg": "mean angle",
    "median deg": "median angle",
    "11.25 deg %": "11.25°",
    "22.5 deg %": "22.5°",
    "30 deg %": "30°",
    "aAcc %": "aAcc",
    "mAcc %": "mAcc",
}


@dataclass(frozen=True)
class PublishedNumber:
    """One number of a paper; it has no samples, so it is shown and never tested."""

    model: str
    model_id: str
    task: str
    dataset: str
    metric: str
    value: float
    source: str
    note: str

    @property
    def unit(self) -> str:
        return f"{self.task}/{self.dataset}"


@dataclass(frozen=True)
class MeasuredElsewhere:
    """A number that others measured on the public weights, by a tool of theirs; shown and never tested."""

    model: str
    task: str
    dataset: str
    split: str
    metric: str
    value: float
    tool: str
    protocol: str  # as far as it is said
    differs: str  # which fields of the preset it differs in; empty: in none that is said
    date: str
    source: str

    @property
    def unit(self) -> str:
        return f"{self.task}/{self.dataset}"


def measured_elsewhere(results: Path, shipped: bool = True) -> list[MeasuredElsewhere]:
    """Those of `<results>/measured_elsewhere.csv`; where there is no such file, those that come with densebench, if
    `shipped`. Raises BenchError naming a bad line."""
    if not shipped and not (results / ELSEWHERE).is_file():
        return []
    path, rows = _table(results, ELSEWHERE)
    with reading(lambda: f"{path}:{rows.line_num}", "not a measured number", "Correct the line", BenchError):
        return [_measured(row) for row in rows]


def _measured(row: dict[str, str]) -> MeasuredElsewhere:
    known = {**row, "metric": METRIC_NAMES.get(row["metric"], row["metric"]), "value": float(row["value"])}
    return MeasuredElsewhere(**known)  # type: ignore[arg-type]


def runnable_names(results: Path) -> dict[str, tuple[str, str]]:
    """Model of a table that no name stands beside there -> (what `--model` takes, or why it cannot be run)."""
    _, rows = _table(results, "published_models.csv")
    return {row["model"]: (row["name"], row["reason"]) for row in rows}


def _table(results: Path, name: str) -> tuple[Path, csv.DictReader[str]]:
    """A table of `results`, else the one that comes with densebench: its path and its lines."""
    path = next((p for p in (results / name, reference_dir().parent / name) if p.is_file()), None)
    return path or results / name, csv.DictReader(io.StringIO(text_of(path) if path else "", newline=""))


def published_numbers(results: Path) -> list[PublishedNumber]:
    """Those of `<results>/published.csv`; where there is no such file, those that come with densebench."""
    return read_published(results) or read_published(reference_dir().parent)


def read_published(results: Path) -> list[PublishedNumber]:
    """The rows of `<results>/published.csv`; empty when there is no such file. Raises BenchError naming a bad line."""
    path = results / "published.csv"
    if not path.is_file():
        return []
    rows = csv.DictReader(io.StringIO(text_of(path), newline=""))
    with reading(lambda: f"{path}:{rows.line_num}", "not a published number", "Correct the line", BenchError):
        return [_published(row) for row in rows]


def _published(row: dict[str, str]) -> PublishedNumber:
    metric = METRIC_NAMES.get(row["metric"], row["metric"])
    texts = {k: row.get(k) or "" for k in ("model", "model_id", "task", "dataset", "source", "note")}
    value = float(row["value"])
    if not math.isfinite(value):
        raise ValueError(f"value is {row['value']}")
    return PublishedNumber(metric=metric, value=value, **texts)
