"""Where the row of a job goes, and what would make an old row there stale."""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.engine.identity import digits_of, display_name
from benchmark.engine.jobs import Job
from benchmark.engine.options import RunOptions
from benchmark.errors import BenchError
from benchmark.registry import Unit, tasks
from benchmark.rows.row import HEAD, STORE, VARIANTS, Row, read_row, row_folder
from benchmark.rows.schema import TaskFacts
from benchmark.system import sealed
from benchmark.system.claims import Claim
from benchmark.system.digest import fingerprint

log = logging.getLogger("densebench.data")
NOT_APPLICABLE = "not_applicable.json"


@dataclass(frozen=True)
class Slot:
    """A job for one model: where its row goes and what would make an old row there stale."""

    folder: Path
    request: str
    asked: str | None = None  # what the model would be called without --name
    pictures: int = 0  # how many predictions of each kind are wanted beside the row
    head: bool = False  # whether a trained head is

    def absolute(self) -> Slot:
        """The same for a process with another working folder."""
        return replace(self, folder=Path(os.path.abspath(self.folder)))

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
        if checked and row.data.main_metric == "mIoU" and "cross_check" not in row.data.details:
            return None
        wanted = row.data.request == self.request and row.data.kept_predictions >= self.pictures
        wanted = wanted and (not self.head or (self.folder / HEAD).is_file())
        if wanted and not row.has_its_samples():
            sealed.remake(self.folder, "result.json and samples.parquet do not belong together, or one is damaged")
            return None
        return row if wanted else None

    def scratch(self, cache: Path) -> Path:
        """Where a head that takes long to train keeps its state until its row is there."""
        return cache / "heads" / self.request

    def clear_scratch(self, cache: Path) -> None:
        """Removes that state."""
        shutil.rmtree(self.scratch(cache), ignore_errors=True)

    def claim(self, cache: Path) -> Claim:
        """What one run at a time holds that makes this row."""
        return Claim(cache, f"row-{self.request}")

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


def slot_of(job: Job, name: str, stamp: str, options: RunOptions) -> Slot:
    """Where the row of `job` for model `name` goes, and the digest of everything asked for."""
    label = job.protocol.name
    label += f"-limit{limit}" if (limit := options.limit_of(job.unit)) is not None else ""
    label += f"-seed{options.seed}" if options.seed else ""
    label += f"-{options.backend}" if options.backend != "torch" else ""
    label += f"-{options.dtype}" if options.dtype != "auto" else ""
    label += f"-store-{options.store}" if options.store != STORE else ""  # float32 alone would be --dtype's
    label += "".join(f"-{k}-{v}" for k, v in sorted(options.model_options.items()))
    own = display_name(name, options.weights)
    shown = options.name or own
    place = options.results / VARIANTS if job.change else options.results
    folder = row_folder(place, shown, job.unit.task, job.unit.dataset, label, job.protocol.hash)
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
    return Slot(
        folder,
        fingerprint(asked),
        own if shown != own else None,
        pictures,
        options.save_heads and job.method.keeps_head,
    )


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
    same_data = (folder for folder, task in found.items() if task.dataset_digest == digest)
    same_file = (folder for folder, task in found.items() if task.place == place)
    if mine := next(same_data, next(same_file, None)):
        return mine
    return plain if plain not in found else plain.parent.with_name(f"{name}-{place}") / label


def place_of(unit: Unit) -> str | None:
    """Six digits of the path of a task file or config of the user's own; None for our tasks."""
    return None if unit.path is None else digits_of(unit.path.removeprefix("mmseg:"))


def _task_of(folder: Path) -> TaskFacts | None:
    try:
        return read_row(folder).data.task
    except BenchError:
        return None
