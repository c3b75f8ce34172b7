"""Processes that finish together lose no row of each other's in results.csv and results.md."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rows import write_row

from benchmark.summary import write_tables


def finish(results: Path, model: str, barrier: Any, locks: bool) -> None:
    if not locks:
        fcntl.flock = lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks"))  # type: ignore[assignment]
    barrier.wait()
    write_row(results, model, "depth", n=20)
    write_tables(results)


@pytest.mark.parametrize("locks", [True, False])
def test_no_row_is_missing_from_the_tables(tmp_path: Path, locks: bool) -> None:
    models = [f"m{i}" for i in range(4)]
    write_row(tmp_path / "before", "x", "depth", n=20)  # imports are over before the processes start
    write_tables(tmp_path / "before")
    fork = multiprocessing.get_context("fork")
    for trial in range(5):
        results, barrier = tmp_path / str(trial), fork.Barrier(4)
        together = [fork.Process(target=finish, args=(results, m, barrier, locks)) for m in models]
        for process in together:
            process.start()
        for process in together:
            process.join()
        assert sorted(set(pd.read_csv(results / "results.csv").model)) == models
        assert all(f"| {m} |" in (results / "results.md").read_text() for m in models)
