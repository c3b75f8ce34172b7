"""What a run tells: rows, what is not applicable, what failed, where the seconds went."""

from __future__ import annotations

import importlib.util
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, TypeVar

from benchmark.contracts.progress import NewProgress, silent
from benchmark.errors import BenchError, NotApplicable, UsageError, staying
from benchmark.protocol import Change
from benchmark.registry import Unit
from benchmark.rows.row import Row
from benchmark.rows.tables import frame, side_by_side
from benchmark.system.plurals import number_of

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
OURS = ("benchmark", "adapters", "tasks")


@dataclass(frozen=True)
class Note:
    """Why a model has no row for a unit."""

    model: str
    unit: Unit | None
    text: str
    change: Change | None = None  # of a variant of the preset

    def __str__(self) -> str:
        """`model/task/dataset (change)`, as far as it is known."""
        where = "/".join(filter(None, (self.model, str(self.unit or ""))))
        return f"{where} ({self.change})" if self.change else where

    @property
    def line(self) -> str:
        """What people are told: an adapter's own line begins with the model's name, too."""
        return f"{self}: {self.text.removeprefix(f'{self.model}: ')}"


@dataclass
class Report:
    """What a run did."""

    rows: list[Row] = field(default_factory=list)
    reused: int = 0
    not_applicable: list[Note] = field(default_factory=list)
    failures: list[Note] = field(default_factory=list)
    forwards: dict[str, int] = field(default_factory=dict)  # model -> pictures encoded
    clock: dict[str, float] = field(default_factory=dict)  # seconds by stage: data, rendering, models, tasks

    def __repr__(self) -> str:
        left = f"{len(self.not_applicable)} not applicable, {len(self.failures)} failed"
        return f"<Report: {number_of(len(self.rows), 'row')}, {left}. table() is a pandas table>"

    def table(self, wide: bool = False) -> pd.DataFrame:
        """Every metric of every row, as `load_results` gives them: a pandas table, one line each.

        `wide`: a paper's table, tasks down and models across: `report.table(wide=True).to_latex(escape=True)`."""
        return (side_by_side if wide else frame)(self.rows)

    def _repr_html_(self) -> str:
        shown = ["model", "task", "dataset", "metric", "value", "ci95_low", "ci95_high", "chance", "unit", "n"]
        failed = [f"{n.unit or n.model}: {n.text}" for n in (*self.failures, *self.not_applicable)]
        notes = "".join(f"<li>{escape(line)}</li>" for line in failed)
        return str(self.table()[shown].to_html(index=False)) + (f"<ul>{notes}</ul>" if notes else "")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts the seconds of its block as those of `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.clock[stage] = self.clock.get(stage, 0.0) + time.perf_counter() - started


@dataclass
class Hooks:
    """What the command line listens to."""

    progress: NewProgress = silent
    row: Callable[[Row], None] = lambda row: None
    failure: Callable[[Note], None] = lambda note: None
    debug: bool = False


def fail(report: Report, hooks: Hooks, note: Note) -> None:
    """Reports a failure."""
    report.failures.append(note)
    hooks.failure(note)


def attempt(action: Callable[[], T], note: Note, report: Report, hooks: Hooks) -> T | None:
    """The action's value, or None and a failure with its one line. Wrong usage and "not applicable" pass through."""
    try:
        with staying():
            return action()
    except (UsageError, NotApplicable):
        raise
    except Exception as e:
        if hooks.debug and not isinstance(e, BenchError):
            raise
        fail(report, hooks, replace(note, text=words_of(e)))
    return None


def words_of(error: Exception) -> str:
    """The line for what stopped a job."""
    if isinstance(error, BenchError):
        return str(error)
    words = str(error).splitlines()[0] if str(error) else "no message"
    if isinstance(error, ImportError):
        library = (error.name or "").partition(".")[0] or _raising(error) or "the library"
        return f"{words}. {library} is missing or broken: install it again. --debug shows the traceback"
    return f"{type(error).__name__}: {words}. Run with --debug for the traceback"


def _raising(error: ImportError) -> str:
    """The library whose own code raised the error, as a broken one does that tells no name: that of the innermost frame
    but Python's import system; empty where that is our code or a file that nothing imports by name."""
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    outside = [
        name.partition(".")[0] for name in names if name.partition(".")[0] not in ("importlib", "_frozen_importlib")
    ]
    library = outside[-1] if outside else ""
    known = library not in ("", "__main__", *OURS) and importlib.util.find_spec(library) is not None
    return library if known else ""
