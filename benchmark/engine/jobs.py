"""Resolving words into jobs: a unit, its protocol, its data, and where its row goes."""

from __future__ import annotations

import dataclasses
import glob
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from benchmark import overlap, sealed, subsets
from benchmark.contracts import Dataset, Task
from benchmark.digest import fingerprint
from benchmark.engine.context import NewProgress
from benchmark.engine.encoders import digits_of, display_name
from benchmark.engine.options import RunOptions
from benchmark.engine.prescan import drop_unreadable
from benchmark.errors import BenchError, DataError, UsageError, unknown
from benchmark.incomplete import tolerating
from benchmark.protocol import EvalProtocol, load_protocol
from benchmark.registry import Unit, load_task, open_dataset, protocol_file, resolve, suites, tasks, units
from benchmark.results import STORE, Row, read_row, row_folder, slug

log = logging.getLogger("densebench.data")
NOT_APPLICABLE = "not_applicable.json"


@dataclass
class Job:
    """One unit ready to be run by any encoder."""

    unit: Unit
    task: Task
    protocol: EvalProtocol
    data: Mapping[str, Any]  # split -> <Kind>Data
    bad: list[str] = field(default_factory=list)  # one line for each picture left out
    short: list[str] = field(default_factory=list)  # splits that are a small part of the official one
    notes: list[str] = field(default_factory=list)  # what should be known of the data: files left out by their names …

    @property
    def dataset_digest(self) -> str:
        return fingerprint({split: data.digest for split, data in self.data.items()})


@dataclass(frozen=True)
class _Split:
    """The data of one split, and what it lacks."""

    data: Any
    bad: list[str]
    short: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Slot:
    """A job for one model: where its row goes and what would make an old row there stale."""

    folder: Path
    request: str
    pictures: int = 0  # how many predictions of each kind are wanted beside the row

    def finished(self, checked: bool = False) -> Row | None:
        """The row that is already there for the same request, if any; with `checked`, an mIoU counts only if it was
        cross-checked.

        A row with more pictures than are wanted is never stale; one with fewer is made again, from stored features, and
        so is one whose samples are not those it was written with. A damaged row is named.
        """
        if not (self.folder / "result.json").is_file():
            return None
        try:
            row = read_row(self.folder)
        except BenchError as e:
            sealed.remake(self.folder / "result.json", e)
            return None
        if checked and row.data["main_metric"] == "mIoU" and "cross_check" not in row.data.get("details", {}):
            return None
        wanted = row.data.get("request") == self.request and row.data.get("kept_predictions", 0) >= self.pictures
        if wanted and not row.has_its_samples():
            sealed.remake(self.folder, "result.json and samples.parquet do not belong together, or one is damaged")
            return None
        return row if wanted else None

    def not_applicable(self) -> str | None:
        """The reason written there when the same request was found not applicable."""
        path = self.folder / NOT_APPLICABLE
        try:
            note = sealed.read_json(path)
        except FileNotFoundError:
            return None
        except sealed.Damaged as e:  # or of before it was sealed: it is cheap to find out again
            log.info("%s", e)
            return None
        return str(note["reason"]) if note.get("request") == self.request else None


def resolve_units(words: Sequence[str], suite: str | None) -> tuple[list[Unit], str]:
    """Units of `--task` words and of a suite, without repeats, and the preset they are run by when none is given.

    Raises UsageError for unknown names.
    """
    found: dict[Unit, None] = {}
    preset = "fast"
    if suite is not None:
        if suite not in suites():
            raise unknown("suite", suite, suites(), "bench ls suites")
        preset = suites()[suite]["protocol"]
        for word in suites()[suite]["units"]:
            found.update(dict.fromkeys(units(word)))
    for word in words:
        found.update(dict.fromkeys(units(word)))
    if not found:
        raise UsageError("nothing to run. Give --task or --suite; see bench ls tasks")
    _refuse_one_name(list(found))
    return list(found), preset


def _refuse_one_name(found: Sequence[Unit]) -> None:
    """Raises UsageError for two files of the same name: tables show their rows by that name alone."""
    first: dict[tuple[str, str], Unit] = {}
    for unit in found:
        other = first.setdefault((unit.task, slug(unit.dataset)), unit)
        if other is not unit:
            raise UsageError(
                f"{other.path} and {unit.path} are both called {unit}: no table could tell them apart. Rename one"
            )


def fields_of(task: Task) -> set[str]:
    """The protocol fields that any schema of `task` has."""
    return {f.name for schema in task.schemas.values() for f in dataclasses.fields(schema)}


