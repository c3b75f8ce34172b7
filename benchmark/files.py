"""Writing files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmark.errors import BenchError


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
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """`write_atomic` for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """`write_atomic` for bytes that are at hand."""
    write_atomic(path, lambda f: f.write(content))


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
