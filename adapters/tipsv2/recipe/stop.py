"""A run that is told to end (SIGTERM, SIGUSR1: what a cluster sends before it takes the machine) keeps its work."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

from benchmark.errors import BenchError
from benchmark.system.signals import EXIT_CODE, SIGNALS, nothing_yet


class Stopped(BenchError):
    """The run was told to end; its checkpoint is written."""

    exit_code = EXIT_CODE


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
            signal.signal(each, signal.SIG_DFL if handler is nothing_yet else handler)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started inside never hear the signals: a cluster sends them to every process of a job, and
    with the workers of its data a run would die before it has kept its work. What comes meanwhile comes afterwards."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before, others = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS), {*multiprocessing.active_children()}
    try:
        resource_tracker.ensure_running()  # multiprocessing's own helper; once it runs, SIGTERM is unblocked
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # What the interpreter would wait for at its end, having sent the SIGTERM that they do not hear.
        atexit.register(_kill, {*multiprocessing.active_children()} - others)


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        with contextlib.suppress(ValueError):  # it is over, and closed
            worker.kill()