def refuse_unread(overrides: Mapping[str, str], found: Sequence[Unit]) -> None:
    """Raises UsageError for a `--set` that no task of `found` has a field for: it would change nothing, silently."""
    fields = {name: fields_of(load_task(name)) for name in sorted({unit.task for unit in found})}
    for key in overrides:
        owner, _, name = key.rpartition(".")
        if owner and owner not in fields:
            raise unknown("task in --set", owner, fields, ", ".join(fields))
        known = sorted(fields[owner] if owner else set().union(*fields.values()))
        if name not in known:
            raise unknown("protocol field in --set", name, known, f"bench show {owner or next(iter(fields))}")


class JobMaker:
    """Makes jobs; a dataset is opened, a split loaded and a protocol read once, however often it is asked for."""

    def __init__(self, options: RunOptions, preset: str, progress: NewProgress) -> None:
        self.options, self.preset, self.progress = options, preset, progress
        self._datasets: dict[str, tuple[Dataset, Mapping[str, str]]] = {}
        self._splits: dict[tuple[str, ...], _Split] = {}
        self._protocols: dict[tuple[Unit, str], EvalProtocol] = {}

    def make(self, unit: Unit) -> Job:
        """The job of `unit`. Raises UsageError for its protocol, DataError for its data."""
        task = load_task(unit.task)
        dataset, overrides = self._dataset(unit)
        try:
            protocol = self.protocol(unit, task, overrides)
        except UsageError as e:
            raise self._in_file(e, unit, task, dataset, overrides) from None
        wanted = getattr(task, "dataset_options", _no_options)(unit.dataset, protocol.values) if not unit.path else {}
        if wanted:
            dataset, _ = self._dataset(unit, wanted)
        key = str(sorted(wanted.items()))
        splits = {s: self._split(unit, dataset, task, s, key) for s in task.splits(protocol.values)}
        data = {name: split.data for name, split in splits.items()}
        bad, short, notes = ([x for s in splits.values() for x in getattr(s, k)] for k in ("bad", "short", "notes"))
        if unit.path and {"train", "test"} <= data.keys():
            getattr(dataset, "check_apart", lambda: None)()
            data["test"], seen = self._unseen(unit, task, data, len(bad))
            bad += seen
        return Job(unit, task, protocol, data, bad, short, notes)

    def _unseen(self, unit: Unit, task: Task, data: Mapping[str, Any], bad: int) -> tuple[Any, list[str]]:
        """The test data without pictures that are trained on, of which `--max-bad` allows some, and a line for each.

        Raises DataError where there are more: such a score says how well answers are remembered."""
        train, test = data["train"].images, data["test"].images
        if not (pairs := overlap.same_pixels(train, test)):
            return data["test"], []
        count = len(pairs)
        if count == len(test) or bad + count > self.options.max_bad:
            least = "" if count == len(test) else f", or leave them out of the test: --max-bad {bad + count}"
            raise DataError(
                f"{unit.path}: {count} of {len(test)} test pictures are training pictures too, pixel by pixel: "
                f"{overlap.named(train, test, pairs)}. Take them out of one of the two{least}"
            )
        lines = [f"{overlap.named(train, test, [pair])}: is a training picture too" for pair in pairs]
        return subsets.without(task.kind, data["test"], {test.image_id(i) for i, _ in pairs}), lines

    def protocol(self, unit: Unit, task: Task, overrides: Mapping[str, str] = {}) -> EvalProtocol:
        """The protocol of `unit`: the preset asked for, `overrides` of its data, `--set` above both."""
        return self._load(unit, task, {**overrides, **self._overrides(unit, task)})

    def _load(self, unit: Unit, task: Task, overrides: Mapping[str, str]) -> EvalProtocol:
        key = unit, str(sorted(overrides.items()))
        if key not in self._protocols:  # asked for before the data are read, and again with them
            preset, dataset = self.options.protocol or self.preset, None if unit.path else unit.dataset
            file = protocol_file(unit.task)
            self._protocols[key] = load_protocol(unit.task, task.schemas, file, preset, overrides, dataset)
        return self._protocols[key]

    def _in_file(
        self, error: UsageError, unit: Unit, task: Task, dataset: Dataset, overrides: Mapping[str, str]
    ) -> UsageError:
        """`error` at the line of the task file whose field is wrong, or as it is where `--set` is to blame."""
        for one in ({}, *({name: text} for name, text in overrides.items())):
            try:
                self._load(unit, task, one)
            except UsageError as e:
                if not one:  # the preset itself
                    return error
                found: UsageError = cast(Any, dataset).wrong_field(*one, str(e).removeprefix("--set "))
                return found
        return error

    def _overrides(self, unit: Unit, task: Task) -> dict[str, str]:
        """The `--set` values meant for this task: `field=value` where it has the field, or `task.field=value`."""
        fields, out = fields_of(task), {}
        for key, text in self.options.overrides.items():
            owner, _, name = key.rpartition(".")
            if owner == unit.task or (not owner and name in fields):
                out[name] = text
        return out

    def _dataset(self, unit: Unit, wanted: Mapping[str, str] = {}) -> tuple[Dataset, Mapping[str, str]]:
        """The unit's dataset, opened as its protocol wants unless the user says otherwise, and its own overrides."""
        key = (unit.path or unit.dataset) + (str(sorted(wanted.items())) if wanted else "")
        if key not in self._datasets:
            if unit.path and unit.path.startswith("mmseg:"):
                self._datasets[key] = resolve("tasks.mm.datasets:open_config")(unit.path.removeprefix("mmseg:")), {}
            elif unit.path:
                user = resolve("tasks.datasets.user:open_task")(Path(unit.path))
                self._datasets[key] = user.dataset, user.protocol_overrides
            else:
                options = {**wanted, **self.options.dataset_options}
                self._datasets[key] = open_dataset(unit.dataset, self.options.data, options), {}
        return self._datasets[key]

    def _split(self, unit: Unit, dataset: Dataset, task: Task, split: str, wanted: str) -> _Split:
        key = (unit.path or unit.dataset, task.kind, split, wanted)
        if key not in self._splits:
            with tolerating(self.options.max_bad, part=self.options.limit is not None) as allowed:
                data = dataset.data(task.kind, split)
            if self.options.limit is not None:
                data = subsets.limit(task.kind, data, self.options.limit)
            bad = allowed.absent
            if self.options.max_bad:
                data, unread = drop_unreadable(task.kind, data, self.options.max_bad, self.progress, len(bad))
                bad = bad + unread
            notes = [f"{unit.dataset} {split}: {line}" for line in allowed.notes]
            for line in notes:
                log.warning("%s", line)
            self._splits[key] = _Split(data, bad, allowed.short, notes)
        return self._splits[key]


