"""What a watched training run has scored so far, kept so that a killed watcher goes on where it was."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import BenchError, UsageError
from benchmark.rows.row import slug
from benchmark.system import sealed
from benchmark.system.escaping import plain_cell
from benchmark.system.files import disk_errors, make_folder
from benchmark.system.processes import locked
from benchmark.watch.checkpoints import step_of
from benchmark.watch.steps import Progress, ordered_by_name

STATE = "state.json"
SCHEMA = 3  # 2: with what was asked; 3: sealed
OLDEST = 2


@dataclass(frozen=True)
class Point:
    """One number of one checkpoint."""

    unit: str
    protocol: str
    metric: str
    metric_unit: str
    higher_is_better: bool
    value: float
    ci95: tuple[float, float]
    verdict: str = ""  # against the baseline; empty when there is none
    delta: float | None = None
    p_adjusted: float | None = None


@dataclass(frozen=True)
class Entry:
    """One checkpoint that was scored; never scored again unless its files change."""

    name: str
    stamp: str
    step: int | None
    baseline: str
    points: tuple[Point, ...] = ()
    failures: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.name}@{self.stamp}"

    @property
    def regressions(self) -> tuple[Point, ...]:
        return tuple(p for p in self.points if p.verdict == "worse")


def rows_folder(name: str, stamp: str) -> str:
    """The folder of the rows of one state of a checkpoint: written anew, it has another."""
    return f"{slug(name)}-{stamp[:8]}"


@dataclass
class History:
    """The entries of one watched folder, in the order they were scored."""

    folder: Path
    model: str
    suite: str
    scoring: Mapping[str, Any] = field(default_factory=dict)  # what decides a number: watched folder, limit, seed …
    compared: Mapping[str, Any] = field(default_factory=dict)  # what decides a verdict: baseline, tolerance
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, model: str, suite: str, scoring: Mapping[str, Any] | None = None) -> History:
        """The history kept in `folder`, or an empty one.

        `scoring` holds JSON values. Raises UsageError when the history belongs to another model, suite or scoring: its
        numbers would not be comparable with new ones. `compared` is as it was kept; the caller judges it.
        """
        path, asked = folder / STATE, {"model": model, "suite": suite, **(scoring or {})}
        if not path.is_file():
            return cls(folder, model, suite, scoring or {})
        try:
            data = sealed.read_json(path, since=SCHEMA)
            if not OLDEST <= data["schema"] <= SCHEMA:
                raise ValueError(f"schema {data['schema']}, not {SCHEMA}")
            entries = [_entry(e) for e in data["entries"]]
            kept = {"model": data["model"], "suite": data["suite"], **data["scoring"]}
            compared = dict(data["compared"])
        except (OSError, sealed.Damaged, ValueError, KeyError, TypeError, AttributeError) as e:
            why = str(e).removeprefix(f"{path}: ")
            raise BenchError(
                f"{path}: cannot be read as a watch's history ({why}). Move the file away to begin anew: "
                "rows that were scored are found again"
            ) from None
        other = [k for k in {**kept, **asked} if kept.get(k) != asked.get(k)]
        if other:
            there, here = (", ".join(f"{k} {words.get(k)}" for k in other) for words in (kept, asked))
            raise UsageError(f"{folder} keeps the history of {there}. Give another --out for {here}")
        return cls(folder, model, suite, scoring or {}, compared, entries)

    def knows(self, name: str, stamp: str) -> bool:
        """Whether this very state of the checkpoint was scored."""
        return any(e.key == f"{name}@{stamp}" for e in self.entries)

    def add(self, entry: Entry) -> None:
        """Keeps `entry`; on disk before this returns."""
        self.entries.append(entry)
        self.save()

    def latest(self) -> list[Entry]:
        """The last entry of each checkpoint: one that was written anew is judged by what it holds now."""
        last = {e.name: e for e in self.entries}
        return [e for e in self.entries if last[e.name] is e]

    def save(self) -> None:
        """Writes the state, whole or not at all."""
        data = {
            "schema": SCHEMA,
            "model": self.model,
            "suite": self.suite,
            "scoring": dict(self.scoring),
            "compared": dict(self.compared),
            "entries": [asdict(e) for e in self.entries],
        }
        sealed.write_json(self.folder / STATE, data)

    def units(self) -> list[str]:
        """Every unit with a number, in the order of first appearance."""
        return list(dict.fromkeys(p.unit for e in self.entries for p in e.points))

    def ordered_by_name(self) -> dict[str, Progress]:
        """The checkpoints that are in order by their names, and what those say; the others are ordered by time."""
        return ordered_by_name(e.name for e in self.entries)

    def csv(self) -> str:
        """One line for each checkpoint and unit."""
        out = io.StringIO()
        names = (
            "checkpoint",
            "step",
            "unit",
            "protocol",
            "metric",
            "unit_of_metric",
            "value",
            "low",
            "high",
            "verdict",
            "ordered_by",
        )
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        by_name = self.ordered_by_name()
        for e in self.entries:
            said = by_name.get(e.name)
            name, step, order = plain_cell(e.name), said.number if said else "", said.unit if said else "time"
            for p in e.points:
                writer.writerow(
                    [name, step, p.unit, p.protocol, p.metric, p.metric_unit, p.value, *p.ci95, p.verdict, order]
                )
        return out.getvalue()


def _entry(data: dict[str, Any]) -> Entry:
    points = tuple(Point(**{**p, "ci95": tuple(p["ci95"])}) for p in data["points"])
    words = {key: tuple(data[key]) for key in ("failures", "refused")}
    return Entry(**{**data, **words, "points": points, "step": step_of(data["name"])})  # whoever wrote it


@contextmanager
def only_watcher(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which goes when the process goes. Raises UsageError when another watcher has it,
    BenchError when nothing can be written there."""
    with ExitStack() as held:
        try:
            make_folder(folder)
            with disk_errors(folder):
                held.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError:
            raise UsageError(
                f"another bench watch already writes to {folder}. Stop it, or give another --out"
            ) from None
        yield
