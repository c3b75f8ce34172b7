"""Shards where they lie: on a disk, or behind a URL that fsspec knows (http, s3, gs, memory …)."""

from __future__ import annotations

import glob
import itertools
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from benchmark.errors import BenchError, DataError, UsageError, first_line

OPEN = 16  # files that a process holds open at a time
TRIES = 6  # of a request to another machine, 0.5, 1, 2, 4 and 8 s apart
FIRST_WAIT = 0.5
NAMED = 3  # missing files that an error names
T = TypeVar("T")
REMOTE = re.compile(r"^[a-z][a-z0-9+.-]+:(//|:)", re.IGNORECASE)
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Unreachable(BenchError):
    """A machine does not answer: no fault of the sample that was asked for."""


class Absent(DataError):
    """No such file."""


@dataclass(frozen=True)
class Shard:
    """One file: what it is called, how long it is, and what changes with its content (time or tag)."""

    name: str
    length: int
    version: str


def find_shards(pattern: str) -> list[Shard]:
    """The files that `pattern` names, sorted: `{00000..00999}` counts, `*` matches, where the place can be listed.

    Raises DataError where there are none or one that is counted is missing, UsageError where the package for such a URL
    is missing, Unreachable.
    """
    found = {one: _matches(one) for one in expanded(pattern)}
    names = sorted({name for matched in found.values() for name in matched})
    if not names:
        raise DataError(f"data.path = {pattern!r} matches no file. Give a pattern like shards/*.tar")
    _all_there(pattern, [one for one, matched in found.items() if not matched], len(found))
    if not REMOTE.match(pattern):
        facts = [os.stat(name) for name in names]
        return [Shard(n, s.st_size, str(s.st_mtime_ns)) for n, s in zip(names, facts, strict=True)]
    with ThreadPoolExecutor(OPEN) as pool:
        shards = list(pool.map(_described, names))
    _all_there(pattern, [name for name, shard in zip(names, shards, strict=True) if shard is None], len(names))
    return [shard for shard in shards if shard is not None]


def _all_there(pattern: str, missing: Sequence[str], count: int) -> None:
    """Raises DataError for `missing` of the `count` that a pattern names: training would go on with a part of the data
    in silence."""
    if missing:
        first = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
        of = f"; data.path = {pattern!r} counts {count}, {len(missing)} of them missing" if count > 1 else ""
        raise DataError(f"{first}: no such file{of}. Fetch what is missing, or name only what is there")


def expanded(pattern: str) -> list[str]:
    """`a-{08..11}.tar` → a-08.tar … a-11.tar, as webdataset writes it."""
    parts = RANGE.split(pattern)
    counts = [
        [str(i).zfill(len(low)) for i in range(int(low), int(high) + 1)]
        for low, high in zip(parts[1::3], parts[2::3], strict=True)
    ]
    fixed = parts[::3]
    return ["".join(itertools.chain(*zip(fixed, [*chosen, ""], strict=True))) for chosen in itertools.product(*counts)]


def _matches(name: str) -> Sequence[str]:
    if not REMOTE.match(name):
        return glob.glob(name)
    if not glob.has_magic(name):
        return [name]
    system, path = _system(name)
    return [str(system.unstrip_protocol(found)) for found in _again(name, lambda: system.glob(path))]


def _described(name: str) -> Shard | None:
    """None where there is no such file."""
    system, path = _system(name)
    try:
        info = _again(name, lambda: system.info(path))
    except Absent:
        return None
    if not isinstance(info.get("size"), int):
        raise DataError(f"{name}: its server does not tell its length. Copy the shard to a disk")
    known = ("ETag", "etag", "LastModified", "mtime", "updated", "created")
    return Shard(name, info["size"], next((str(info[k]) for k in known if info.get(k)), ""))


def _system(name: str) -> tuple[Any, str]:
    """(file system, path in it). Raises UsageError where its package is missing or fsspec knows no such URL."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(name)
        return system, path
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"data.path = {name!r}: {first_line(error)}. Install what this kind of URL needs (http: aiohttp, s3:"
            " s3fs, gs: gcsfs)"
        ) from None


def _again(name: str, ask: Callable[[], T]) -> T:
    """What `ask` gives, asked up to TRIES times. Raises Absent for a file that is not there, else Unreachable."""
    for attempt in range(TRIES):
        try:
            return ask()
        except FileNotFoundError:
            raise Absent(f"{name}: no such file") from None
        except PermissionError as error:
            raise Unreachable(f"{name}: {first_line(error)}. Look at the credentials") from None
        except Exception as error:  # each file system raises its own library's errors
            if attempt == TRIES - 1:
                raise Unreachable(
                    f"{name}: cannot be read after {TRIES} tries ({first_line(error)}). Look at the network and the"
                    " credentials; the same command goes on from the last checkpoint"
                ) from None
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


@dataclass
class Reader:
    """Bytes of shards; at most OPEN files are open, the one that was not read for longest is closed first."""

    shards: Sequence[Shard]
    _open: OrderedDict[int, BinaryIO] = field(default_factory=OrderedDict)

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes what is open."""
        while self._open:
            self._open.popitem()[1].close()

    def read(self, number: int, start: int, stop: int) -> bytes:
        """[start, stop) of shard `number`, less at its end. Raises DataError, Unreachable."""
        shard = self.shards[number]
        stop = min(stop, shard.length)
        if stop <= start:
            return b""
        if REMOTE.match(shard.name):
            system, path = _system(shard.name)
            found = bytes(_again(shard.name, lambda: system.cat_file(path, start=start, end=stop)))
            if len(found) > stop - start:  # a plain web server answers with all of it
                raise Unreachable(f"{shard.name}: its server gives no parts of files. Copy the shards to a disk")
            return found
        try:
            file = self._file(number)
            file.seek(start)
            return file.read(stop - start)
        except OSError as error:  # its number is read behind this one: too many open files are no fault of a sample
            raise DataError(f"{shard.name}: cannot be read ({error.strerror}). Look at the disk") from error

    def _file(self, number: int) -> BinaryIO:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            while len(self._open) >= OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[number] = open(self.shards[number].name, "rb", buffering=0)  # noqa: SIM115 - kept open
        return self._open[number]
