"""The run: for each model, one shared extraction, then every task that is missing, each saved as soon as it is done."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmark.contracts.progress import silent
from benchmark.engine.ahead import Ahead
from benchmark.engine.cluster import refuse_without_ray
from benchmark.engine.identity import model_stamp
from benchmark.engine.jobs import Job, JobMaker, refuse_unread
from benchmark.engine.network import forbid_network
from benchmark.engine.options import RunOptions
from benchmark.engine.record import make_row, refuse
from benchmark.engine.report import Hooks, Note, Report, attempt
from benchmark.engine.session import Session
from benchmark.engine.slots import Slot
from benchmark.engine.spread import spread
from benchmark.engine.suites import choose
from benchmark.engine.target import Target, targets
from benchmark.errors import DataError, NotApplicable, UsageError, unknown
from benchmark.protocol import Change, EvalProtocol
from benchmark.registry import Unit, check_model_name
from benchmark.rows.tables import refuse_other_tables
from benchmark.system.files import unreadable, writable

log = logging.getLogger("densebench.heads")
Variants = Callable[[EvalProtocol], Sequence[Change]]


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
        known = ("models", "tasks", "suite", *RunOptions.__dataclass_fields__)
        raise unknown("keyword of run", wrong[0], known, "help(benchmark.engine.options)")
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
    refuse_without_ray(options)
    found_models = targets(models, options)
    writable(options.results)
    refuse_other_tables(options.results)
    report = Report()
    maker = JobMaker(options, chosen.preset, hooks.progress)
    for unit in found:  # before the data of another are read
        maker.check_protocol(unit)
    with report.timed("data"):
        jobs = _jobs(found, maker, report, hooks, variants or (lambda protocol: ()))
    if options.save_heads and (none := no_heads(jobs)):
        log.warning("%s", none)
    if options.ray:
        spread(found_models, jobs, options, hooks, report)
    else:
        with Ahead(hooks.progress) as ahead:
            for target in found_models:
                _run_model(target, jobs, hooks, report, ahead)
    return report


def no_heads(jobs: Sequence[Job]) -> str:
    """The line for --save-heads where `jobs` have no head to keep; empty: all have."""
    kept = [job for job in jobs if job.method.keeps_head]
    lost = dict.fromkeys(
        f"{job.unit} by {job.protocol.name}"
        for job in jobs
        if not job.method.keeps_head and (not kept or "train" in job.method.splits())
    )
    if not lost:
        return ""
    return (
        f"--save-heads: no head is kept of {', '.join(lost)}: it trains none, or reads one from a file. "
        "Dense probes and classification with a linear part have one"
    )


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
        plain = attempt(partial(_job, unit, maker), Note("", unit, ""), report, hooks)
        attempts.append(plain)
        for change in variants(plain.protocol) if plain else ():
            note = Note("", unit, "", change)
            attempts.append(attempt(partial(_job, unit, maker, change), note, report, hooks))
    return [job for job in attempts if job is not None]


def _job(unit: Unit, maker: JobMaker, change: Change | None = None) -> Job:
    try:
        return maker.make(unit, change)
    except OSError as e:  # a folder that may not be read
        raise DataError(unreadable(e)) from None


def _run_model(target: Target, jobs: list[Job], hooks: Hooks, report: Report, ahead: Ahead) -> None:
    opening = Note(target.shown, None, "")
    open_session = partial(Session.open, target.name, target.shown, target.options, hooks.progress)
    session, stamp = None, target.stamp
    if jobs and stamp is None:
        with report.timed("models"):
            session = attempt(open_session, opening, report, hooks)
        if session is None:
            return
        stamp = model_stamp(target.name, target.options.weights, session.encoder)
    todo = target.settle(jobs, target.slots(jobs, stamp), report, hooks) if stamp else {}
    if not todo:
        return
    ahead.begin([jobs[number] for number in todo])  # pictures are rendered while the model is opened
    with report.timed("models"):
        session = session or attempt(open_session, opening, report, hooks)
    if session is None:
        ahead.keep(())
        return
    with report.timed("tasks"):
        planned = []
        for number, slot in todo.items():
            job = jobs[number]
            note = Note(target.shown, job.unit, "", job.change)
            try:
                if attempt(partial(session.plan, job), note, report, hooks):
                    planned.append((job, slot))
            except NotApplicable as e:
                refuse(report, slot, replace(note, text=str(e)))
        ahead.keep([job for job, _ in planned])
        _make_rows(session, planned, hooks, report)
    report.clock["tasks"] -= session.extractor.prepared
    report.clock["rendering"] = report.clock.get("rendering", 0.0) + session.extractor.prepared
    report.forwards[target.shown] = session.extractor.forwards


def _make_rows(session: Session, planned: list[tuple[Job, Slot]], hooks: Hooks, report: Report) -> None:
    """Makes the rows in their order; one that another run is making comes last, and is waited for."""
    left, late = deque(planned), 0
    while left:
        job, slot = left.popleft()
        claim = slot.claim(session.options.cache)
        if not claim.take():
            left.append((job, slot))
            late += 1
            if late <= len(left):
                continue
            hooks.progress(f"waiting for another run ({job.unit})", 0)
            left.pop()
            claim.take(wait=True)
        late = 0
        note = Note(session.shown, job.unit, "", job.change)
        try:
            there = None if session.options.force else slot.finished(session.options.cross_check)
            row = there or attempt(partial(make_row, session, job, slot), note, report, hooks)
        except NotApplicable as e:
            refuse(report, slot, replace(note, text=str(e)))
            continue
        finally:
            claim.free()
        if row is not None:
            report.reused += row is there
            report.rows.append(row)
            hooks.row(row)
