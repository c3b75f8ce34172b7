"""Facts of `catalog.toml` that are not in DatasetInfo: official counts and where archives are."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def catalog() -> dict[str, dict[str, Any]]:
    """Every dataset's table."""
    return tomllib.loads((files("tasks.datasets") / "catalog.toml").read_text(encoding="utf-8"))


def expected(name: str, split: str, kind: str | None = None, found: int | None = None) -> int | None:
    """Images in the official `split` (its `kind`, where kinds differ), or None when that is not known.

    Where a second official list is in use, its count if that is what was `found`.
    """
    row = catalog().get(name, {})
    counts, other = row.get("counts", {}), row.get("other_counts", {})
    for key in (f"{split}_{kind}", split):
        if key in counts:
            return int(found if found is not None and found == other.get(key) else counts[key])
    return None
