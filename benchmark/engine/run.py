"""The run: for each model, one shared extraction, then every task that is missing, each saved as soon as it is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from benchmark.contracts import Encoder, Outcome
from benchmark.contracts.progress import NewProgress, silent
from benchmark.data.overlap import note_same_files
from benchmark.engine.context import Context
from benchmark.engine.environment import environment, forget_gpu_peak, peak_gpu_memory_mb
from benchmark.engine.identity import display_name, model_stamp
from benchmark.engine.jobs import NOT_APPLICABLE, Job, JobMaker, refuse_unread, resolve_units
from benchmark.engine.loading import device_of, load_encoder, require_weights, resolve_device
from benchmark.engine.network import forbid_network
from benchmark.engine.options import RunOptions
from benchmark.engine.slots import Slot, place_of, slot_of
from benchmark.errors import BenchError, DataError, NotApplicable, UsageError
from benchmark.features.cluster import Cluster, Recipe
from benchmark.features.extract import Extractor
from benchmark.features.plan import Planner, identity
from benchmark.features.store import FeatureStore, close_shards
from benchmark.registry import Unit, check_model_name, code_of, is_own_code, load_task, models
from benchmark.registry import tasks as registered
from benchmark.rows.row import SCHEMA, Row, metrics_of, read_row, save
from benchmark.system import cache_users, sealed
from benchmark.system.digest import fingerprint, plain
from benchmark.system.files import unreadable, writable, write_text
from benchmark.system.processes import PeakMemory

T = TypeVar("T")


@dataclass(frozen=True)
class Note:
    """Why a model has no row for a unit."""

    model: str
    unit: Unit | None
    text: str


@dataclass
class Report:
    """What a run did."""

    rows: list[Row] = field(default_factory=list)
    reused: int = 0
    not_applicable: list[Note] = field(default_factory=list)
    failures: list[Note] = field(default_factory=list)
    forwards: dict[str, int] = field(default_factory=dict)  # model -> pictures encoded


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
    **more: Any,
) -> Report:
    """Evaluates `models` on `tasks` (the words of --task) and on `suite`; further keywords are fields of RunOptions.

    Rows that exist for the same request are read, not made again. A task that fails is reported and the others go on.
    Raises UsageError before anything runs when a name, a protocol or an option is wrong.
    """
    options = options or RunOptions(**more)
    hooks = hooks or Hooks()
    models, tasks = _words(models), _words(tasks)
    if options.offline:
        forbid_network()
    found, preset = resolve_units(tasks, suite)
    refuse_unread(options.overrides, found)
    require_weights(options.weights)
    writable(options.results)
    stamps = {name: model_stamp(name, options.weights) for name in models}
    report = Report()
    maker = JobMaker(options, preset, hooks.progress)
    _check_protocols(found, maker)
    jobs = _jobs(found, maker, report, hooks)
    for name in models:
        _run_model(name, stamps[name], jobs, options, hooks, report)
    return report


def check_words(models: Sequence[str] | str, suite: str, **options: Any) -> None:
    """Raises UsageError for what `run` would refuse in these words; opens no data and loads no model."""
    chosen = RunOptions(**options)
    for name in _words(models):
        check_model_name(name)
    found, preset = resolve_units((), suite)
    _check_protocols(found, JobMaker(chosen, preset, silent))


def _check_protocols(found: Sequence[Unit], maker: JobMaker) -> None:
    """Raises UsageError for a preset or a `--set` that a unit has no use for, before the data of another are read."""
    for unit in found:
        if not unit.path:  # a task file says some fields itself
            maker.protocol(unit, load_task(unit.task))


def _words(value: Sequence[str] | str) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _jobs(found: Sequence[Unit], maker: JobMaker, report: Report, hooks: Hooks) -> list[Job]:
    attempts = [_attempt(partial(_job, unit, maker), Note("", unit, ""), report, hooks) for unit in found]
    return [job for job in attempts if job is not None]


def _job(unit: Unit, maker: JobMaker) -> Job:
    try:
        return maker.make(unit)
    except OSError as e:  # a folder that may not be read
        raise DataError(unreadable(e)) from None


def _fail(report: Report, hooks: Hooks, note: Note) -> None:
    report.failures.append(note)
    hooks.failure(note)


def _attempt(action: Callable[[], T], note: Note, report: Report, hooks: Hooks) -> T | None:
    """The action's value, or None and a failure with its one line. Wrong usage and "not applicable" pass through."""
    try:
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
    shown = display_name(name, options.weights)
    opening = Note(shown, None, "")
    session = None
    if jobs and is_own_code(name):  # only the loaded encoder can tell whether finished rows are its own
        session = _attempt(lambda: Session.open(name, shown, options, hooks), opening, report, hooks)
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
            report.not_applicable.append(Note(shown, job.unit, reason))
        else:
            todo.append((job, slot))
    if not todo:
        return
    session = session or _attempt(lambda: Session.open(name, shown, options, hooks), opening, report, hooks)
    if session is None:
        return
    applicable = [(job, slot) for job, slot in todo if not session.refuses(job, slot, report)]
    planned = [
        (job, slot)
        for job, slot in applicable
        if _attempt(lambda job=job: session.plan(job), Note(shown, job.unit, ""), report, hooks)  # type: ignore[misc]
    ]
    for job, slot in planned:
        try:
            row = _attempt(lambda: session.run(job, slot), Note(shown, job.unit, ""), report, hooks)  # noqa: B023
        except NotApplicable as e:
            session.refuse(job, slot, str(e), report)
            continue
        if row is not None:
            report.rows.append(row)
            hooks.row(row)
    report.forwards[shown] = session.extractor.forwards


