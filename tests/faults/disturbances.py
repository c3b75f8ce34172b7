"""Disks that are full, slow or may only be read, few file handles, clocks that jump, no locks, several processes.

What a disk refuses is refused from a moment that is drawn: every opening of a file for writing fails from there on, as
the system's own would. The command then says so in one line, and the same command on a whole disk ends as undisturbed.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from children import CHANGES, OVER, WRITES, differing, kept, refuse_locks, start, wait
from kills import undisturbed

Run = Callable[[Path], int | None]
HANDLES = 54
YEARS = 10 * 365.25 * 86400


def _on_change(do: Callable[[int], object]) -> None:
    """Calls `do` with the number of each thing that this process does to a file, before it is done."""
    count, owner = 0, os.getpid()

    def hear(event: str, words: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(words[2], int) and words[2] & WRITES
        if os.getpid() == owner and not OVER and (event in CHANGES or writes) and not str(words[0]).startswith("/dev/"):
            count += 1
            do(count)

    sys.addaudithook(hear)


def _refused(number: int) -> Callable[[int], None]:
    def from_event(at: int) -> None:
        def do(count: int) -> None:
            if count >= at and sys._getframe(2).f_code.co_name not in ("unlink", "rmtree", "_rmtree_safe_fd"):
                raise OSError(number, os.strerror(number))

        _on_change(do)

    return from_event


def _slow(at: int) -> None:
    _on_change(lambda count: time.sleep(0.003))


def _few_handles(at: int) -> None:
    most = HANDLES + len(os.listdir("/proc/self/fd"))  # a fork has its parent's, too
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _jumping_clock(at: int) -> None:
    """Each look at the clock is ten years before or after the true time."""
    true, draw = time.time, random.Random(at)
    time.time = lambda: true() + draw.choice((-YEARS, YEARS))


def _no_locks(at: int) -> None:
    refuse_locks()


def _full_within_a_file(at: int) -> None:
    """The disk is full in the middle of a file, whoever writes it: Python, or what a library was built from."""
    most = random.Random(at).randint(1, 120_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


REFUSING = {"full disk": _refused(errno.ENOSPC), "read-only disk": _refused(errno.EROFS)}
WITHIN = {"disk that is full within a file": _full_within_a_file}  # tried on the recipe
BEARING = {
    "slow disk": _slow, "few file handles": _few_handles, "jumping clock": _jumping_clock, "no locks": _no_locks,
}  # fmt: skip


def _child(run: Run, folder: Path, before: Callable[[int], object], at: int) -> Any:
    def action() -> int | None:
        before(at)
        return run(folder / "work")

    return wait(start(action, folder), folder)


def _as_calm(calm: dict[str, Any], folder: Path, what: str) -> None:
    other = differing(calm, kept(folder / "work"))
    assert not other, f"{what}: {other} differ from an undisturbed run"
    shutil.rmtree(folder)


def disturb(
    run: Run,
    place: Path,
    rounds: int,
    seed: int,
    tell: Callable[[str], object] = lambda line: None,
    disks: bool = False,
) -> int:
    """Each disturbance (`disks`: those that refuse alone) `rounds` times; how many in all. Raises AssertionError with
    the first that changes something."""
    calm, events, _ = undisturbed(run, place, twice=False)
    draw, done = random.Random(seed), 0
    for number in range(rounds):
        for name, before in (REFUSING | WITHIN if disks else REFUSING).items():
            folder, at = place / f"{name}-{number}", draw.randint(1, events)
            ended = _child(run, folder, before, at)
            whole = ended.code in (0, 1, 2) and "Traceback" not in ended.said and "is a defect" not in ended.said
            assert whole, f"{name} at event {at}: {ended.said}"
            again = _child(run, folder, lambda at: None, 0)
            assert again.code == 0, f"{name} at event {at}, then whole: {again.said}"
            _as_calm(calm, folder, f"{name} at event {at}")
            done += 1
        if disks:
            tell(f"round {number + 1}: as undisturbed")
            continue
        for name, before in BEARING.items():
            folder = place / f"{name}-{number}"
            ended = _child(run, folder, before, seed + number)
            assert ended.code == 0, f"{name}: {ended.said}"
            if name == "jumping clock":  # and files of the future and of 1980 are read again
                for path in (p for p in folder.rglob("*") if p.is_file()):
                    os.utime(path, (draw.choice((3e8, 4e9)),) * 2)
                assert _child(run, folder, before, seed).code == 0
            _as_calm(calm, folder, name)
        for count in (2, 4):
            folder = place / f"{count}-{number}"
            pids = [start(lambda: run(folder / "work"), folder / str(i)) for i in range(count)]  # noqa: B023
            for i, pid in enumerate(pids):
                ended = wait(pid, folder / str(i))
                assert ended.code == 0, f"{count} processes on one folder: {ended.said}"
            _as_calm(calm, folder, f"{count} processes on one folder")
        done += len(BEARING) + 2
        tell(f"round {number + 1}: as undisturbed")
    return done
