"""Where things are kept: caches, datasets, results. Each place has one environment variable."""

from __future__ import annotations

import os
from pathlib import Path

from benchmark.errors import UsageError


def cache_dir() -> Path:
    """`$BENCH_CACHE`, else `$XDG_CACHE_HOME/densebench`, else `~/.cache/densebench`.

    Raises UsageError for a user without a home, as containers have them.
    """
    if value := os.environ.get("BENCH_CACHE"):
        return Path(value).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "densebench"
    except RuntimeError:
        raise UsageError("this user has no home folder. Say where the cache goes with BENCH_CACHE") from None


def data_dir() -> Path:
    """`$BENCH_DATA`, else `./data`."""
    return Path(os.environ.get("BENCH_DATA") or "data").expanduser()


def results_dir() -> Path:
    """`$BENCH_RESULTS`, else `./results`."""
    return Path(os.environ.get("BENCH_RESULTS") or "results").expanduser()


def rows_dir(asked: Path | None) -> Path:
    """The folder of a command that only reads rows: the one `asked` for, else `results_dir()`.

    Raises UsageError for a folder that was asked for and is not there: shipped rows would stand for it in silence.
    """
    if asked is not None and not asked.is_dir():
        raise UsageError(f"--results {asked}: no such folder. Rows are where bench run --results put them")
    return results_dir() if asked is None else asked


def reference_dir() -> Path:
    """The rows that are shipped: `results/reference` of a checkout, data of this package in a wheel (`setup.py`)."""
    inside = Path(__file__).parents[1] / "shipped"
    return (inside if inside.is_dir() else Path(__file__).parents[2] / "results") / "reference"
