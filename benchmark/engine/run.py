"""The run: for each model, one shared extraction, then every task that is missing, each saved as soon as it is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmark.contracts.progress import NewProgress, silent
from benchmark.engine.ahead import Ahead
from benchmark.engine.identity import model_stamp, named
from benchmark.engine.jobs import Job, JobMaker, refuse_unread
from benchmark.engine.loading import require_weights
from benchmark.engine.network import forbid_network
from benchmark.engine.options import RunOptions
from benchmark.engine.record import record
from benchmark.engine.session import Session
from benchmark.engine.slots import NOT_APPLICABLE, Slot, slot_of
from benchmark.engine.suites import choose
from benchmark.errors import BenchError, DataError, NotApplicable, UsageError, staying, unknown
from benchmark.protocol import Change, EvalProtocol
from benchmark.registry import Unit, check_model_name, check_own_file, is_own_code
from benchmark.rows.row import Row, read_row, save
from benchmark.rows.tables import frame, refuse_other_tables
from benchmark.system import cache_users, sealed
from benchmark.system.files import unreadable, writable

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Variants = Callable[[EvalProtocol], Sequence[Change]]


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
        count = f"{len(self.rows)} rows, {len(self.not_applicable)} not applicable, {len(self.failures)} failed"
        return f"<Report: {count}. table() is a pandas table>"

    def table(self) -> pd.DataFrame:
        """Every metric of every row, as `load_results` gives them: a pandas table, one line each."""
        return frame(self.rows)

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


def run(
    models: Sequence[str] | str,
    tasks: Sequence[str] | str = (),
    *,
    suite: str | None = None,
    options: RunOptions | None = None,
    hooks: Hooks | None = None,
    variants: Variants | None = None,
    **more: Any,
) -> Report:
    """Evaluates `models` on `tasks` and `suite` (the words of the command line); further keywords are of RunOptions.

    `variants` says by which changes of its preset each unit is run beside it: their rows lie apart, their passes are
    shared. Rows that exist for the same request are read, not made again. A task that fails is reported and the others
    go on.
    Raises UsageError before anything runs when a name, a protocol or an option is wrong.
    """
    if wrong := sorted(more.keys() - RunOptions.__dataclass_fields__.keys()):
        raise unknown("keyword of run", wrong[0], RunOptions.__dataclass_fields__, "help(benchmark.engine.options)")
    options = options or RunOptions(**more)
    hooks = hooks or Hooks()
    models, tasks = _words(models), _words(tasks)
    if not options.command:
        said = [repr(models), repr(tasks), *(f"{key}={value!r}" for key, value in {"suite": suite, **more}.items())]
        options = replace(options, command=f"run({', '.join(w for w in said if w != 'suite=None')})")
    if options.offline:
        forbid_network()
    chosen = choose(tasks, suite)
    found = chosen.units
    refuse_unread(options.overrides, found)
    require_weights(options.weights)
    for name in models:
        check_own_file(name)
    if options.name is not None and len(models) != 1:
        raise UsageError(f"--name {options.name}: is for one model, {len(models)} are named. Run each by itself")
    for name in models:
        named(name, options)
    writable(options.results)
    refuse_other_tables(options.results)
    stamps = {name: model_stamp(name, options.weights) for name in models}
    report = Report()
    maker = JobMaker(options, chosen.preset, hooks.progress)
    for unit in found:  # before the data of another are read
        maker.check_protocol(unit)
    with report.timed("data"):
        jobs = _jobs(found, maker, report, hooks, variants or (lambda protocol: ()))
    for name in models:
        _run_model(name, stamps[name], jobs, options, hooks, report)
    return report


def check_words(
    models: Sequence[str] | str, tasks: Sequence[str] = (), suite: str | None = None, **options: Any
) -> None:
    """Raises UsageError for what `run` would refuse in these words; opens no data and loads no model."""
    for name in _words(models):
        check_model_name(name)
    chosen = choose(tasks, suite)
    maker = JobMaker(RunOptions(**options), chosen.preset, silent)
    for unit in chosen.units:
        maker.check_protocol(unit)


def _words(value: Sequence[str] | str) -> list[str]:
    words = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    for word in words:
        if not isinstance(word, str):
            raise UsageError(
                f"run takes names, not {type(word).__name__} objects. For an encoder object: "
                "load_task(NAME).evaluate(encoder); for a row of it a function in a file: run('FILE.py:FUNCTION', NAME)"
            )
    return words


def _jobs(found: Sequence[Unit], maker: JobMaker, report: Report, hooks: Hooks, variants: Variants) -> list[Job]:
    attempts = []
    for unit in found:
        plain = _attempt(partial(_job, unit, maker), Note("", unit, ""), report, hooks)
        attempts.append(plain)
        for change in variants(plain.protocol) if plain else ():
            note = Note("", unit, "", change)
            attempts.append(_attempt(partial(_job, unit, maker, change), note, report, hooks))
    return [job for job in attempts if job is not None]


def _job(unit: Unit, maker: JobMaker, change: Change | None = None) -> Job:
    try:
        return maker.make(unit, change)
    except OSError as e:  # a folder that may not be read
        raise DataError(unreadable(e)) from None


def _fail(report: Report, hooks: Hooks, note: Note) -> None:
    report.failures.append(note)
    hooks.failure(note)


def _attempt(action: Callable[[], T], note: Note, report: Report, hooks: Hooks) -> T | None:
    """The action's value, or None and a failure with its one line. Wrong usage and "not applicable" pass through."""
    try:
        with staying():
            return action()
    except (UsageError, NotApplicable):
        raise
    except BenchError as e:
        _fail(report, hooks, replace(note, text=str(e)))
    except Exception as e:
        if hooks.debug:
            raise
        words = str(e).splitlines()[0] if str(e) else "no message"
        _fail(report, hooks, replace(note, text=f"{type(e).__name__}: {words}. Run with --debug for the traceback"))
    return None


