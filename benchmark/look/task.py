"""What a probe saw beside what it made of it: some samples of a task, its score, and between what it lies."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmark.contracts import CorrespondenceData, Measurement
from benchmark.contracts.kinds import Samples, spread
from benchmark.contracts.progress import NewProgress, silent
from benchmark.engine.jobs import Job, JobMaker, refuse_unread
from benchmark.engine.loading import device_of
from benchmark.engine.options import RunOptions
from benchmark.engine.session import Session, encoder_of
from benchmark.errors import UsageError, unknown
from benchmark.features.plan import DENSE
from benchmark.images.drawing import below_each_other
from benchmark.images.samples import look_at_samples
from benchmark.images.sheets import drawn
from benchmark.images.views import resolve_view
from benchmark.look.ceiling import ceiling
from benchmark.registry import units
from benchmark.rows.tables import CEILING
from benchmark.system.plurals import number_of

AT_MOST = 500  # pictures that the ceiling, and the fit to the training pictures, are computed on


@dataclass(frozen=True)
class TaskLook:
    """One PNG, and the lines that stand above it."""

    png: bytes
    lines: Sequence[str]

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    def _repr_png_(self) -> bytes:
        return self.png


def look_at_task(
    model: str,
    task: str,
    names: Sequence[str] = (),
    count: int = 4,
    split: str = "test",
    options: RunOptions | None = None,
    progress: NewProgress = silent,
) -> TaskLook:
    """`count` samples of `task` spread over its test pictures, or those of `names`, as `model` answers them.

    `split` "train": the head's own training pictures are put in the place of the test pictures, so that what it gets
    there says how well it fits. Raises UsageError for words that mean nothing, NotApplicable, DataError.
    """
    options = options or RunOptions()
    found = units(task)
    if len(found) != 1:
        raise UsageError(f"{task} means {len(found)} tasks ({', '.join(map(str, found))}). Look at one")
    refuse_unread(options.overrides, found)
    job = _of_split(JobMaker(options, "fast", progress).make(found[0]), split)
    test = job.data["test"]
    rows = [_position(test, name) for name in names] or spread(len(test), count)
    encoder = encoder_of(model, options)
    session = Session.of(encoder, options, device_of(encoder, options.device), progress)
    session.plan(job)
    with tempfile.TemporaryDirectory() as scratch:
        outcome, _ = session.run(job, Path(scratch), rows)
    main = next(m for m in outcome.measurements if m.name == outcome.main_metric)
    said = [f"{main.name} {main.statistic.of(outcome.samples):.4g} {main.unit}"]
    if (floor := outcome.chance(main)) is not None:
        said.append(f"{floor:.4g} without seeing a picture")
    own = next((m for m in outcome.measurements if m.name == CEILING + main.name), None)
    if own is not None:
        said.append(f"{own.statistic.of(outcome.samples):.4g} by the best patches of its grid")
    elif top := _ceiling(job, session, main):
        said.append(top)
    by = f"{job.protocol.name} {job.protocol.hash[:8]}"
    head = f"{job.unit} by {by}, {model}, {split}: {number_of(len(test), 'sample')}"
    lines = [head, "; ".join(said)]
    if linear := next((m for m in outcome.measurements if m.name == "linear top-1"), None):
        lines.append(f"linear top-1 {linear.statistic.of(outcome.samples):.4g} %")
    pictures = {name: body for name, body in outcome.files.items() if name.startswith("pictures/")}
    if not pictures:  # a task of another package that draws none: what it was given
        return TaskLook(drawn([look_at_samples(test.take(rows), head, len(rows))]), lines)
    titles = [Path(name).stem.replace("_", "   ") for name in pictures]
    return TaskLook(below_each_other(lines, titles, list(pictures.values())), lines)


def _of_split(job: Job, split: str) -> Job:
    if split == "test":
        return job
    if split != "train" or "train" not in job.data:
        there = "test and train" if "train" in job.data else "test alone: it learns from no training pictures"
        raise UsageError(f"--split {split}: {job.unit} has {there}")
    train = job.data["train"]
    return replace(job, data={"train": train, "test": train.take(spread(len(train), AT_MOST))})


def _position(data: Samples, name: str) -> int:
    """The sample whose picture is called `name`: in full, by the end of its path, or without its suffix."""
    images = next(iter(data.pictures().values()))
    ids = [images.image_id(i) for i in range(len(images))]
    for same in (lambda one: one == name, lambda one: one.endswith(f"/{name}"), lambda one: Path(one).stem == name):
        if len(hits := [i for i, one in enumerate(ids) if same(one)]) == 1:
            return _sample_of(data, hits[0])
    raise unknown("picture", name, ids, f"for example {ids[0]}")


def _sample_of(data: Samples, picture: int) -> int:
    """The sample that shows a picture: the first pair, where pictures are in pairs."""
    return int((data.pairs == picture).any(1).argmax()) if isinstance(data, CorrespondenceData) else picture


def _ceiling(job: Job, session: Session, main: Measurement) -> str | None:
    """What the true shares on the patch grid get, for methods that read one map of each test picture."""
    test = job.data["test"]
    needs = [need for need in job.method.wanted(session.encoder.card, job.data).values() if need.tap.name in DENSE]
    needs = [need for need in needs if need.images is test.images] if hasattr(test, "images") else []
    if len(needs) != 1:
        return None
    grid = tuple(int(side) for side in session.planner.array(needs[0]).shape[1:3])
    view = resolve_view(needs[0].view, session.encoder.transform, session.encoder.card, test.images)
    rows = spread(len(test), AT_MOST)
    value = ceiling(test, rows, (grid[0], grid[1]), view, main, job.protocol.values)
    if value is None or not np.isfinite(value):
        return None
    some = "" if len(rows) == len(test) else f" of {len(rows)} pictures"
    return f"{value:.4g} by the true shares{some} on its {grid[0]} × {grid[1]} patches"
