"""Resolving words into jobs: a unit, its protocol, its data, and where its row goes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.contracts import Dataset, Method, Task
from benchmark.contracts.data import sound
from benchmark.contracts.progress import NewProgress
from benchmark.data import overlap
from benchmark.data.tolerance import tolerating
from benchmark.data.unreadable import drop_unreadable
from benchmark.engine.options import RunOptions
from benchmark.errors import DataError, UsageError, unknown
from benchmark.protocol import Change, EvalProtocol, load_protocol
from benchmark.registry import Unit, load_task, open_dataset, protocol_file, resolve
from benchmark.system.digest import fingerprint

log = logging.getLogger("densebench.data")


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
    change: Change | None = None  # of a variant of the preset; its row lies apart
    whole: Mapping[str, Any] = field(default_factory=dict)  # split -> its data before --limit

    @property
    def method(self) -> Method[Any]:
        """The task under this protocol."""
        return self.task.method(self.protocol.values)

    @property
    def dataset_digest(self) -> str:
        return fingerprint({split: data.digest for split, data in self.data.items()})


@dataclass(frozen=True)
class _Split:
    """The data of one split, and what it lacks."""

    data: Any
    whole: Any
    bad: list[str]
    short: list[str]
    notes: list[str]


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

    def make(self, unit: Unit, change: Change | None = None) -> Job:
        """The job of `unit`, by a variant of its preset where there is a `change`.

        Raises UsageError for its protocol, DataError for its data."""
        task = load_task(unit.task)
        dataset, overrides = self._dataset(unit)
        protocol = self._protocol_on(unit, task, dataset, overrides, change)
        method = task.method(protocol.values)
        wanted = {} if unit.path else method.dataset_options(unit.dataset)
        if wanted:
            dataset, _ = self._dataset(unit, wanted)
        key = str(sorted(wanted.items()))
        splits = {s: self._split(unit, dataset, task, s, key) for s in method.splits()}
        data = {name: split.data for name, split in splits.items()}
        bad, short, notes = ([x for s in splits.values() for x in getattr(s, k)] for k in ("bad", "short", "notes"))
        if unit.path and {"train", "test"} <= data.keys():
            dataset.check_apart()
            data["test"], seen = self._unseen(unit, task, data, len(bad))
            bad += seen
        whole = {name: split.whole for name, split in splits.items()}
        return Job(unit, task, protocol, data, bad, short, notes, change, whole)

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
        return data["test"].without({test.image_id(i) for i, _ in pairs}), lines

    def check_protocol(self, unit: Unit) -> EvalProtocol | None:
        """The protocol of `unit`, None where data say it. Raises UsageError for a preset or a `--set` that it has no
        use for; reads no data."""
        task, file = load_task(unit.task), bool(unit.path and not unit.path.startswith("mmseg:"))
        if file:  # which says some fields itself
            return self._protocol_on(unit, task, *self._dataset(unit))
        return None if unit.path else self.protocol(unit, task)

    def _protocol_on(
        self,
        unit: Unit,
        task: Task,
        dataset: Dataset,
        overrides: Mapping[str, str],
        change: Change | None = None,
    ) -> EvalProtocol:
        try:
            return self.protocol(unit, task, overrides, change)
        except UsageError as e:
            raise self._in_file(e, unit, task, dataset, overrides) from None

    def protocol(
        self, unit: Unit, task: Task, overrides: Mapping[str, str] = {}, change: Change | None = None
    ) -> EvalProtocol:
        """The protocol of `unit`: the preset asked for, `overrides` of its data, `--set` above both, then `change`."""
        settings = change.settings if change else {}
        return self._load(unit, task, {**overrides, **self._overrides(unit, task), **settings})

    def _load(self, unit: Unit, task: Task, overrides: Mapping[str, str]) -> EvalProtocol:
        key = unit, str(sorted(overrides.items()))
        if key not in self._protocols:  # asked for before the data are read, and again with them
            preset = self.options.protocol or unit.protocol or self.preset
            dataset = None if unit.path else unit.dataset
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
                return dataset.wrong_field(next(iter(one)), str(e).removeprefix("--set "))
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
        key = (unit.path or unit.dataset, task.kind, split, wanted, str(unit.limit))
        if key not in self._splits:
            limit = self.options.limit_of(unit)
            with tolerating(self.options.max_bad, part=limit is not None) as allowed:
                data = whole = dataset.samples(task.kind, split)
            if limit is not None:
                data = data.limited(limit)
            bad = allowed.absent
            if self.options.max_bad:
                data, unread = drop_unreadable(data, self.options.max_bad, self.progress, len(bad))
                bad = bad + unread
            if data is not whole:
                data = sound(data, task.kind, f"{unit.dataset} {split}")
            notes = [f"{unit.dataset} {split}: {line}" for line in allowed.notes]
            for line in notes:
                log.warning("%s", line)
            self._splits[key] = _Split(data, whole, bad, allowed.short, notes)
        return self._splits[key]
