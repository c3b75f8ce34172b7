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


def expected(name: str, split: str, kind: str | None = None) -> int | None:
    """Images in the official `split` (its `kind`, where kinds differ), or None when that is not known."""
    counts = catalog().get(name, {}).get("counts", {})
    return next((int(counts[key]) for key in (f"{split}_{kind}", split) if key in counts), None)
