"""`kill -9` of workers of a run on many at random moments: its rows and its cache are those of one process.

Both runs are of the long `paper` heads, on a cluster of two workers of one core each that lives through all of it, so
that no time is spent on starting it. What is killed is whichever worker is drawn: one that encodes, one that trains a
head, one that helps it, one that has only begun.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from children import differing, kept
from jobs import DENSE, LINEAR

from benchmark.engine.cluster import start_ray
from benchmark.engine.run import run

MOST = 3  # kills of one run: a piece that takes four workers with it has failed
UNITS = ("depth", "linear_segmentation", "classification")
SHORT = {
    **{f"depth.{k}": v for k, v in (word.split("=") for word in DENSE)},
    **{f"linear_segmentation.{k}": v for k, v in (word.split("=") for word in LINEAR)},
    "classification.epochs": "1", "classification.batch": "16",
}  # fmt: skip
STEPS = ("depth.steps", "linear_segmentation.steps", "classification.epoch_length")
PICTURES = 60


@dataclass
class Found:
    """What came of it."""

    struck: int = 0
    runs: int = 0
    compared: int = 0
    names: list[str] = field(default_factory=list)  # of what the killed were doing


def kill_workers(place: Path, count: int, seed: int, steps: int, tell: Callable[[str], object]) -> Found:
    """Kills `count` workers in all. Raises AssertionError with the first run that leaves something else than one
    process does."""
    os.environ["OMP_NUM_THREADS"] = "1"
    calm, seconds = _run(place / "one", steps, None)
    tell(f"one process: {seconds:.1f} s, {len(calm)} files")
    ray = start_ray(num_cpus=2, object_store_memory=80 * 2**20)
    draw, found = random.Random(seed), Found()
    try:
        many, seconds = _run(place / "two", steps, "local")
        assert not (other := differing(calm, many)), f"two workers: {other} differ from one process"
        tell(f"two workers: {seconds:.1f} s, 0 files differ")
        while found.struck < count:
            moments = sorted(draw.uniform(0, seconds) for _ in range(min(MOST, count - found.struck)))
            with _Killer(moments, draw) as killer:
                many, _ = _run(place / f"run-{found.runs}", steps, "local")
            other = differing(calm, many)
            assert not other, f"workers killed after {moments} s ({killer.names}): {other} differ from one process"
            found.struck, found.runs = found.struck + len(killer.names), found.runs + 1
            found.compared, found.names = found.compared + len(calm), [*found.names, *killer.names]
            tell(f"{found.struck} kills: {', '.join(f'{m:.1f} s' for m in moments)} ({killer.names}): as one process")
    finally:
        ray.shutdown()
    return found


def _run(folder: Path, steps: int, ray: str | None) -> tuple[dict[str, object], float]:
    """What a run leaves below `folder`, and its seconds."""
    began = time.monotonic()
    said = {**SHORT, **dict.fromkeys(STEPS, str(steps))}
    report = run(
        "pixels", [f"{task}/scenes" for task in UNITS], protocol="paper", overrides=said, limit=PICTURES, ray=ray,
        gpus=2 if ray else None, check=False, device="cpu", command="a run", results=folder / "work" / "rows",
        cache=folder / "work" / "cache",
    )  # fmt: skip
    assert not report.failures, report.failures
    assert len(report.rows) == len(UNITS)
    left = kept(folder / "work")
    shutil.rmtree(folder)
    return left, time.monotonic() - began


class _Killer:
    """Within the block, a worker is killed at each of `moments` (seconds), where there is one."""

    def __init__(self, moments: list[float], draw: random.Random) -> None:
        self.moments, self.draw, self.names = moments, draw, list[str]()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._strike, daemon=True)

    def __enter__(self) -> _Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _strike(self) -> None:
        began = time.monotonic()
        for moment in self.moments:
            if self.ended.wait(max(0.0, began + moment - time.monotonic())):
                return
            if workers := _workers():
                process, name = self.draw.choice(sorted(workers.items()))
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    self.names.append(name)


def _workers() -> dict[int, str]:
    """Process -> what Ray calls it, of the workers below this process's cluster."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            names[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()

    def ours(process: int) -> bool:
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    return {process: name for process, name in names.items() if name.startswith("ray::Worker") and ours(process)}
