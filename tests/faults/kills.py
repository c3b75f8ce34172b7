"""A kill (kill -9, or a signal that is answered) at random moments: the same command again ends with what an
undisturbed one leaves, to the last byte.

Half of the moments are drawn by the clock. The other half are drawn by the number of things done to files before (an
open for writing, a rename, a removal …), which strikes the short windows between two of them, on a slow machine too.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from children import differing, import_what_it_imports, kept, start, wait

MOST = 3  # kills of one run, one after another


@dataclass
class Found:
    """What came of it: kills that struck, runs that they were spread over, files compared."""

    struck: int = 0
    runs: int = 0
    compared: int = 0


def undisturbed(
    run: Callable[[Path], int | None], place: Path, twice: bool = True
) -> tuple[dict[str, Any], int, float]:
    """(what an undisturbed run leaves, its file events, its seconds). Run `twice`, the second time is that of runs
    which need not import anything, and two that differ raise AssertionError."""
    for name in ("first", "calm") if twice else ("calm",):
        folder = place / name
        ended = wait(start(lambda: run(folder / "work"), folder), folder)  # noqa: B023
        assert ended.code == 0, ended.said
        import_what_it_imports(folder)
    calm = kept(place / "calm" / "work")
    if twice:
        other = differing(kept(place / "first" / "work"), calm)
        assert not other, f"two undisturbed runs differ: {other}"
        shutil.rmtree(place / "first")
    return calm, ended.events, ended.seconds


def kill(
    run: Callable[[Path], int | None],
    place: Path,
    count: int,
    seed: int,
    tell: Callable[[str], object] = lambda line: None,
    twice: bool = True,
    how: int = signal.SIGKILL,
) -> Found:
    """Kills `count` times in all; every run is killed up to MOST times and then let finish. Raises AssertionError with
    the first run that leaves something else than an undisturbed one."""
    calm, events, seconds = undisturbed(run, place, twice)
    tell(f"undisturbed: {seconds:.1f} s, {events} file events, {len(calm)} files")
    draw, found = random.Random(seed), Found()
    while found.struck < count:
        folder = place / f"run-{found.runs}"
        moments = []
        for _ in range(min(count - found.struck, draw.randint(1, MOST))):
            by_clock = draw.random() < 0.5
            after = draw.uniform(0, seconds) if by_clock else None
            at = None if by_clock else draw.randint(1, events)
            ended = wait(start(lambda: run(folder / "work"), folder, at, how), folder, after, how=how)  # noqa: B023
            moments.append(f"{after:.3f} s" if by_clock else f"event {at}")
            if ended.code in (-how, 128 + signal.SIGTERM):  # by the signal, or answered by a checkpoint
                found.struck += 1
                continue
            assert ended.code == 0, f"{folder}, killed at {moments}: {ended.said}"
        ended = wait(start(lambda: run(folder / "work"), folder), folder)  # noqa: B023
        assert ended.code == 0, f"{folder}, killed at {moments}: {ended.said}"
        after_all = kept(folder / "work")
        other = differing(calm, after_all)
        if how != signal.SIGKILL:  # the checkpoint that answers a signal may be kept in the place of an older one
            other = [name for name in other if "/step-" not in name or (name in calm and name in after_all)]
        assert not other, f"{folder}, killed at {moments}: {other} differ from an undisturbed run"
        found.runs, found.compared = found.runs + 1, found.compared + len(calm)
        shutil.rmtree(folder)
        tell(f"{found.struck} kills: {', '.join(moments)}: as undisturbed")
    return found
