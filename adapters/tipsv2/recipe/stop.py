"""A run that is told to end (SIGTERM, SIGUSR1: what a cluster sends before it takes the machine) keeps its work."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from benchmark.errors import BenchError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(BenchError):
    """The run was told to end; its checkpoint is written."""

    exit_code = 128 + signal.SIGTERM


class Asked:
    """Which signal has come; "" for none."""

    def __init__(self) -> None:
        self.name = ""


@contextlib.contextmanager
def listening() -> Iterator[Asked]:
    """Inside, the first signal is noted and the step goes on to its end; a second one ends the process at once."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():  # only the main one may handle signals
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        asked.name = signal.Signals(number).name
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
