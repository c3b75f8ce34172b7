"""What later jobs read is made while the model is opened and earlier jobs run: pictures that must be rendered first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

from benchmark.contracts import Progress
from benchmark.contracts.progress import NewProgress
from benchmark.engine.jobs import Job

TIDYING = 10.0  # seconds at most in which what is left half made is taken away


class Ahead:
    """Within the block, threads prepare the pictures of the jobs that are begun, in their order.

    What goes wrong there is left to the job that needs the picture: it asks again, and its row says what is wrong.
    """

    def __init__(self, progress: NewProgress) -> None:
        self._progress = progress
        self._kept: set[int] = set()
        self.threads: list[threading.Thread] = []
        self._over = threading.Event()

    def __enter__(self) -> Ahead:
        return self

    def begin(self, jobs: Sequence[Job]) -> None:
        """Prepares what these need."""
        self.keep(jobs)
        self.threads.append(threading.Thread(target=self._prepare, args=(list(jobs),), daemon=True))
        self.threads[-1].start()

    def keep(self, jobs: Sequence[Job]) -> None:
        """Only these are still wanted; what is begun goes on until the block ends, another model may need it."""
        self._kept = {id(job) for job in jobs}

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        wanted = bool(self._kept)
        self.keep(())
        if kind is None and wanted:  # an interrupted run ends now, and so does one whose model cannot be opened
            for thread in self.threads:
                thread.join()
        self._over.set()
        for thread in self.threads:
            thread.join(TIDYING)

    def _prepare(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            for data in job.data.values():
                for images in data.pictures().values():
                    if id(job) in self._kept:
                        with suppress(Exception):
                            images.prepare(self._until_over)

    def _until_over(self, label: str, total: int) -> Progress:
        return _UntilOver(self._progress(label, total), self._over.is_set)


class _Over(Exception):
    """Nobody waits any more: whoever prepares tidies up on its way."""


class _UntilOver:
    """A bar that raises where it is advanced after the end."""

    def __init__(self, bar: Progress, over: Callable[[], bool]) -> None:
        self._bar, self._over = bar, over

    def advance(self, amount: int = 1) -> None:
        if self._over():
            raise _Over
        self._bar.advance(amount)

    def note(self, text: str) -> None:
        self._bar.note(text)
