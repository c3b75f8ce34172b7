"""What processes share and the systems do differently: locks, the way workers start, the memory they took."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(place: Path, wait: bool = True) -> Iterator[bool]:
    """Holds `place`, a folder or a file (made where it is missing), until the block or the process ends, kill -9 too.

    False where the file system gives no locks (some network disks): the caller is then on its own. Raises
    BlockingIOError when another process holds it and `wait` is False.
    """
    while True:
        handle = _handle(place)
        try:
            sure = _held(handle, wait)
            if not _still(handle, place):  # taken away by whoever held it: another may lock the one that is there now
                continue
            yield sure
            return
        finally:
            os.close(handle)


def start_method() -> str:
    """How worker processes start: "fork", which is quick, or "spawn".

    JAX's threads forbid a fork once any part of the program has loaded it, whatever the encoder at work runs on;
    macOS's own libraries do not survive one, and Windows has none.
    """
    return "fork" if sys.platform.startswith("linux") and "jax" not in sys.modules else "spawn"


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


class PeakMemory:
    """The largest resident size of this process from here on, worker processes not counted.

    `method` says how it is known: Linux keeps a high-water mark that a process may set back; where it may not, its size
    is looked at 50 times a second; elsewhere only the mark since the process began is told.
    """

    def __init__(self) -> None:
        gc.collect()  # what was there before and is not used any more should not count
        give_back()
        self._seen = 0.0
        if _forget_peak():
            self.method = "VmHWM, set back when the model was opened"
        elif _resident_mb() is not None:
            self.method = "resident size since the model was opened, 50 times a second"
            threading.Thread(target=_watch, args=(weakref.ref(self),), daemon=True).start()
        else:
            self.method = "ru_maxrss of the whole process so far"

    def mb(self) -> float:
        """In MiB."""
        if self.method.startswith("VmHWM"):
            return _status_mb("VmHWM") or 0.0
        if self.method.startswith("resident"):
            self.look()
            return self._seen
        return peak_memory_mb()

    def look(self) -> None:
        """Takes the size of this moment."""
        self._seen = max(self._seen, _resident_mb() or 0.0)


def _watch(of: weakref.ref[PeakMemory]) -> None:
    while (peak := of()) is not None:
        peak.look()
        del peak
        time.sleep(0.02)


def _forget_peak() -> bool:
    """Sets the high-water mark of the resident size back to what it is now; False where the system does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    now, mark = _status_mb("VmRSS"), _status_mb("VmHWM")
    return now is not None and mark is not None and mark < 1.1 * now + 16


def _status_mb(name: str) -> float | None:
    """A size of /proc/self/status in MiB; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{name}:")]
    return float(found[0][1]) / 1024 if found else None


def _resident_mb() -> float | None:
    return _status_mb("VmRSS")


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def give_back() -> None:
    """Memory that was freed goes back to the system where its C library can be asked for that."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """Blocks of up to 32 MB that are freed stay with this process, 64 MB of them: arrays that come and go by the
    thousand cost no pages of the system each time. Where the C library is glibc."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_TRIM_THRESHOLD, 64 << 20)
            library.mallopt(_MMAP_THRESHOLD, 32 << 20)


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

    def _still(handle: int, place: Path) -> bool:
        return True  # an open file keeps its name

else:
    import fcntl

    def _handle(place: Path) -> int:
        if place.is_dir():
            return os.open(place, os.O_RDONLY)
        try:
            return os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user's, in a shared cache
            return os.open(place, os.O_RDONLY)

    def _still(handle: int, place: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(place))
        except OSError:
            return False

    def _held(handle: int, wait: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return False
        return True
