"""Writing files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from benchmark.errors import BenchError, UsageError
from benchmark.processes import locked


def _mode() -> int:
    """What the user's umask makes of a new file: a temporary one is made for its owner alone."""
    mask = os.umask(0)  # there is no way to ask without setting it
    os.umask(mask)
    return 0o666 & ~mask


MODE = _mode()  # asked before there are threads, whose files would be made without a mask meanwhile


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes through a temporary file in the same folder, flushes it to disk and renames it to `path`.

    Raises BenchError when the disk is full or the folder cannot be written; `path` is then as it was.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as f:
                write(f)
                f.flush()
                os.fsync(f.fileno())
            with suppress(OSError):  # some network and USB disks have no modes
                os.chmod(name, MODE)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def writable(folder: Path) -> None:
    """Makes `folder` where it is missing. Raises UsageError when nothing can be written there: asked before hours of
    work, as the answer is the same after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".probe.", suffix=".tmp")
        os.close(handle)
        Path(name).unlink()
    except OSError as e:
        reason = "is a file" if isinstance(e, (FileExistsError, NotADirectoryError)) else e.strerror
        raise UsageError(
            f"{folder}: results cannot be written there ({reason}). Name another folder with --results"
        ) from e


def write_text(path: Path, text: str) -> None:
    """`write_atomic` for UTF-8 text; bytes of a file name that are no UTF-8 are spelled out, as JSON does."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """`write_atomic` for bytes that are at hand."""
    write_atomic(path, lambda f: f.write(content))


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Makes `folder` and waits until no other process holds it; let go when the block or the process ends.

    The lock is on the folder itself, so nothing is left behind. A file system without locks gives none.
    """
    with ExitStack() as held:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder))
        yield


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns "no space left", "read-only" and "permission denied" into one line with the remedy."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(
                f"{path}: the disk is full. Free some space (bench cache prune) or move the cache with BENCH_CACHE"
            ) from None
        if e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise BenchError(f"{path}: cannot be written ({e.strerror}). Choose another folder") from None
        raise
