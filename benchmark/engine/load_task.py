"""`load_task`: one unit from Python, for any encoder object."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.contracts import Encoder, Outcome
from benchmark.contracts.progress import silent
from benchmark.engine.context import Context
from benchmark.engine.jobs import Job, JobMaker, refuse_unread
from benchmark.engine.loading import device_of
from benchmark.engine.options import RunOptions
from benchmark.errors import NotApplicable, UsageError
from benchmark.features.extract import Extractor
from benchmark.features.plan import Planner
from benchmark.features.store import FeatureStore
from benchmark.protocol import EvalProtocol
from benchmark.registry import units
from benchmark.rows.row import metrics_of


@dataclass(frozen=True)
class LoadedTask:
    """A unit with its protocol and data. `evaluate` runs it; nothing is written but the feature store."""

    job: Job
    options: RunOptions

    @property
    def protocol(self) -> EvalProtocol:
        """The resolved preset."""
        return self.job.protocol

    @property
    def data(self) -> Any:
        """split -> <Kind>Data."""
        return self.job.data

    def run(self, encoder: Encoder, progress: Callable[[str, int], Any] = silent) -> Outcome:
        """Per-sample statistics and measurements. Raises NotApplicable when the encoder cannot do the task."""
        task, values = self.job.task, self.job.protocol.values
        reason = task.not_applicable(encoder.card, values)
        if reason is None and task.needs_text and not encoder.card.has_text:
            reason = f"{encoder.card.name} has no text tower"
        if reason:
            raise NotApplicable(reason)
        store = FeatureStore(self.options.cache / "features", self.options.store)
        planner = Planner(encoder.card, encoder.transform, store)
        needs = task.needs(encoder.card, values, self.job.data)
        planner.add(needs)
        device = device_of(encoder)
        extractor = Extractor(encoder, device, self.options.batch_size, self.options.workers, progress)
        for shared in {id(p): p for p in map(planner.of, needs)}.values():
            extractor.run(shared)
        with tempfile.TemporaryDirectory() as scratch:
            context = Context(
                encoder, planner, store, values, self.job.data, self.options.seed, device, Path(scratch),
                cross_check=self.options.cross_check, new_progress=progress,
            )  # fmt: skip
            return task.run(context)

    def evaluate(self, encoder: Encoder) -> dict[str, dict[str, Any]]:
        """Metric name -> {value, ci95, higher_is_better, unit, statistic}."""
        return metrics_of(self.run(encoder), self.options.seed)


def load_task(name: str, **options: Any) -> LoadedTask:
    """The unit `name` (a word of --task that means one unit); `options` are fields of RunOptions (protocol, data, …).

    Raises UsageError for an unknown name, one that means several units or an override that the task has no field for,
    DataError when the data is not there.
    """
    found = units(name)
    if len(found) != 1:
        raise UsageError(f"{name!r} means {len(found)} units ({', '.join(map(str, found))}); name one")
    chosen = RunOptions(**options)
    refuse_unread(chosen.overrides, found)
    return LoadedTask(JobMaker(chosen, "fast", silent).make(found[0]), chosen)
