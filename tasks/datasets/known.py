"""Is an archive the one its owner ships? Files of a known name are held against a recorded size and digest."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.datasets.catalog import catalog

BLOCK = 1 << 22
KINDS = ("sha256", "sha1", "md5")


@dataclass(frozen=True)
class Known:
    """What is on record of an archive: kind and hex digits of its digest, its size in bytes (or None), who says so."""

    kind: str
    digest: str
    bytes: int | None
    source: str


@cache
def known() -> dict[str, Known]:
    """Everything on record, by file name."""
    rows = tomllib.loads((files("tasks.datasets") / "known_archives.toml").read_text(encoding="utf-8"))
    kinds = {name: next(kind for kind in KINDS if kind in row) for name, row in rows.items()}
    return {n: Known(kinds[n], row[kinds[n]], row.get("bytes"), row["source"]) for n, row in rows.items()}


def present(dataset: str, data: Path) -> list[Path]:
    """The files of `dataset` under `data` that something is on record of."""
    folders = [str(PurePosixPath(item["to"]).parent) for item in catalog().get(dataset, {}).get("fetch", ())]
    places = [data / folder for folder in dict.fromkeys([dataset, *folders])]
    return [place / name for place in places for name in known() if (place / name).is_file()]


def difference(path: Path, record: Known, advance: Callable[[int], Any] = lambda _: None) -> tuple[str, str]:
    """(digest of the file in hex, what is wrong with it or ""); `advance` is told of every block's bytes.

    A file of another size is not read: its digest is "".
    """
    size = path.stat().st_size
    if record.bytes not in (None, size):
        return "", f"{size} bytes, the official file has {record.bytes} ({record.source})"
    found = hashlib.new(record.kind, usedforsecurity=False)
    with open(path, "rb") as f:
        while block := f.read(BLOCK):
            found.update(block)
            advance(len(block))
    digest = found.hexdigest()
    if digest == record.digest:
        return digest, ""
    return digest, f"{record.kind} {digest}, the official file's is {record.digest} ({record.source})"
