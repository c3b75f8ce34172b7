"""The main job again, with nothing to make: processor seconds of this checkout over those of another.

    python perf/again.py --against FOLDER [--keep PLACE]

Both make their rows first (`bench run --limit 60`, some minutes; kept in PLACE for the next time), then both are asked
again in turn, each in a process of its own. Everything counts: the interpreter, imports, reading, tables.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROUNDS = 5


def again(checkout: str, place: Path) -> float:
    """Processor seconds of one `bench run` of `checkout`, whose cache and rows lie in `place`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": checkout, "BENCH_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "benchmark.cli", "run", "--limit", "60", "--results", str(place / "results")]
    subprocess.run(words, cwd=checkout, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints both medians and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the folder of another checkout")
    parser.add_argument("--keep", type=Path, help="where caches and rows are kept")
    words = parser.parse_args()
    with ExitStack() as stack:
        place = words.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = [(str(Path(__file__).resolve().parents[1]), place / "ours"), (words.against, place / "theirs")]
        for side in sides:
            again(*side)
        found = [[again(*side) for side in sides] for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(column) for column in zip(*found))
    print(f"{ours:.2f} s and {theirs:.2f} s: {statistics.median(a / b for a, b in found):.2f} ×")


if __name__ == "__main__":
    main()
