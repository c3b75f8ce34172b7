"""`load_task`: one unit from Python, for any encoder object."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, finalize

from benchmark.contracts import Encoder, Outcome
from benchmark.contracts.progress import silent
from benchmark.engine.jobs import Job, JobMaker, refuse_unread
from benchmark.engine.loading import as_loaded, device_of
from benchmark.engine.options import RunOptions
from benchmark.engine.session import Session
from benchmark.errors import UsageError, unknown
from benchmark.protocol import EvalProtocol
from benchmark.registry import state_of, units
from benchmark.rows.row import metrics_of

OPTIONS = (
    "protocol", "overrides", "data", "dataset_options", "limit", "max_bad", "cache", "store", "seed", "batch_size",
    "workers", "save_predictions", "cross_check",
)  # fmt: skip


_own: WeakKeyDictionary[Encoder, tuple[str, Path]] = WeakKeyDictionary()  # object -> its state, and what is of it


@contextmanager
def _cache_of(encoder: Encoder, options: RunOptions) -> Iterator[Path]:
    """Where what is made of the object is stored: another process's object of its card may compute otherwise."""
    if as_loaded(encoder):
        yield options.cache
        return
    state = state_of(encoder)
    try:
        known = _own.get(encoder)
    except TypeError:  # it cannot be a key
        with tempfile.TemporaryDirectory(prefix="densebench-") as place:
            yield Path(place)
        return
    if known is None or known[0] != state:
        folder = Path(tempfile.mkdtemp(prefix="densebench-"))
        finalize(encoder, shutil.rmtree, folder, ignore_errors=True)  # or when the process ends
        _own[encoder] = known = (state, folder)
    yield known[1]


@dataclass(frozen=True)
class LoadedTask:
    """A unit with its protocol and data. `evaluate` runs it; nothing is written but the feature store."""

    job: Job
    options: RunOptions

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(data)} {split}" for split, data in self.job.data.items())
        return f"<LoadedTask {self.job.unit} by {self.protocol.name} {self.protocol.hash[:8]}: {sizes}>"

    @property
    def protocol(self) -> EvalProtocol:
        """The resolved preset."""
        return self.job.protocol

    @property
    def data(self) -> Any:
        """split -> <Kind>Data."""
        return self.job.data

    def run(self, encoder: Encoder, progress: Callable[[str, int], Any] = silent) -> Outcome:
        """Per-sample statistics and measurements. Raises NotApplicable when the encoder cannot do the task.

        Of an encoder that `load_encoder` made the features are those of `bench run`; what is stored of any other
        object, or of one whose weights have changed since, lives as long as the object and its weights of this moment.
        """
        with _cache_of(encoder, self.options) as cache, tempfile.TemporaryDirectory() as scratch:
            session = Session.of(encoder, replace(self.options, cache=cache), device_of(encoder), progress)
            session.plan(self.job)
            return session.run(self.job, Path(scratch))[0]

    def evaluate(self, encoder: Encoder) -> dict[str, dict[str, Any]]:
        """Metric name -> {value, ci95, higher_is_better, unit, statistic}."""
        return {name: metric.json() for name, metric in metrics_of(self.run(encoder), self.options.seed).items()}


def load_task(name: str, **options: Any) -> LoadedTask:
    """The unit `name` (a word of --task that means one unit); `options` are those of OPTIONS, as `run` takes them.

    Raises UsageError for an unknown name, one that means several units, an option that is none or an override that the
    task has no field for, DataError when the data is not there.
    """
    if wrong := sorted(options.keys() - set(OPTIONS)):
        raise unknown("option of load_task", wrong[0], OPTIONS, f"{', '.join(OPTIONS)}; load_encoder takes others")
    found = units(name)
    if len(found) != 1:
        raise UsageError(f"{name!r} means {len(found)} tasks ({', '.join(map(str, found))}); name one")
    chosen = RunOptions(**options)
    refuse_unread(chosen.overrides, found)
    return LoadedTask(JobMaker(chosen, "fast", silent).make(found[0]), chosen)
