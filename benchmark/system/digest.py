"""Hashes that are the same on every machine and Python version."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """`value` as JSON types: dataclasses and mappings to dicts, tuples and sets to lists, paths to strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; 1 and 1.0 stay different, NaN and infinities raise ValueError.

    Floats are written by repr, the shortest decimal that reads back equal, on which all Python versions agree.
    """

    def check(v: Any) -> None:
        if isinstance(v, float) and not math.isfinite(v):
            raise ValueError(f"cannot hash {v!r}: not a finite number")
        if isinstance(v, dict):
            for item in v.values():
                check(item)
        if isinstance(v, list):
            for item in v:
                check(item)

    jsonable = plain(value)
    check(jsonable)
    return json.dumps(jsonable, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def fingerprint(value: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def sha256_file(path: Path | str) -> str:
    """sha256 of a file's bytes, read in blocks."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