def _no_options(dataset: str, protocol: Any) -> Mapping[str, str]:
    return {}


def slot_of(job: Job, name: str, stamp: str, options: RunOptions) -> Slot:
    """Where the row of `job` for model `name` goes, and the digest of everything asked for."""
    label = job.protocol.name
    label += f"-limit{options.limit}" if options.limit is not None else ""
    label += f"-seed{options.seed}" if options.seed else ""
    label += f"-{options.backend}" if options.backend != "torch" else ""
    label += f"-{options.dtype}" if options.dtype != "auto" else ""
    label += f"-store-{options.store}" if options.store != STORE else ""  # float32 alone would be --dtype's
    label += "".join(f"-{k}-{v}" for k, v in sorted(options.model_options.items()))
    shown = display_name(name, options.weights)
    folder = row_folder(options.results, shown, job.unit.task, job.unit.dataset, label, job.protocol.hash)
    if job.unit.path:
        folder = _own_folder(folder, job.unit, job.dataset_digest)
    asked = {
        "model": stamp,
        "backend": options.backend,
        "dtype": options.dtype,
        "options": options.model_options,
        "store": options.store,
        "unit": str(job.unit),
        "protocol": job.protocol.hash,
        "data": job.dataset_digest,
        "seed": options.seed,
    }
    task = tasks()[job.unit.task]
    if task.get("version", 1) != 1:
        asked["task"] = task["version"]
    pictures = options.save_predictions if task.get("pictures") else 0
    return Slot(folder, fingerprint(asked), pictures)


def _own_folder(plain: Path, unit: Unit, digest: str) -> Path:
    """Where the row of a task file or config of the user's own lies, `plain` being what its name alone gives.

    There, unless that is the row of another file of this name: then six digits of the file's place stand behind the
    name. A row of the same data or of the same file stays where it is, so that a file that was moved keeps its rows
    and edited data replace theirs.
    """
    name, label, place = plain.parent.name, plain.name, place_of(unit)
    lie = f"{re.escape(name)}(-[0-9a-f]{{6}})?"
    there = [p for p in plain.parent.parent.glob(f"{glob.escape(name)}*/{label}") if re.fullmatch(lie, p.parent.name)]
    found = {folder: task for folder in sorted(there) if (task := _task_of(folder))}
    for same in ({"dataset_digest": digest}, {"place": place}):
        for folder, task in found.items():
            if same.items() <= task.items():
                return folder
    return plain if plain not in found else plain.parent.with_name(f"{name}-{place}") / label


def place_of(unit: Unit) -> str | None:
    """Six digits of the path of a task file or config of the user's own; None for our tasks."""
    return None if unit.path is None else digits_of(unit.path.removeprefix("mmseg:"))


def _task_of(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(read_row(folder).data["task"])
    except BenchError:
        return None
