"""What a cluster sends before it takes the machine, answered from a command's first moment on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
EXIT_CODE = 128 + signal.SIGTERM


def nothing_yet(number: int, frame: FrameType | None) -> None:
    """The handler until work begins: ends the process with EXIT_CODE and a line. An exception would meet whatever a
    library catches while it is imported."""
    name = signal.Signals(number).name
    said = f"error: stopped by {name} before a step was made: there is nothing to keep. The same command begins again\n"
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
