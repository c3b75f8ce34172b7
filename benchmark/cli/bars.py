"""Signs of life, on stderr: bars on a terminal; elsewhere a line for each row, and one a minute while nothing ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmark.contracts.progress import NewProgress, silent

MINUTE = 60.0
SURE = 0.05  # share of the work after which its end can be guessed


@contextmanager
def bars(quiet: bool = False) -> Iterator[tuple[NewProgress, Callable[[str], None]]]:
    """Yields a maker of bars with rate and ETA, and what says a line; finished bars vanish. Nothing where `quiet`."""
    if quiet:
        yield silent, lambda line: None
    elif not sys.stderr.isatty():
        lines = _Lines()
        yield partial(_Count, lines), lines.say
    else:
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
            yield (
                lambda label, total: _Bar(live, label, total),
                lambda line: live.console.print(line, style="dim", markup=False, highlight=False),
            )


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


class _Lines:
    """What is said without a terminal: by whoever makes progress, as no thread may stand beside processes that fork."""

    def __init__(self, every: float = MINUTE) -> None:
        self.every, self.started = every, time.monotonic()
        self.said = self.started

    def say(self, line: str) -> None:
        self.said = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def waited(self, words: Callable[[], str]) -> None:
        """Says what is going on once nothing was said for a minute."""
        if time.monotonic() - self.said >= self.every:
            self.say(f"{(time.monotonic() - self.started) / MINUTE:.0f} min: {words()}")


class _Count:
    """A bar in words."""

    def __init__(self, lines: _Lines, label: str, total: int) -> None:
        self.lines, self.label, self.total, self.done, self.more = lines, label, total, 0, ""
        self.begun = time.monotonic()
        lines.waited(self.words)

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        self.lines.waited(self.words)

    def note(self, text: str) -> None:
        self.more = text

    def words(self) -> str:
        """`encoding mini 120/500, about 3 min left`."""
        count = f"{self.done}/{self.total}" if self.total else ""
        said = " ".join(filter(None, (self.label, count, self.more)))
        if self.done >= self.total or self.done < SURE * self.total:
            return said
        left = (time.monotonic() - self.begun) * (self.total - self.done) / self.done
        return f"{said}, about {f'{left / MINUTE:.0f} min' if left >= MINUTE else f'{left:.0f} s'} left"