def _run_model(name: str, stamp: str, jobs: list[Job], options: RunOptions, hooks: Hooks, report: Report) -> None:
    shown = named(name, options)
    opening = Note(shown, None, "")
    session = None
    if jobs and is_own_code(name):  # only the loaded encoder can tell whether finished rows are its own
        with report.timed("models"):
            session = _attempt(partial(Session.open, name, shown, options, hooks.progress), opening, report, hooks)
        if session is None:
            return
        stamp = model_stamp(name, options.weights, session.encoder)
    todo: list[tuple[Job, Slot]] = []
    for job in jobs:
        slot = slot_of(job, name, stamp, options)
        if not options.force and (row := slot.finished(options.cross_check)):
            shutil.rmtree(scratch_of(slot, options), ignore_errors=True)  # a kill between the row and its removal
            report.rows.append(row)
            report.reused += 1
            hooks.row(row)
        elif not options.force and (reason := slot.not_applicable()):
            report.not_applicable.append(Note(shown, job.unit, reason, job.change))
        else:
            todo.append((job, slot))
    if not todo:
        return
    with report.timed("models"):
        session = session or _attempt(
            partial(Session.open, name, shown, options, hooks.progress), opening, report, hooks
        )
    if session is None:
        return
    with report.timed("tasks"):
        planned = []
        for job, slot in todo:
            try:
                if _attempt(partial(session.plan, job), Note(shown, job.unit, "", job.change), report, hooks):
                    planned.append((job, slot))
            except NotApplicable as e:
                _refuse(slot, Note(shown, job.unit, str(e), job.change), report)
        with Ahead([job for job, _ in planned], hooks.progress):
            for job, slot in planned:
                try:
                    note = Note(shown, job.unit, "", job.change)
                    row = _attempt(partial(_row, session, job, slot), note, report, hooks)
                except NotApplicable as e:
                    _refuse(slot, replace(note, text=str(e)), report)
                    continue
                if row is not None:
                    report.rows.append(row)
                    hooks.row(row)
    report.clock["tasks"] -= session.extractor.prepared
    report.clock["rendering"] = report.clock.get("rendering", 0.0) + session.extractor.prepared
    report.forwards[shown] = session.extractor.forwards


def _refuse(slot: Slot, note: Note, report: Report) -> None:
    """Reports that a job is not applicable, and writes it down."""
    report.not_applicable.append(note)
    sealed.write_json(slot.folder / NOT_APPLICABLE, {"reason": note.text, "request": slot.request})


def _row(session: Session, job: Job, slot: Slot) -> Row:
    """Runs the job and saves its row."""
    scratch = scratch_of(slot, session.options)
    cache_users.touch(session.options.cache, scratch)
    outcome, timing = session.run(job, scratch)
    save(slot.folder, record(session, job, slot, outcome, timing), outcome.samples, outcome.files)
    shutil.rmtree(scratch, ignore_errors=True)
    return read_row(slot.folder)


def scratch_of(slot: Slot, options: RunOptions) -> Path:
    """Where a head that takes long to train keeps its state until its row is there."""
    return options.cache / "heads" / slot.request
