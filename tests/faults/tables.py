"""Processes that finish together: none loses a row of another's in results.csv, results.md or the leaderboard."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pandas as pd
from children import refuse_locks
from rows import write_row

from benchmark.leaderboard import build
from benchmark.rows.tables import write_tables

PROCESSES = 4
WITHIN_S = 0.1


def _finish(root: Path, number: int, rounds: int, seed: int, barrier: Any, locks: bool, times: Any) -> None:
    """One of the processes: in every round it saves a row, at once or within WITHIN_S, and writes the tables."""
    if not locks:
        refuse_locks()
    draw = random.Random(f"{seed} {number}")
    for trial in range(rounds):
        barrier.wait()
        time.sleep(draw.uniform(0, WITHIN_S) if trial % 2 else 0)
        write_row(root / str(trial), f"m{number}", "depth", n=20)
        times[trial * PROCESSES + number] = time.monotonic()
        write_tables(root / str(trial))
        if locks:
            build(root / str(trial))


def finish_together(root: Path, rounds: int, seed: int, locks: bool = True) -> tuple[int, float]:
    """(rows that are missing from a table, the median spread in seconds of a round's rows)."""
    write_row(root / "before", "x", "depth", n=20)  # imports are over before the processes start
    write_tables(root / "before")
    build(root / "before")
    server = multiprocessing.get_context("forkserver")  # a fork of this process could hang where JAX is loaded
    server.set_forkserver_preload(["benchmark.leaderboard", "benchmark.rows.tables", "pandas"])
    barrier, times = server.Barrier(PROCESSES), server.Array("d", rounds * PROCESSES)
    together = [
        server.Process(target=_finish, args=(root, i, rounds, seed, barrier, locks, times)) for i in range(PROCESSES)
    ]
    for process in together:
        process.start()
    for process in together:
        process.join()
        assert process.exitcode == 0
    models, missing = {f"m{i}" for i in range(PROCESSES)}, 0
    for trial in range(rounds):
        results = root / str(trial)
        missing += len(models - set(pd.read_csv(results / "results.csv").model))
        missing += sum(f"| {m} |" not in (results / "results.md").read_text() for m in models)
        if locks:
            missing += len(models - set(pd.read_csv(results / "leaderboard.csv").model))
    spreads = [max(s) - min(s) for s in zip(*[iter(times)] * PROCESSES)]
    return missing, sorted(spreads)[rounds // 2]
