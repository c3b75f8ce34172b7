"""The type of a progress bar, and the bar that nobody sees."""

from __future__ import annotations

from collections.abc import Callable

from benchmark.contracts import Progress

NewProgress = Callable[[str, int], Progress]


class NoProgress:
    """A bar nobody sees."""

    def advance(self, amount: int = 1) -> None:
        """Nothing happens."""

    def note(self, text: str) -> None:
        """Nothing happens."""


def silent(label: str, total: int) -> Progress:
    """The progress of a run without a terminal."""
    return NoProgress()
