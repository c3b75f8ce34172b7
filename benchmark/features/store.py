"""The feature store: arrays on disk under a key made of everything that decides their values.

A stored array is a folder: `manifest.json` (the key in words, shapes, a checksum per shard) and `shard-00000.npy` …
Shards are written to a temporary name and renamed, then entered in the manifest under a lock: a process killed at any
moment leaves only whole shards. The manifest holds its own checksum too; what fails one counts as missing. A manifest
of before it did (schema 1) is taken as far as the shards bear it out: by their checksums, and by the shapes they have.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.errors import BenchError
from benchmark.features import codec
from benchmark.features.codec import CODECS, LAYOUTS
from benchmark.features.shards import OpenShards
from benchmark.system import cache_users, sealed
from benchmark.system.digest import fingerprint, sha256_file
from benchmark.system.files import disk_errors, make_folder, write_atomic
from benchmark.system.late import torch
from benchmark.system.mapped import mapped
from benchmark.system.processes import locked, open_files

SCHEMA = 2  # 2: the manifest is sealed
MANIFEST = "manifest.json"
CLOCK_S = 1.0  # two files that are made at once may differ by so much
ABANDONED_S = 3600.0  # a shard is written in far less
SHARD_BYTES = 64 * 2**20  # of one shard in float32; a larger item is a shard of its own


def shard_items(n: int, item_bytes: int = 0) -> int:
    """Items per shard of a set of `n`, where one item takes `item_bytes` in float32.

    128, or 4096 past 65,536 items, halved until a shard has at most SHARD_BYTES: every size divides that of small
    items, so that shards of all arrays of a set end together at the multiples of `shard_items(n)`.
    """
    size = 128 if n <= 65536 else 4096
    while size > 1 and size * item_bytes > SHARD_BYTES:
        size //= 2
    return size


_open_shards = OpenShards(max(32, min(512, open_files() // 4)))


def close_shards() -> None:
    """Closes the shards that are mapped; they are opened again when they are read."""
    _open_shards.clear()


@dataclass
class StoredArray:
    """One array [N, *item] under one key, complete or not."""

    folder: Path
    key: Mapping[str, Any]
    n: int
    codec: str  # float32, float16 or int8
    item_bytes: int = 0  # about what one item takes in float32; 0: little

    def __post_init__(self) -> None:
        known = self._manifest()  # of an array that is there, also one from before shards were bounded by bytes
        self.size: int = known["size"] if known else shard_items(self.n, self.item_bytes)
        self._verified: set[int] = set()
        self._paths: dict[int, Path] = {}

    @property
    def num_shards(self) -> int:
        return -(-self.n // self.size)

    def shard_range(self, shard: int) -> range:
        """The items of `shard`."""
        return range(shard * self.size, min((shard + 1) * self.size, self.n))

    # ------------------------------------------------------------------------------------------ writing

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Shards (`among` those, where given) that are absent or damaged. Every shard that is asked for is read once
        per process to compare its checksum."""
        manifest = self._manifest()
        return [s for s in (range(self.num_shards) if among is None else among) if not self._good(s, manifest)]

    def write(self, shard: int, items: np.ndarray) -> None:
        """Stores the float32 items of one shard, [len, *item]. Raises BenchError when the disk is full."""
        if not np.isfinite(items).all():
            raise ValueError("features must be finite before they are stored")
        header, data = _npy(codec.encode(items, self.codec))
        write_atomic(self._path(shard), lambda f: f.writelines((header, data)))
        digest = hashlib.sha256(header)
        digest.update(data)
        _open_shards.drop(self._path(shard))
        with self._lock():
            manifest = self._manifest()
            layout = {"n": self.n, "size": self.size, "codec": self.codec, "item": list(items.shape[1:])}
            shards = manifest["shards"] if layout.items() <= manifest.items() else {}
            shards[str(shard)] = digest.hexdigest()
            found = {"schema": SCHEMA, "key": dict(self.key), **layout, "shards": shards}
            sealed.write_json(self.folder / MANIFEST, found)
        self.__dict__.pop("item", None)
        self._verified.add(shard)

    # ------------------------------------------------------------------------------------------ reading

    @cached_property
    def item(self) -> tuple[int, ...]:
        manifest = self._manifest()
        if not manifest:
            raise self._gone(self.folder / MANIFEST)
        return tuple(manifest["item"])

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, *self.item)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: Any) -> torch.Tensor:
        """float32 CPU tensor: [*item] for an int, [M, *item] for a slice, an array of indices or [N] bools.

        Negative indices count from the end. Raises IndexError past either end. Of a pair of index arrays [M] the second
        says which row of each item's first axis is read: [M, *item[1:]], as numpy has it.
        """
        if isinstance(rows, tuple):
            items, inside = np.broadcast_arrays(*rows)
            return self._take(items.astype(np.int64), inside.astype(np.int64))
        if isinstance(rows, slice):
            return self._take(np.arange(*rows.indices(self.n)))
        asked = np.asarray(rows)
        if asked.dtype == bool and asked.shape == (self.n,):
            return self._take(np.flatnonzero(asked))
        if asked.size and not (asked.dtype.kind in "iu" and -self.n <= asked.min() and asked.max() < self.n):
            raise IndexError(f"{rows} is no index of {self.n} stored items")
        asked = np.where(asked < 0, asked + self.n, asked).astype(np.int64)
        return self._take(asked) if asked.ndim else self._take(asked[None])[0]

    def _take(self, rows: np.ndarray, within: np.ndarray | None = None) -> torch.Tensor:
        out = np.empty((len(rows), *self.item[within is not None :]), np.float32)
        shards = rows // self.size
        order = np.argsort(shards, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(rows) else ():
            shard = shards[at[0]]
            inside = rows[at] - shard * self.size
            start, stop = int(inside[0]), int(inside[-1]) + 1
            run: Any = slice(start, stop) if stop - start == len(inside) and (np.diff(inside) == 1).all() else inside
            wanted = run if within is None else (inside, within[at])
            out[at] = codec.decode(self._shard(int(shard)), wanted, self.codec)
        return torch.from_numpy(out)

    def _shard(self, shard: int) -> np.ndarray:
        try:
            return _open_shards.get(self._path(shard))
        except FileNotFoundError:
            raise self._gone(self._path(shard)) from None

    # ----------------------------------------------------------------------------------------- internal

    def _gone(self, path: Path) -> BenchError:
        return BenchError(f"{path}: was deleted while it was in use (bench cache prune?). Run the same command again")

    def _path(self, shard: int) -> Path:
        if shard not in self._paths:  # asked for with every batch, by its hash: a kept path keeps that too
            self._paths[shard] = self.folder / f"shard-{shard:05d}.npy"
        return self._paths[shard]

    def _good(self, shard: int, manifest: Mapping[str, Any]) -> bool:
        checksum, path = manifest.get("shards", {}).get(str(shard)), self._path(shard)
        if checksum is None:
            return False
        if shard in self._verified:
            return True
        try:
            if sha256_file(path) != checksum:
                raise ValueError("its content does not agree with its checksum")
            stored = mapped(path)
            if codec.shape_of(stored, self.codec) != (len(self.shard_range(shard)), *manifest["item"]):
                raise ValueError(f"it holds {list(stored.shape)}, which {MANIFEST} says otherwise")
        except FileNotFoundError:
            return False
        except (OSError, ValueError, EOFError) as e:
            sealed.remake(path, e, "its pictures are encoded again")
            return False
        self._verified.add(shard)
        return True

    def _manifest(self) -> dict[str, Any]:
        """What is stored, or {} where nothing is, or nothing that can be relied on."""
        path = self.folder / MANIFEST
        try:
            manifest = read_manifest(path)
            if (manifest["n"], manifest["codec"]) != (self.n, self.codec):
                raise sealed.Damaged(f"{path}: is that of {manifest['n']} items in {manifest['codec']}")
        except FileNotFoundError:
            return {}
        except sealed.Damaged as e:
            sealed.remake(path, e, "its pictures are encoded again")
            return {}
        return manifest

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Without locks two writers may lose an entry of each other's: that shard is made again by a later run."""
        with disk_errors(self.folder), locked(self.folder / ".lock"):
            yield


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest in `path`. Raises FileNotFoundError where there is none, sealed.Damaged where it is not what was
    written; one from before manifests were sealed has to be possible."""
    manifest = sealed.read_json(path, since=SCHEMA)
    try:
        n, item = manifest["n"], manifest["item"]
        size = manifest.setdefault("size", shard_items(n))  # of before shards were bounded by bytes
        counts = all(type(v) is int and v > 0 for v in (n, size, *item))
        if not (counts and manifest["schema"] <= SCHEMA and shard_items(n) % size == 0 and manifest["codec"] in CODECS):
            raise ValueError("no densebench could have written it")
        manifest["key"].get("model"), manifest["shards"].items()
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise sealed.Damaged(f"{path}: is damaged ({e!r})") from None
    return manifest


def _npy(array: np.ndarray) -> tuple[bytes, memoryview]:
    """What np.save writes of a C-ordered `array`: the header, and the array's own memory, of which no copy is made."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data


class FeatureStore:
    """All stored arrays under one folder (by default `<cache>/features`)."""

    def __init__(self, root: Path, codec: str = "float16") -> None:
        self.root, self.codec = root, codec
        self._arrays: dict[str, StoredArray] = {}

    def array(self, key: Mapping[str, Any], n: int, codec: str | None = None, item_bytes: int = 0) -> StoredArray:
        """The array of `key`, made if it is new. `codec` overrides the store's; `item_bytes` as in `shard_items`."""
        name = codec or self.codec
        digest = fingerprint({**{k: v for k, v in key.items() if k != "model"}, "codec": LAYOUTS.get(name, name)})
        if digest not in self._arrays:
            self._arrays[digest] = StoredArray(self.root / digest[:2] / digest, key, n, name, item_bytes)
        array = self._arrays[digest]
        make_folder(array.folder)
        cache_users.touch(self.root.parent, array.folder)
        return array

    def entries(self) -> list[dict[str, Any]]:
        """What is stored: folder, key, bytes, time of last use (seconds since 1970), shards present and expected."""
        out = []
        for path in sorted(self.root.glob(f"??/*/{MANIFEST}")):
            try:
                manifest = read_manifest(path)
                expected = -(-manifest["n"] // manifest["size"])
                size = sum(f.stat().st_size for f in path.parent.iterdir())
                entry = {
                    "folder": path.parent,
                    "kind": "features",
                    "key": manifest["key"],
                    "bytes": size,
                    "codec": manifest["codec"],
                }
                entry |= {"used": path.parent.stat().st_mtime, "shards": len(manifest["shards"]), "of": expected}
            except (OSError, sealed.Damaged):
                continue
            out.append(entry)
        return out

    def _abandoned(self, known: Collection[Path], before: float) -> Iterator[Path]:
        """What killed processes left behind `before` that time: folders that are none of the `known` entries', and
        parts of files that were never renamed."""
        for folder in self.root.glob("??/*/"):
            for path in folder.glob(".*.tmp") if folder in known else (folder,):
                with suppress(OSError):
                    if path.stat().st_mtime < before:
                        yield path

    def prune(
        self,
        *,
        older_than_s: float | None = None,
        max_bytes: int | None = None,
        model: str | None = None,
        others: Sequence[Mapping[str, Any]] = (),
    ) -> int:
        """Deletes arrays, and `others` (`other_entries`), unused for `older_than_s`, and the least recently used above
        `max_bytes`; nothing that a running process may use.

        With `model` only that model's arrays are looked at; without the other two all of them go. With any condition,
        what killed processes left behind goes too. Returns the bytes freed.
        """
        entries = self.entries()
        mine: list[Mapping[str, Any]] = [e for e in entries if model is None or e["key"].get("model") == model]
        mine += others if model is None else ()
        total, freed, now = sum(e["bytes"] for e in mine), 0, time.time()
        unconditional = older_than_s is None and max_bytes is None
        busy = cache_users.since(self.root.parent) - CLOCK_S
        for e in sorted(mine, key=lambda e: e["used"]):
            if e["used"] >= busy or (e.get("small") and not unconditional):
                continue
            old = older_than_s is not None and now - e["used"] > older_than_s
            big = max_bytes is not None and total - freed > max_bytes
            if unconditional or old or big:
                _delete(e["folder"])
                freed += e["bytes"]
        known = {e["folder"] for e in entries}
        everything = unconditional and model is None
        for path in list(self._abandoned(known, busy if everything else min(busy, now - ABANDONED_S))):
            freed += sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size
            _delete(path)
        return freed


def _delete(path: Path) -> None:
    """Deletes a file or folder; one that another process deleted meanwhile is no error."""
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BenchError(f"{path}: cannot be deleted ({error.strerror})") from None
