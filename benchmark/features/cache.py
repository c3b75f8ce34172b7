"""What a cache holds beside stored features, all of which can be made again. Downloads are never here: datasets lie in
the data folder, weights of a hub in the hub's own cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDERS = {"scenes": "rendered scenes", "recipe": "scenes to train on", "heads": "unfinished heads"}
TABLES = {"digests": "hashes of files", "archives": "indexes of archives", "checked": "checks passed"}


def other_entries(root: Path) -> list[dict[str, Any]]:
    """Folders of the cache `root` with kind, bytes and time of last use. TABLES are small and spare long reading:
    `small`, they go only with everything."""
    out = []
    for place, kind in {**FOLDERS, **TABLES}.items():
        whole = (root / place,) if place in TABLES else sorted((root / place).glob("*/"))
        out += [
            {"folder": folder, "kind": kind, "bytes": size, "used": folder.stat().st_mtime, "small": place in TABLES}
            for folder in whole
            if folder.is_dir() and (size := sum(_sizes(folder)))
        ]
    return out


def _sizes(folder: Path) -> Iterator[int]:
    for file in folder.rglob("*"):
        try:
            yield file.lstat().st_size
        except OSError:  # a process that ends its work takes its files away
            continue
