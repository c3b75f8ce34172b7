"""Progress bars on a terminal; nothing where the output goes to a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.contracts import Progress
from benchmark.contracts.progress import NewProgress, silent


@contextmanager
def bars(quiet: bool = False) -> Iterator[NewProgress]:
    """Yields a maker of bars with rate and ETA, drawn on stderr; finished bars vanish."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Live

    columns = (
        TextColumn("{task.description:32}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Live(*columns, console=Console(stderr=True), transient=True) as live:

        def new(label: str, total: int) -> Progress:
            return _Bar(live, label, total)

        yield new


class _Bar:
    def __init__(self, live: object, label: str, total: int) -> None:
        self.live, self.label, self.left = live, label, total
        self.id = live.add_task(label, total=total)  # type: ignore[attr-defined]

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        self.live.advance(self.id, amount)  # type: ignore[attr-defined]
        if self.left <= 0:
            self.live.update(self.id, visible=False)  # type: ignore[attr-defined]

    def note(self, text: str) -> None:
        self.live.update(self.id, description=f"{self.label} {text}")  # type: ignore[attr-defined]
