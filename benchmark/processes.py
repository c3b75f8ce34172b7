"""What processes share and the systems do differently: locks, the way workers start, the memory they took."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(place: Path, wait: bool = True) -> Iterator[bool]:
    """Holds `place`, a folder or a file (made where it is missing), until the block or the process ends, kill -9 too.

    False where the file system gives no locks (some network disks): the caller is then on its own. Raises
    BlockingIOError when another process holds it and `wait` is False.
    """
    handle = _handle(place)
    try:
        yield _held(handle, wait)
    finally:
        os.close(handle)


def start_method(backend: str) -> str:
    """How worker processes start beside an encoder of this `backend`: "fork", which is quick, or "spawn".

    JAX's threads forbid a fork, macOS's own libraries do not survive one, and Windows has none.
    """
    return "fork" if sys.platform.startswith("linux") and backend != "jax" else "spawn"


def open_files() -> int:
    """How many files this process may hold open: 256 in a shell of macOS, mostly 1024 on Linux; 512 on Windows."""
    if sys.platform == "win32":
        return 512
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def peak_memory_mb() -> float:
    """The largest resident size this process has had, in MiB; 0 on Windows, which does not tell it the same way."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if sys.platform == "win32":
    import msvcrt

    def _handle(place: Path) -> int:
        return os.open(place / ".lock" if place.is_dir() else place, os.O_RDWR | os.O_CREAT)

    def _held(handle: int, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return True
            except OSError:  # LK_LOCK gives up after ten seconds
                if not wait:
                    raise BlockingIOError from None

else:
    import fcntl

    def _handle(place: Path) -> int:
        return os.open(place, os.O_RDONLY) if place.is_dir() else os.open(place, os.O_RDWR | os.O_CREAT, 0o666)

    def _held(handle: int, wait: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return False
        return True
