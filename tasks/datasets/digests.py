"""Digests that follow content: the same files in the same order give the same digest on every machine.

Up to 4 GB every byte counts; past that a file is known by its name, its size and its first and last 4 KiB, which
notices a replaced or truncated file in minutes instead of hours. Hashes are kept by path, size and both times, so
that the next run only asks the file system: the time of a file's contents can be kept when they are replaced (cp -p,
rsync -t, unzip), the time of its last change cannot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmark.errors import DataError
from benchmark.system.digest import fingerprint, sha256_file
from benchmark.system.escaping import writable_text
from benchmark.system.paths import cache_dir
from benchmark.system.sealed import remake

FULL_LIMIT = 4 * 10**9  # bytes
EDGE = 4096  # bytes at either end
Row = tuple[str, int, int, int, str]  # path, size, mtime_ns, ctime_ns, mode


class _Readable(Protocol):
    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...
    def read(self, index: int) -> bytes: ...
    def edges(self, index: int, count: int) -> tuple[int, bytes, bytes]: ...


def of_files(root: str, names: Sequence[str]) -> str:
    """sha256 over the names and contents of files below `root`. Raises DataError naming the first missing file."""
    base = os.path.abspath(root)
    paths = [os.path.join(base, name) for name in names]
    stats = [_stat(path) for path in paths]
    mode = "full" if sum(s.st_size for s in stats) <= FULL_LIMIT else "edges"
    rows = [(path, *facts_of(s), mode) for path, s in zip(paths, stats)]
    # With the names: a file may be called by its place below one folder or another, and the digest holds its name.
    facts = "\n".join("\0".join(map(str, (name, *row[:4]))) for name, row in zip(names, rows))
    listing = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()
    whole: Row = (f"set of {len(rows)} names: {listing}", 0, 0, 0, mode)
    with _database() as db:
        if known := _look_up(db, [whole]).get(whole):
            return known
        value = _combine(mode, zip(names, _hashes(db, rows)))
        _store(db, {whole: value})
    return value


def of_whole_files(files: Sequence[str], rows: str) -> str:
    """Digest of whole files (parquet shards) and of which rows of them are used."""
    folder = os.path.dirname(os.path.abspath(files[0]))
    names = [os.path.relpath(os.path.abspath(f), folder).replace(os.sep, "/") for f in files]
    return fingerprint({"files": of_files(folder, names), "rows": rows})


def of_archives(files: Sequence[str], ranges: str, items: _Readable, total: int) -> str:
    """Digest of archive members; equal to that of the same files unpacked."""
    mode = "full" if total <= FULL_LIMIT else "edges"
    stats = [(f, *facts_of(_stat(f))) for f in files]
    names = hashlib.sha256("\0".join(map(items.name, range(len(items)))).encode("utf-8", "surrogateescape")).hexdigest()
    key: Row = (fingerprint({"archives": stats, "ranges": ranges, "names": names}), 0, 0, 0, mode)
    with _database() as db:
        if known := _look_up(db, [key]).get(key):
            return known
        hashes = ((items.name(i), _hash_member(items, i, mode)) for i in range(len(items)))
        value = _combine(mode, hashes)
        _store(db, {key: value})
    return value


def edges_of(blobs: Any) -> list[str]:
    """[N] digests over the size and both ends of each item, remembered for files; one that is not there is equal to
    none. Two of one digest need not be equal; two that are equal have one."""
    if hasattr(blobs, "root"):  # files below a folder
        rows: list[Row] = []
        for i in range(len(blobs)):
            path = os.path.abspath(os.path.join(blobs.root, blobs.name(i)))
            rows.append((path, *facts_of(_stat(path)), "edges"))
        with _database() as db:
            return list(_hashes(db, rows))
    found = []
    for i in range(len(blobs)):
        try:
            found.append(_hash_member(blobs, i, "edges"))
        except DataError:
            found.append(f"not there {i}")
    return found


def _combine(mode: str, hashes: Iterable[tuple[str, str]]) -> str:
    total = hashlib.sha256(f"files-1 {mode}\n".encode())
    for name, value in hashes:
        total.update(f"{name}\0{value}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def facts_of(stat: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is written or replaced: its size, the time of its contents, that of its last change."""
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as e:
        raise DataError(f"{path}: {e.strerror}. Check the dataset's folder, or see bench data verify") from None