def scratch_of(slot: Slot, options: RunOptions) -> Path:
    """Where a head that takes long to train keeps its state until its row is there."""
    return options.cache / "heads" / slot.request


@dataclass
class Session:
    """One loaded encoder and everything it shares between jobs."""

    encoder: Encoder
    shown: str
    options: RunOptions
    hooks: Hooks
    store: FeatureStore
    planner: Planner
    extractor: Extractor
    peak: PeakMemory
    cluster: Cluster | None = None
    overlaps: ClassVar[dict[str, list[str]]] = {}  # dataset digest -> notes

    @classmethod
    def open(cls, name: str, shown: str, options: RunOptions, hooks: Hooks) -> Session:
        """Loads the encoder and, the first time it is seen, checks that it keeps its contract."""
        load = partial(
            load_encoder,
            name,
            weights=options.weights,
            backend=options.backend,
            device=options.device,
            dtype=options.dtype,
            offline=options.offline,
            trust_remote_code=options.trust_remote_code,
            options=options.model_options,
        )
        close_shards()  # of the model before: what is mapped counts as resident
        peak = PeakMemory()
        forget_gpu_peak(resolve_device(options.device))
        encoder = load()
        device = device_of(encoder, options.device)
        if options.check:
            _check_once(encoder, device, options, name)
        store = FeatureStore(options.cache / "features", options.store)
        planner = Planner(encoder.card, encoder.transform, store)
        extractor = Extractor(encoder, device, options.batch_size, options.workers, hooks.progress)
        key = fingerprint([identity(encoder.card), device])
        recipe = Recipe(encoder.card.name, key, load, device, options.batch_size, options.workers, silent)
        cluster = Cluster(options.ray, recipe) if options.ray else None
        return cls(encoder, shown, options, hooks, store, planner, extractor, peak, cluster)

    def refuses(self, job: Job, slot: Slot, report: Report) -> bool:
        """Whether the encoder cannot do the job; the reason is written down and reported."""
        card = self.encoder.card
        reason = job.task.not_applicable(card, job.protocol.values)
        if reason is None and job.task.needs_text and not card.has_text:
            reason = f"{card.name} has no text tower"
        if reason is not None:
            self.refuse(job, slot, reason, report)
        return reason is not None

    def refuse(self, job: Job, slot: Slot, reason: str, report: Report) -> None:
        """Notes that the job is not applicable."""
        report.not_applicable.append(Note(self.shown, job.unit, reason))
        sealed.write_json(slot.folder / NOT_APPLICABLE, {"reason": reason, "request": slot.request})

    def plan(self, job: Job) -> bool:
        """Joins what the job needs to the shared passes; True when that worked."""
        self.planner.add(job.task.needs(self.encoder.card, job.protocol.values, job.data))
        return True

    def run(self, job: Job, slot: Slot) -> Row:
        """Extracts what is missing, runs the task, saves its row."""
        started = time.perf_counter()
        needs = job.task.needs(self.encoder.card, job.protocol.values, job.data)
        passes = {id(p): p for p in map(self.planner.of, needs)}
        before, begun = self.extractor.forwards, time.perf_counter()
        spread = sum(self.cluster.fill(p, self.hooks.progress) for p in passes.values()) if self.cluster else 0
        spread_s = time.perf_counter() - begun if spread else 0.0
        extract_s = spread_s + sum(self.extractor.run(p) for p in passes.values())
        self.extractor.forwards += spread
        encoded = self.extractor.forwards - before
        context = Context(
            self.encoder,
            self.planner,
            self.store,
            job.protocol.values,
            job.data,
            self.options.seed,
            self.extractor.device,
            scratch_of(slot, self.options),
            self.options.save_predictions,
            self.options.cross_check,
            self.hooks.progress,
        )
        cache_users.touch(self.options.cache, context.scratch)
        outcome = job.task.run(context)
        timing = {
            "extract_s": round(extract_s, 3),
            "fit_s": round(outcome.fit_s, 3),
            "score_s": round(outcome.score_s, 3),
            "total_s": round(time.perf_counter() - started, 3),
            "images_per_s": round(encoded / extract_s, 2) if encoded and extract_s else None,
        }
        save(slot.folder, self._row(job, slot, outcome, timing), outcome.samples, outcome.files)
        shutil.rmtree(context.scratch, ignore_errors=True)
        return read_row(slot.folder)

    def _overlap(self, job: Job) -> list[str]:
        """What an official train and test split have in common; asked once for all tasks and models on them."""
        if job.unit.path or "train" not in job.data:
            return []
        key = job.dataset_digest
        if key not in self.overlaps:
            self.overlaps[key] = [f"{job.unit.dataset}: {line}" for line in note_same_files(job.data)]
        return self.overlaps[key]

    def _row(self, job: Job, slot: Slot, outcome: Outcome, timing: dict[str, Any]) -> dict[str, Any]:
        card, protocol, options = self.encoder.card, job.protocol, self.options
        identity = {"weights": card.weights.sha256, "unit": str(job.unit), "protocol": protocol.hash}
        return {
            "schema": SCHEMA,
            "id": fingerprint({**identity, "data": job.dataset_digest, "seed": options.seed, "request": slot.request})[
                :16
            ],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": options.command,
            "seed": options.seed,
            "request": slot.request,
            "model": {
                "name": self.shown,
                "family": card.family,
                "code": code_of(self.encoder),
                "backend": card.backend,
                "params": card.params,
                "embed_dim": card.embed_dim,
                "image_size": card.image_size,
                "patch_size": card.patch_size,
                "dtype": card.dtype,
                "stored_as": options.store,
                "licence": card.licence,
                "options": dict(card.options),
                "transform": plain(self.encoder.transform),
                "weights": plain(card.weights),
            },
            "task": {
                "name": job.unit.task,
                "dataset": job.unit.dataset,
                "version": registered()[job.unit.task].get("version", 1),
                "split": list(job.data)[-1],
                "n": outcome.n,
                "limit": options.limit,
                "dataset_digest": job.dataset_digest,
                **({"dataset_options": chosen} if (chosen := dict(options.dataset_options)) else {}),
                **({"place": place} if (place := place_of(job.unit)) else {}),
                **({"ground_truth": truth} if (truth := list(job.data.values())[-1].truth) else {}),
            },
            "protocol": {
                "name": protocol.name,
                "hash": protocol.hash,
                "schema": protocol.schema,
                "fields": protocol.fields(),
            },
            "metrics": metrics_of(outcome, options.seed),
            "main_metric": outcome.main_metric,
            "details": plain(outcome.details),
            "kept_predictions": slot.pictures,
            "n_bad": len(job.bad),
            "bad": job.bad,
            "partial": job.short,
            "notes": [*job.notes, *self._overlap(job)],
            "timing": timing,
            "peak_memory_mb": round(self.peak.mb(), 1),
            "peak_memory_method": self.peak.method,
            "peak_gpu_memory_mb": peak_gpu_memory_mb(self.extractor.device),
            "environment": environment(self.extractor.device),
        }


def _check_once(encoder: Encoder, device: str, options: RunOptions, name: str) -> None:
    """The cheap conformance check, once for each weights, code version and dtype; raises BenchError when it fails."""
    card = encoder.card
    stamp = (
        options.cache
        / "checked"
        / fingerprint([card.weights.sha256, card.code_version, card.backend, card.dtype, card.options])
    )
    if stamp.exists():
        return
    from benchmark.check import check_encoder

    golden = models().get(name, {}).get("golden_tokens")
    bad = [f for f in check_encoder(encoder, cheap=True, device=device, golden=golden).findings if not f.ok]
    if bad:
        raise BenchError(
            f"{card.name} breaks the encoder contract: {bad[0].name}: {bad[0].detail}. See bench check --model {name}"
        )
    write_text(stamp, card.name + "\n")
