"""The models of a run, each with the checkpoint that is scored, and what of their rows is there already."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.engine.identity import model_stamp, named
from benchmark.engine.jobs import Job
from benchmark.engine.loading import require_weights
from benchmark.engine.options import RunOptions
from benchmark.engine.report import Hooks, Note, Report
from benchmark.engine.slots import Slot, slot_of
from benchmark.errors import UsageError
from benchmark.registry import check_local, is_own_code


@dataclass(frozen=True)
class Target:
    """One model of a run."""

    name: str
    shown: str  # its name in rows
    options: RunOptions  # with its own checkpoint
    stamp: str | None  # None: code of the user's own, of which only the loaded encoder can tell what it is

    def absolute(self) -> Target:
        """The same for a process with another working folder."""
        old = self.options
        data, results, cache = (Path(os.path.abspath(place)) for place in (old.data, old.results, old.cache))
        weights = old.weights and os.path.abspath(old.weights)
        return replace(self, options=replace(old, data=data, results=results, cache=cache, weights=weights))

    def slots(self, jobs: Sequence[Job], stamp: str) -> Mapping[int, Slot]:
        """Where the row of each job goes, by the job's number."""
        return {number: slot_of(job, self.name, stamp, self.options) for number, job in enumerate(jobs)}

    def settle(self, jobs: Sequence[Job], slots: Mapping[int, Slot], report: Report, hooks: Hooks) -> dict[int, Slot]:
        """Reports what is there already or known to be not applicable; the slots of the others."""
        todo = {}
        for number, slot in slots.items():
            if not self.options.force and (row := slot.finished(self.options.cross_check)):
                slot.clear_scratch(self.options.cache)  # a kill between the row and its removal
                report.rows.append(row)
                report.reused += 1
                hooks.row(row)
            elif not self.options.force and (reason := slot.not_applicable()):
                report.not_applicable.append(Note(self.shown, jobs[number].unit, reason, jobs[number].change))
            else:
                todo[number] = slot
        return todo


def targets(models: Sequence[str], options: RunOptions) -> list[Target]:
    """`models`, each once, with every checkpoint that `--weights` matches.

    Raises UsageError for a name, a file or a checkpoint that is not there, and for a --name that several would share.
    """
    checkpoints, models = checkpoints_of(options.weights), list(dict.fromkeys(models))
    for name in models:
        check_local(name)
    if options.name is not None and len(models) * len(checkpoints) != 1:
        count = len(models) * len(checkpoints)
        raise UsageError(f"--name {options.name}: is for one model, {count} are named. Run each by itself")
    found = []
    for name in models:
        for weights in checkpoints:
            own = replace(options, weights=weights)
            stamp = model_stamp(name, weights)
            found.append(Target(name, named(name, own), own, None if is_own_code(name) else stamp))
    return found


def checkpoints_of(weights: str | None) -> list[str | None]:
    """The checkpoints that `--weights` names: one, or all that a pattern matches, by the numbers in their names.

    Raises UsageError where there is none.
    """
    if weights is None or Path(weights).exists() or not glob.has_magic(weights):
        require_weights(weights)
        return [weights]
    found = sorted(glob.glob(weights, recursive=True), key=_natural)
    if not found:
        raise UsageError(f"--weights {weights}: matches no file or folder")
    return [*found]


def _natural(path: str) -> list[tuple[int, str]]:
    """`step-900` before `step-1000`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]
