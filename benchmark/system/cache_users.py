"""Which processes use a cache now: nothing that they use is deleted under them.

Each holds a lock on a file of its own under `<cache>/running`, which goes when the process goes, kill -9 too; the
file's time is when it began. What was used since the first of them began may be in use.
"""

from __future__ import annotations

import atexit
import math
import os
import uuid
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from benchmark.system.processes import locked

FOLDER = "running"
_held = ExitStack()  # until the process ends
_own: set[str] = set()


def touch(root: Path, used: Path) -> None:
    """Notes that `used`, of the cache `root`, is used now by this process. A cache that is only read notes nothing."""
    _announce(root, os.getpid())
    with suppress(OSError):
        os.utime(used)


def since(root: Path) -> float:
    """When the first of the other living processes that use this cache began, in seconds since 1970; infinity if none
    does. What dead ones left is cleared."""
    first = math.inf
    for file in (root / FOLDER).glob("*"):
        if file.name in _own:
            continue
        with suppress(OSError):
            began = file.stat().st_mtime
            try:
                with locked(file, wait=False) as sure:
                    if sure:
                        file.unlink()
                        continue
            except BlockingIOError:
                pass
            first = min(first, began)
    return first


@cache
def _announce(root: Path, process: int) -> None:
    file = root / FOLDER / f"{process}-{uuid.uuid4().hex[:8]}"
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        _held.enter_context(locked(file))
        _own.add(file.name)
        atexit.register(_leave, file, process)


def _leave(file: Path, process: int) -> None:
    if os.getpid() == process:  # not a fork of it
        with suppress(OSError):
            file.unlink()