def _hash_member(items: _Readable, index: int, mode: str) -> str:
    if mode == "full":
        return hashlib.sha256(items.read(index)).hexdigest()
    if hasattr(items, "edges"):
        size, head, tail = items.edges(index, EDGE)
    else:
        data = items.read(index)
        size, head, tail = len(data), data[:EDGE], data[-EDGE:]
    return hashlib.sha256(f"{size}".encode() + head + tail).hexdigest()


def _hash_file(row: Row) -> str:
    path, size, _, _, mode = row
    try:
        if mode == "full":
            return sha256_file(path)
        with open(path, "rb", buffering=0) as f:
            head = f.read(EDGE)
            f.seek(max(0, size - EDGE))
            tail = f.read(EDGE)
        return hashlib.sha256(f"{size}".encode() + head + tail).hexdigest()
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}). Check the dataset's folder") from None


def _hashes(db: sqlite3.Connection | None, rows: Sequence[Row]) -> Iterator[str]:
    known = _look_up(db, rows)
    fresh = {row: _hash_file(row) for row in rows if row not in known}
    _store(db, fresh)
    return (known.get(row) or fresh[row] for row in rows)


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection | None]:
    """The hash table, or None where it cannot be opened (read-only or network disk): then nothing is remembered."""
    path = _place()
    try:
        db = _open(path)
    except sqlite3.Error as e:
        db = _open(path) if _begin_anew(e) else None
    except OSError:
        db = None
    try:
        yield db
    finally:
        if db is not None:
            db.close()


def _place() -> Path:
    return cache_dir() / "digests" / "files.sqlite"


def _begin_anew(error: sqlite3.Error) -> bool:
    """Deletes a damaged table, for what it held can be made again; one that is only read, locked or full is none."""
    if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
        return False
    path = _place()
    remake(path, f"is damaged ({error})", "files are hashed again")
    for end in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + end).unlink(missing_ok=True)
    return True


def _open(path: Path) -> sqlite3.Connection | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=30)
    try:
        db.execute(
            "create table if not exists sealed (path text, size int, mtime int, ctime int, mode text, hash text,"
            " seal text, primary key (path, size, mtime, ctime, mode)) without rowid"
        )
        db.execute("drop table if exists hashes")  # of before rows were sealed: made again
    except sqlite3.Error:
        db.close()
        raise
    return db


def _look_up(db: sqlite3.Connection | None, rows: Sequence[Row]) -> dict[Row, str]:
    if db is None:
        return {}
    query = "select hash, seal from sealed where path = ? and size = ? and mtime = ? and ctime = ? and mode = ?"
    found: dict[Row, str] = {}
    try:
        for row in rows:
            if hit := db.execute(query, _storable(row)).fetchone():
                if hit[1] == _seal(row, hit[0]):
                    found[row] = hit[0]
                else:
                    remake(_place(), "is damaged (a row does not agree with its checksum)", "the file is hashed again")
    except sqlite3.Error as e:
        _begin_anew(e)
        return {}
    return found


def _seal(row: Row, value: object) -> str:
    return fingerprint([*_storable(row), str(value)])


def _store(db: sqlite3.Connection | None, hashes: dict[Row, str]) -> None:
    if db is None or not hashes:
        return
    rows = [(*_storable(r), h, _seal(r, h)) for r, h in hashes.items()]
    try:
        with db:
            db.executemany("insert or replace into sealed values (?, ?, ?, ?, ?, ?, ?)", rows)
    except sqlite3.Error as e:
        _begin_anew(e)


def _storable(row: Row) -> Row:
    """File names that are no UTF-8 cannot be bound to SQLite text; their odd bytes are kept escaped."""
    return (writable_text(row[0]), *row[1:])
