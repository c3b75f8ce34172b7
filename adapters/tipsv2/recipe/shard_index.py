"""Where each sample of a set of tar shards lies: 16 bytes of a file that every process maps, made once.

Pictures and captions share a stem, as webdataset and img2dataset write them: `stem.jpg` with `stem.json`, `stem.txt` or
both. What else lies beside them is passed over. Members of a tar begin at whole blocks of 512 bytes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters.tipsv2.recipe.shards import OPEN, REMOTE, Reader, Shard
from benchmark.data.hidden import is_hidden
from benchmark.errors import DataError
from benchmark.system import cache_users, sealed
from benchmark.system.digest import fingerprint
from benchmark.system.files import disk_errors, only_writer
from benchmark.system.paths import cache_dir

BLOCK = tarfile.BLOCKSIZE
ENTRY = np.dtype([("image", "<u4"), ("size", "<u4"), ("json", "<u4"), ("text", "<u4")])  # blocks, but size: bytes
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
ENTRIES, FACTS = "entries.bin", "index.json"
PART = 64  # shards whose entries are kept together while the index is made: what a kill costs
AHEAD = 2**23  # bytes that are asked of another machine at a time
log = logging.getLogger("densebench.data")


@dataclass
class Index:
    """`entries` [n] of ENTRY, mapped from a file; shard s holds those from starts[s] to starts[s + 1]. `ids`: a digest
    over the stems and sizes of all pictures, in order."""

    file: Path
    starts: np.ndarray  # [S + 1] int64
    ids: str

    def __post_init__(self) -> None:
        count = int(self.starts[-1])
        self.entries = np.memmap(self.file, ENTRY, "r", shape=(count,)) if count else np.empty(0, ENTRY)

    def __reduce__(self) -> tuple[type[Index], tuple[Path, np.ndarray, str]]:
        return Index, (self.file, self.starts, self.ids)  # a worker maps the file itself


def open_index(shards: list[Shard], root: Path) -> Index:
    """The index of `shards` below `root`, made where it is missing, damaged or of shards that were other then; of
    several processes one makes it. Raises DataError naming a shard that is no tar file or is cut short."""
    folder = root / f"tar-{fingerprint([[s.name, s.length, s.version] for s in shards])[:16]}"
    cache_users.touch(cache_dir(), folder)
    with only_writer(folder):
        try:
            return _read(folder)
        except FileNotFoundError:
            pass
        except sealed.Damaged as e:
            sealed.remake(folder, e)
        _make(shards, folder)
        return _read(folder)


def _read(folder: Path) -> Index:
    facts = sealed.read_json(folder / FACTS, since=1)
    if "ids" not in facts:  # of before they were kept
        raise FileNotFoundError(folder / FACTS)
    sealed.check_files(folder, facts["files"])
    return Index(folder / ENTRIES, np.array(facts["starts"], np.int64), facts["ids"])


def _make(shards: list[Shard], folder: Path) -> None:
    parts, counts, alone = folder / "parts", [], 0
    digest, ids, staging = hashlib.sha256(), hashlib.sha256(), folder / f"{ENTRIES}.{os.getpid()}.part"
    remote = bool(shards) and REMOTE.match(shards[0].name) is not None
    with disk_errors(folder), ThreadPoolExecutor(OPEN if remote else 1) as pool, open(staging, "wb") as out:
        for first in range(0, len(shards), PART):
            path = parts / f"{first:08d}.npz"
            try:
                part = sealed.read_arrays(path)
                if "ids" not in part:  # of before they were kept
                    raise FileNotFoundError(path)
            except (FileNotFoundError, sealed.Damaged):
                found = list(pool.map(shard_entries, shards[first : first + PART]))
                part = {
                    "entries": np.concatenate([entries for entries, _, _ in found]),
                    "counts": np.array([len(entries) for entries, _, _ in found]),
                    "alone": np.array(sum(without for _, without, _ in found)),
                    "ids": np.frombuffer(b"".join(names for _, _, names in found), np.uint8),
                }
                sealed.write_arrays(path, **part)
            content = part["entries"].tobytes()
            digest.update(content)
            out.write(content)
            ids.update(part["ids"].tobytes())
            counts += part["counts"].tolist()
            alone += int(part["alone"])
        out.flush()
        os.fsync(out.fileno())
    if alone:
        log.warning("%d pictures of the shards have neither .json nor .txt beside them and are left out", alone)
    staging.replace(folder / ENTRIES)
    starts = [0, *itertools.accumulate(counts)]
    facts = {"schema": 1, "starts": starts, "ids": ids.hexdigest(), "files": {ENTRIES: digest.hexdigest()}}
    sealed.write_json(folder / FACTS, facts)
    shutil.rmtree(parts, ignore_errors=True)


def shard_entries(shard: Shard) -> tuple[np.ndarray, int, bytes]:
    """([n] ENTRY in the order of the pictures, how many pictures have no captions, a digest over stems and sizes)."""
    found: dict[str, dict[str, tuple[int, int]]] = {"image": {}, "json": {}, "text": {}}
    kinds = {**dict.fromkeys(PICTURES, "image"), ".json": "json", ".txt": "text"}
    for path, start, size in members(shard):
        folder, slash, name = path.rpartition("/")  # `tar -c .` names members ./0.jpg
        stem, dot, ending = name.partition(".")
        if (kind := kinds.get((dot + ending).lower())) and not is_hidden(path):
            found[kind][folder + slash + stem] = start // BLOCK, size
    none = (0, 0)
    kept = {stem: span for stem, span in found["image"].items() if stem in found["json"] or stem in found["text"]}
    rows = [(*span, found["json"].get(stem, none)[0], found["text"].get(stem, none)[0]) for stem, span in kept.items()]
    names = "\0".join(f"{stem}\0{size}" for stem, (_, size) in kept.items()).encode("utf-8", "surrogateescape")
    return np.array(rows, ENTRY), len(found["image"]) - len(rows), hashlib.sha256(names).digest()


def members(shard: Shard) -> Iterator[tuple[str, int, int]]:
    """(path, where its bytes begin, how many) of every file in a shard. Raises DataError for one that is no tar file,
    has a damaged header or is cut short: `tarfile` ends in silence at a damaged header."""
    reader = Reader([shard])
    window = _window(reader, AHEAD if REMOTE.match(shard.name) else BLOCK)
    place = 0
    try:
        archive: tarfile.TarFile | None = None
        while place < shard.length:
            header = window(place)
            if header.count(0) == BLOCK:
                return
            known = plain(header)
            if known is None:  # long names, sizes and paths in headers of their own, links, folders
                archive = archive or tarfile.TarFile(fileobj=_File(shard, window))
                archive.fileobj.seek(place)
                archive.offset = place
                info = tarfile.TarInfo.fromtarfile(archive)
                after = int(archive.offset)
                found = (info.name, info.offset_data, info.size) if info.isreg() and not info.issparse() else None
            else:
                name, size = known
                found, after = (name, place + BLOCK, size), place + BLOCK + -(-size // BLOCK) * BLOCK
            if found and found[1] + found[2] > shard.length:
                raise tarfile.ReadError(f"it ends inside {found[0]}")
            if found:
                yield found
            place = after
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{shard.name}: not a readable tar file ({error}). Fetch the shard again") from None
    finally:
        reader.close()


def plain(header: bytes) -> tuple[str, int] | None:
    """(path, size) of a header that describes an ordinary file by itself, which is quicker than `tarfile`; None for
    others. Raises tarfile.ReadError for one that is damaged."""
    if len(header) < BLOCK:
        raise tarfile.ReadError("it ends inside a header")
    size, check = header[124:136].strip(b" \0"), header[148:156].strip(b" \0")
    if header[156] not in b"0\0" or not size.isdigit() or not check.isdigit():
        return None
    if int(check, 8) != sum(header) - sum(header[148:156]) + 256:  # its own field counts as spaces
        raise tarfile.ReadError("a header does not agree with its checksum")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    if name.endswith(b"/"):
        return None  # a folder of before tar had a sign for them
    return name.decode("utf-8", "surrogateescape"), int(size, 8)


def _window(reader: Reader, size: int) -> Callable[[int], bytes]:
    """A function that gives the block at a place, having read `size` bytes from there on."""
    begin, held = 0, b""

    def block(place: int) -> bytes:
        nonlocal begin, held
        if not begin <= place <= begin + len(held) - BLOCK:
            begin, held = place, reader.read(0, place, place + size)
        return held[place - begin : place - begin + BLOCK]

    return block


class _File(io.RawIOBase):
    """A shard as `tarfile` reads headers."""

    def __init__(self, shard: Shard, window: Callable[[int], bytes]) -> None:
        self.shard, self.window, self.place = shard, window, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.shard.length)[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int = -1) -> bytes:
        stop = self.shard.length if size < 0 else min(self.place + size, self.shard.length)
        parts = [self.window(place) for place in range(self.place, stop, BLOCK)]
        found = b"".join(parts)[: stop - self.place]
        self.place += len(found)
        return found
