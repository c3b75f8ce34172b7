"""Tars and zips read in place: an index of byte ranges, made once and remembered; nothing is unpacked."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmark.data.hidden import is_hidden
from benchmark.data.tolerance import tolerance
from benchmark.errors import BenchError, DataError, reading
from benchmark.system.digest import fingerprint
from benchmark.system.paths import cache_dir
from benchmark.system.sealed import Damaged, read_arrays, remake, write_arrays
from tasks.datasets.blobs import DEFLATED, STORED, SliceBlobs
from tasks.datasets.digests import facts_of
from tasks.datasets.names import Names


def without_hidden(names: Sequence[str], place: str) -> list[str]:
    """`names` below `place` without those that are no data (`benchmark.data.hidden`), which are counted."""
    kept = [name for name in names if not is_hidden(name)]
    if len(kept) < len(names):
        tolerance().skip(place, [name for name in names if is_hidden(name)])
    return kept


Member = tuple[str, int, int, int, int]  # name, start, stored size, method, zip header


class Archive:
    """Members of several archives under one name space; `prefix` is cut off their names.

    With `shard_names` each name starts with its archive's stem: webdataset shards may repeat their keys.
    """

    def __init__(self, files: Sequence[Path], prefix: str = "", shard_names: bool = False) -> None:
        self.files = tuple(str(f) for f in files)
        self.prefix = prefix
        self._index: dict[str, tuple[int, int, int, int, int]] = {}
        for number, file in enumerate(files):
            for name, *place in _members(file):
                if name.startswith(prefix):
                    short = f"{file.stem}/{name}" if shard_names else name.removeprefix(prefix)
                    self._index[short] = (number, place[0], place[1], place[2], place[3])

    def has(self, name: str) -> bool:
        return name in self._index or any(key.startswith(name.rstrip("/") + "/") for key in self._index)

    def names(self, folder: str = "", suffixes: tuple[str, ...] = ()) -> list[str]:
        start = folder.rstrip("/") + "/" if folder else ""
        inside = (n.removeprefix(start) for n in self._index if n.startswith(start))
        found = sorted(n for n in inside if not suffixes or n.lower().endswith(suffixes))
        return [start + n for n in without_hidden(found, self.where(start.rstrip("/")))]

    def prefix_of(self, name: str) -> str:
        """What stands before the file `name` somewhere below, hidden names apart; "" where it is nowhere."""
        found = (key for key in self._index if key.endswith("/" + name) and not is_hidden(key))
        return next(found, "").removesuffix(name)

    def where(self, name: str) -> str:
        return f"{self.files[0]}:{self.prefix}{name}"

    def missing(self, names: Sequence[str]) -> list[str]:
        return [n for n in names if n not in self._index]

    def blobs(self, names: Sequence[str]) -> SliceBlobs:
        places = np.array([self._index[n] for n in names], dtype=np.int64).reshape(-1, 5)
        return SliceBlobs(self.files, Names(names), *(places[:, c].copy() for c in range(5)))

    def read(self, name: str) -> bytes:
        if name not in self._index:
            raise DataError(f"{self.where(name)}: not in the archive. Fetch the archive again")
        return self.blobs([name]).read(0)


def _members(path: Path) -> Iterator[Member]:
    """The files of an archive, from the remembered index when the archive has not changed."""
    try:
        stat = path.stat()
    except OSError as e:
        raise DataError(f"{path}: cannot be opened ({e.strerror}). Check the path") from None
    key = fingerprint({"path": path.resolve(), "facts": facts_of(stat)})
    remembered = cache_dir() / "archives" / f"{key[:32]}.npz"
    try:
        saved = read_arrays(remembered)
        places = saved["places"]
        names = saved["names"].tobytes().decode("utf-8", "surrogateescape").split("\0") if len(places) else []
    except (FileNotFoundError, Damaged) as e:
        if isinstance(e, Damaged):
            remake(remembered, e, "the archive is read for it again")
        found = list(_scan(path))
        names = [m[0] for m in found]
        places = np.array([m[1:] for m in found], dtype=np.int64).reshape(-1, 4)
        _remember(remembered, names, places)
    return ((n, int(p[0]), int(p[1]), int(p[2]), int(p[3])) for n, p in zip(names, places))


def _remember(path: Path, names: Sequence[str], places: np.ndarray) -> None:
    text = np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), dtype=np.uint8)
    try:
        write_arrays(path, names=text, places=places)
    except (BenchError, OSError):
        return  # an index that cannot be kept is made again next time


def _scan(path: Path) -> Iterator[Member]:
    remedy = "Unpack it, or store it as plain .tar" if path.suffix in (".gz", ".tgz") else "Fetch it again"
    with reading(path, "cannot be read in place as an archive", remedy):
        if path.suffix == ".zip":
            yield from _scan_zip(path)
        else:
            with open(path, "rb") as f:
                yield from _scan_tar(f, 0, "")


def _scan_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                if info.compress_type not in (STORED, DEFLATED):
                    raise zipfile.BadZipFile(f"{info.filename} has compression method {info.compress_type}")
                yield info.filename, info.header_offset, info.compress_size, info.compress_type, 1


def _scan_tar(handle: io.BufferedReader, base: int, folder: str) -> Iterator[Member]:
    """Files of the tar that starts at byte `base`; a tar inside (ImageNet's train set) is a folder of its stem."""
    handle.seek(base)
    inner: list[tuple[int, str]] = []
    with tarfile.open(fileobj=handle, mode="r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            if member.name.endswith(".tar"):
                inner.append((member.offset_data, folder + member.name.removesuffix(".tar") + "/"))
            else:
                yield folder + member.name.removeprefix("./"), member.offset_data, member.size, STORED, 0
    for start, name in inner:
        yield from _scan_tar(handle, start, name.removeprefix("./"))
