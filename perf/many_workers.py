"""A whole `bench run` on Ray workers of one core each: one worker, then two, and whether their rows are the same.

    python perf/many_workers.py                              # four embedded encoders, nine tasks, nothing stored
    python perf/many_workers.py --limit 200 --scenes FOLDER  # fewer samples of pictures that are rendered already

Wall times of a busy machine say little: the share of the processors that nobody else took stands beside each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from same_rows import OF_A_RUN

from benchmark.rows.row import read_all

MODELS = ("tipsv2-mini", "tips-mini", "clip-mini", "random-vit")


def jiffies() -> tuple[int, int]:
    """Of all processors since the machine started: spent on anything, and idle."""
    counts = list(map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9]))
    return sum(counts), counts[3] + counts[4]


def measured(workers: int, place: Path, words: argparse.Namespace) -> float:
    """Seconds of the whole command; its rows are in `place`."""
    cache = place / "cache"
    cache.mkdir(parents=True)
    if words.scenes:
        (cache / "scenes").symlink_to(words.scenes.resolve())
    command = [sys.executable, "-m", "benchmark.cli", "run", "--suite", "scenes", "--results", str(place / "rows")]
    command += [w for name in MODELS for w in ("--model", name)] + ["--ray", "local", "--gpus", str(workers)]
    command += ["--limit", str(words.limit)] if words.limit else []
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    before, began = jiffies(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, jiffies()
    idle = (after[1] - before[1]) / (after[0] - before[0])
    rows = [row.data for row in read_all(place / "rows")[0]]
    busy = sum(row.timing.total_s for row in rows)
    print(
        f"{workers} workers: {seconds:.1f} s for {len(rows)} rows, of which workers made rows for {busy:.1f} s; "
        f"processors idle {100 * idle:.0f} %, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return seconds


def main() -> int:
    """1 where a row differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--scenes", type=Path)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = {count: Path(folder) / str(count) for count in (1, 2)}
        one, two = (measured(count, place, words) for count, place in places.items())
        found = [
            {(r.model, r.unit): {k: v for k, v in r.data.json().items() if k not in OF_A_RUN} for r in rows}
            for rows, _ in (read_all(place / "rows") for place in places.values())
        ]
    wrong = sum(found[0].get(key) != found[1].get(key) for key in {*found[0], *found[1]})
    print(f"two workers take {two / one:.2f} of the time of one; {len(found[0])} rows, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
