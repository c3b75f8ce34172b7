"""Writing files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from operator import methodcaller
from pathlib import Path
from typing import IO

from benchmark.errors import BenchError, UsageError
from benchmark.system.paths import cache_dir
from benchmark.system.processes import locked


def _mode() -> int:
    """What the user's umask leaves of a new folder's mode: a temporary one is made for its owner alone."""
    mask = os.umask(0)  # there is no way to ask without setting it
    os.umask(mask)
    return 0o777 & ~mask


FOLDER_MODE = _mode()  # asked before there are threads, whose files would be made without a mask meanwhile
MODE = FOLDER_MODE & 0o666

CANNOT_WRITE = (
    errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG
)  # fmt: skip


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes through a temporary file in the same folder, flushes it to disk and renames it to `path`.

    Raises BenchError when the disk is full or the folder cannot be written; `path` is then as it was.
    """
    with disk_errors(path), _staged(path, write) as whole:
        os.replace(whole, path)


def write_together(folder: Path, contents: Mapping[str, bytes], before: Callable[[], object]) -> None:
    """`write_atomic` for several files, all or none: `before` is called and they take their names (below `folder`, in
    the order of `contents`) when every one of them is whole on disk and nothing is left to do that needs room."""
    with ExitStack() as held:
        whole: dict[Path, Path] = {}
        for name, content in contents.items():
            path = folder / name
            with disk_errors(path):
                whole[path] = held.enter_context(_staged(path, methodcaller("write", content)))
        with disk_errors(folder):
            before()
            for path, temporary in whole.items():
                os.replace(temporary, path)


@contextmanager
def _staged(path: Path, write: Callable[[IO[bytes]], object]) -> Iterator[Path]:
    """A temporary file in the folder of `path`, written and flushed to disk; gone after the block, if still there."""
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        with suppress(OSError):  # some network and USB disks have no modes
            os.chmod(name, MODE)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes `folder` with all above it. Raises BenchError where none can be made, as below /proc."""
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as e:
        raise BenchError(f"{folder}: cannot be made ({e.strerror}). Choose {_elsewhere(folder)}") from None


def writable(folder: Path, what: str = "results", option: str = "--results") -> None:
    """Makes `folder` where it is missing. Raises UsageError when nothing can be written there, naming `what` was to be
    and the `option` that names another: asked before hours of work, as the answer is the same after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".probe.", suffix=".tmp")
        os.close(handle)
        Path(name).unlink()
    except OSError as e:
        reason = "is a file" if isinstance(e, (FileExistsError, NotADirectoryError)) else e.strerror
        raise UsageError(
            f"{folder}: {what} cannot be written there ({reason}). Name another folder with {option}"
        ) from e


OF_THE_MACHINE = {
    errno.EMFILE: "Allow more open files (ulimit -n)",
    errno.ENFILE: "Close other programs",
    errno.EIO: "Look at the disk",
}


def machine_fault(error: OSError) -> str:
    """The line for an error that no file is to blame for; "" for others."""
    advice = OF_THE_MACHINE.get(error.errno or 0)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}. {advice}, then give the same command again" if advice else ""


def unreadable(error: OSError) -> str:
    """The line for a file or folder that the system does not open."""
    return f"{error.filename or 'a file'}: {error.strerror or error}. Check the path and who may read and write it"


def write_text(path: Path, text: str) -> None:
    """`write_atomic` for text as `utf8` has it."""
    write_bytes(path, utf8(text))


def utf8(text: str) -> bytes:
    """`text` in UTF-8; what UTF-8 cannot hold (a byte of a file's name) is written as its JSON escape."""
    return text.encode("utf-8", "backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """`write_atomic` for bytes that are at hand."""
    write_atomic(path, lambda f: f.write(content))


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Makes `folder` and waits until no other process holds it; let go when the block or the process ends.

    The lock is on the folder itself, so nothing is left behind. A file system without locks gives none.
    """
    with ExitStack() as held:
        make_folder(folder)
        with disk_errors(folder):
            held.enter_context(locked(folder))
        yield


def _elsewhere(path: Path) -> str:
    with suppress(UsageError):  # of a user without a home
        if Path(os.path.abspath(path)).is_relative_to(os.path.abspath(cache_dir())):
            return "another cache with BENCH_CACHE"
    return "another folder"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns "no space left", "read-only", "permission denied" and a file where a folder is wanted into one line with
    the remedy."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchError(
                f"{path}: the disk is full. Free some space on it (bench cache prune, where the cache lies there), or "
                "choose another (BENCH_CACHE, --results)"
            ) from None
        if e.errno in CANNOT_WRITE:
            raise BenchError(f"{path}: cannot be written ({e.strerror}). Choose {_elsewhere(path)}") from None
        raise
