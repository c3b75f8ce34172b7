"""What later jobs read is made while earlier ones run: pictures that must be rendered first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from benchmark.contracts import ImageSet
from benchmark.contracts.progress import NewProgress
from benchmark.engine.jobs import Job


class Ahead:
    """Within the block, a thread prepares the pictures of `jobs` in their order.

    What goes wrong there is left to the job that needs the picture: it asks again, and its row says what is wrong.
    """

    def __init__(self, jobs: Sequence[Job], progress: NewProgress) -> None:
        sets = [images for job in jobs for data in job.data.values() for images in data.pictures().values()]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._prepare, args=(sets, progress), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stopped.set()
        if kind is None:  # an interrupted run ends now
            self._thread.join()

    def _prepare(self, sets: Sequence[ImageSet], progress: NewProgress) -> None:
        for images in sets:
            if self._stopped.is_set():
                return
            with suppress(Exception):
                images.prepare(progress)
