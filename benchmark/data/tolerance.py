"""What a data set may lack: nothing, unless `--max-bad` or `--limit` says so; what it lacks is written into the row.

Readers ask `tolerance()` while a split is opened and note there what they leave out, or find odd.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    odd: list[str] = field(default_factory=list)  # one line for each thing that is no fault but should be known
    hidden: dict[str, tuple[int, str]] = field(default_factory=dict)  # place -> files of hidden names, one of them

    @property
    def notes(self) -> list[str]:
        """A line for each thing that is odd, and one for the files that are no data by their names."""
        if not self.hidden:
            return self.odd
        count, example = sum(n for n, _ in self.hidden.values()), next(name for _, name in self.hidden.values())
        return [*self.odd, f"names that are hidden or a packer's are no data, left out: {count} ({example})"]

    def skip(self, place: str, names: Sequence[str]) -> None:
        """Counts files below `place` that are no data by their names; a place that is listed twice counts once."""
        if names and len(names) > self.hidden.get(place, (0, ""))[0]:
            self.hidden[place] = len(names), f"{place}{'' if place.endswith(':') else '/'}{names[0]}"


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
