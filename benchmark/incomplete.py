"""What a data set may lack: nothing, unless `--max-bad` or `--limit` says so; what it lacks is written into the row.

Readers ask `tolerance()` while a split is opened and note there what they leave out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Tolerance:
    """`missing` files may be absent (`--max-bad`); with `part` the split may be any part of the official one."""

    missing: int = 0
    part: bool = False
    absent: list[str] = field(default_factory=list)  # one line for each picture left out
    short: list[str] = field(default_factory=list)  # splits that are a small part of the official one, or larger


_current: ContextVar[Tolerance] = ContextVar("tolerance")


@contextmanager
def tolerating(missing: int = 0, part: bool = False) -> Iterator[Tolerance]:
    """What holds inside; yields where the readers note what they left out."""
    token = _current.set(Tolerance(missing, part))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def tolerance() -> Tolerance:
    """What holds here; nothing may be missing by default."""
    return _current.get(None) or Tolerance()
