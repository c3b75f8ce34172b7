"""What later jobs read is made while the model is opened and earlier jobs run: pictures that must be rendered first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from benchmark.contracts.progress import NewProgress
from benchmark.engine.jobs import Job


class Ahead:
    """Within the block, a thread prepares the pictures of `jobs` in their order.

    What goes wrong there is left to the job that needs the picture: it asks again, and its row says what is wrong.
    """

    def __init__(self, jobs: Sequence[Job], progress: NewProgress) -> None:
        self._jobs, self._kept = list(jobs), {id(job) for job in jobs}
        self._progress = progress
        self._thread = threading.Thread(target=self._prepare, daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def keep(self, jobs: Sequence[Job]) -> None:
        """Of the jobs, only these are still wanted."""
        self._kept = {id(job) for job in jobs}

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        wanted = bool(self._kept)
        self.keep(())
        if kind is None and wanted:  # an interrupted run ends now, and so does one whose model cannot be opened
            self._thread.join()

    def _prepare(self) -> None:
        for job in self._jobs:
            for data in job.data.values():
                for images in data.pictures().values():
                    if id(job) in self._kept:
                        with suppress(Exception):
                            images.prepare(self._progress)
