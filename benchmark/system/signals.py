"""What a cluster sends before it takes the machine, answered from a command's first moment on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
EXIT_CODE = 128 + signal.SIGTERM


def ended_by(number: int, kept: str = "what was finished is saved") -> tuple[int, str]:
    """The exit code of a command that Ctrl-C or SIGTERM ended, and its line, which says what is `kept`."""
    how = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    return 128 + number, f"{how}: {kept}; the same command goes on from there"


@contextmanager
def at_once() -> Iterator[None]:
    """Ends the process where Ctrl-C or SIGTERM comes inside, in a line: an import would end in its traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        code, line = ended_by(number)
        os.write(2, f"{line}\n".encode())
        os._exit(code)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup, or a shell's background
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stopped(KeyboardInterrupt):
    """SIGTERM: what lets Ctrl-C through lets it through, too, and tidies up on its way."""


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Raises Stopped inside where SIGTERM comes; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():  # no other may set a handler
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != process:  # a worker that was forked: whoever ends it expects that it ends without a word
            os.kill(os.getpid(), signal.SIGTERM)
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def nothing_yet(number: int, frame: FrameType | None) -> None:
    """The handler until work begins: ends the process with EXIT_CODE and a line. An exception would meet whatever a
    library catches while it is imported."""
    name = signal.Signals(number).name
    said = f"error: stopped by {name} before a step was made: what was there is still there. The same command goes on\n"
    os.write(2, said.encode())
    os._exit(EXIT_CODE)


@contextmanager
def until_work() -> Iterator[None]:
    """`nothing_yet` answers inside, before anything heavy is imported, until the work sets handlers of its own."""
    before = {number: signal.signal(number, nothing_yet) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
