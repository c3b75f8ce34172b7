"""Checkpoints in a folder that a training run writes into: which there are, and which are whole.

A checkpoint is whole when nothing about its files has changed for a while and every weight file can be read to its
end: safetensors headers against file sizes, npz indexes, the shards an index names. Nothing is unpickled.

Training states of `bench train` are found as well, and told apart by what their tensors are called.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import first_line
from benchmark.system.digest import fingerprint
from benchmark.system.weight_folders import TEXT_HALF
from benchmark.watch.steps import ordered_by_name, progress_of

WEIGHT_SUFFIXES = (".safetensors", ".npz")
UNFINISHED = (".tmp", ".part", ".incomplete")
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
STATE_PARTS = ("student/", "teacher/", "optimizer/")  # what a training state names its tensors by
SHARD = re.compile(r"(.*)-\d{5,}-of-(\d{5,})\.safetensors")
LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format


@dataclass(frozen=True)
class Checkpoint:
    """A weight file directly in the watched folder, or a folder below it that holds weight files."""

    path: Path
    name: str  # relative to the watched folder

    def files(self) -> list[Path]:
        """Every file of the checkpoint, sorted."""
        if self.path.is_file():
            pair = _npz_pair(self.path)
            return sorted({self.path, pair} if pair else {self.path})
        return sorted(p for p in _below(self.path) if p.is_file())

    def stamp(self) -> str:
        """Changes whenever a file grows, appears, goes or is written again."""
        seen = []
        for file in self.files():
            try:
                facts = file.stat()
            except OSError:
                continue
            seen.append([file.name, facts.st_size, facts.st_mtime_ns])
        return fingerprint(seen)[:16]

    def modified(self) -> float:
        """Seconds since the epoch of the newest file; 0 for a checkpoint that has gone."""
        times = [0.0]
        for file in self.files():
            with suppress(OSError):
                times.append(file.stat().st_mtime)
        return max(times)

    def order(self) -> tuple[float, str]:
        """Sort key: the step (or epoch) in the name where there is one, else the time."""
        step = step_of(self.name)
        return (self.modified() if step is None else float(step), self.name)


def step_of(name: str) -> int | None:
    """The step in a checkpoint's name, or its epoch where it has no step: "step-00000200" -> 200, "final" -> None."""
    said = progress_of(name)
    return said.number if said else None


def find(folder: Path) -> list[Checkpoint]:
    """Weight files in `folder` and subfolders that hold some, in training order; hidden names are skipped.

    Names order those that say a step (where none does, an epoch); the others stand behind the last that is older.
    """
    found = sorted((Checkpoint(path, path.name) for path in _candidates(folder)), key=Checkpoint.order)
    by_name = ordered_by_name(c.name for c in found)
    out = [c for c in found if c.name in by_name]
    for checkpoint in sorted((c for c in found if c.name not in by_name), key=lambda c: (c.modified(), c.name)):
        older = [i for i, other in enumerate(out) if other.modified() <= checkpoint.modified()]
        out.insert(older[-1] + 1 if older else 0, checkpoint)
    return out


def _candidates(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith(UNFINISHED):
            continue
        alone = path.suffix in WEIGHT_SUFFIXES and not path.stem.endswith(TEXT_HALF)
        if any(_weight_files(path)) if path.is_dir() else alone:
            yield path


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder and the folders below it; one that training deletes meanwhile is passed over."""
    return (Path(at) / name for at, _, names in os.walk(folder) for name in names)


def _weight_files(folder: Path) -> Iterator[Path]:
    return (p for p in _below(folder) if p.suffix in WEIGHT_SUFFIXES and not p.name.startswith("."))


def pickles(folder: Path) -> list[str]:
    """Names of pickled checkpoints in `folder`, which are never opened."""
    return sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)


def is_training_state(checkpoint: Checkpoint) -> bool:
    """Whether it is what `bench train` resumes from: no model loads it. Told by the tensors, not by a file's name."""
    files = [checkpoint.path] if checkpoint.path.is_file() else list(_weight_files(checkpoint.path))
    return bool(files) and all(_holds_state(file) for file in files)


def is_exportable(checkpoint: Checkpoint) -> bool:
    """Whether it is a training state that `bench export` takes the weights out of."""
    whole = all((checkpoint.path / name).is_file() for name in ("state.json", "tokenizer.model"))
    return whole and is_training_state(checkpoint)


def _holds_state(file: Path) -> bool:
    if file.suffix != ".safetensors":
        return False
    try:
        names = _safetensors_header(file)[1].keys() - {"__metadata__"}
    except (OSError, ValueError, AttributeError, RecursionError):
        return False  # half of a file is waited for, whatever it will be
    return any(n.startswith(STATE_PARTS[0]) for n in names) and all(n.startswith(STATE_PARTS) for n in names)


def _npz_pair(path: Path) -> Path | None:
    """The text half of `NAME_vision.npz`."""
    if path.suffix != ".npz" or not path.stem.endswith("_vision"):
        return None
    return path.with_name(path.name.replace("_vision.npz", "_text.npz"))


def damage(checkpoint: Checkpoint) -> str | None:
    """Why a checkpoint cannot be read yet (or at all), naming the file; None when it is whole."""
    for file in checkpoint.files():
        reason = _file_damage(file)
        if reason:
            return f"{file.name}: {reason}"
    return None


def _file_damage(file: Path) -> str | None:
    if not file.is_file():
        return "is missing"
    try:
        if file.suffix == ".safetensors":
            return _safetensors_damage(file) or _lost_shards(file)
        if file.suffix == ".npz":
            return _npz_damage(file)
        if file.name.endswith(".safetensors.index.json"):
            shards = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
            lost = sorted(s for s in shards if not (file.parent / s).is_file())
            return f"shards are missing: {', '.join(lost[:3])}" if lost else None
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
    except Exception as e:  # zip, JSON and safetensors say what they like of damaged bytes
        return f"cannot be read ({first_line(e)})"
    return None


def _safetensors_damage(file: Path) -> str | None:
    size = file.stat().st_size
    try:
        length, header = _safetensors_header(file)
    except _NoHeader as e:
        return str(e)
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"{size} of {expected} bytes are there"


def _lost_shards(file: Path) -> str | None:
    """What `model-00001-of-00003` says of its neighbours, before there is an index that names them."""
    named = SHARD.fullmatch(file.name)
    if not named or any(file.parent.glob("*.safetensors.index.json")):
        return None
    others = (SHARD.fullmatch(p.name) for p in file.parent.iterdir())
    there = sum(m is not None and m.groups() == named.groups() for m in others)
    return f"{there} of {int(named[2])} shards are there" if there < int(named[2]) else None


class _NoHeader(ValueError):
    """The file ends before its header does."""


def _safetensors_header(file: Path) -> tuple[int, dict[str, Any]]:
    """The header's length in bytes, and the header. Raises ValueError for a file without a whole one."""
    size = file.stat().st_size
    with file.open("rb") as f:
        start = f.read(8)
        if len(start) < 8:
            raise _NoHeader(f"{size} bytes are no safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, LONGEST_HEADER):
            raise _NoHeader(f"the header says {length} bytes, the file has {size}")
        return length, json.loads(f.read(length))


def _npz_damage(file: Path) -> str | None:
    if not zipfile.is_zipfile(file):
        return "no zip index at its end: it is not written to the end"
    with zipfile.ZipFile(file) as archive:
        odd = [n for n in archive.namelist() if not n.endswith(".npy")]
    return f"holds {odd[0]!r}, which is no array" if odd else None
