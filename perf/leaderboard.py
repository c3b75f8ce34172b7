"""Time and memory of the leaderboard of 20 models × 38 units with full-size samples.

    python perf/leaderboard.py [FOLDER]

The 38 units are the nine tasks over datasets of the sizes of the paper suite (2,000 images × 150 classes, 25,000
captions, 50,000 images …). The rows are simulated and written first; only `build` is timed. Budget: 20 s, 1 GB.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from rows import row_data, save_json  # noqa: E402

from benchmark.contracts import Measurement, Outcome  # noqa: E402
from benchmark.leaderboard import build  # noqa: E402
from benchmark.rows.row import row_folder  # noqa: E402
from benchmark.statistics.statistic import Statistic  # noqa: E402

MODELS = 20
SEGMENTATION = {
    "ade20k": (2000, 150),
    "ade150": (2000, 150),
    "pc59": (5104, 59),
    "pc60": (5104, 60),
    "voc21": (1449, 21),
}
SIZES = (654, 555, 1000, 5000, 5000, 25_000, 25_000, 50_000, 50_000, 9_979, 8_131, 60_502, 14_218, 1_003, 1_129, 10_931)
UNITS = 38
BUDGET_S, BUDGET_MB = 20.0, 1000.0


def segmentation(n: int, classes: int, rng: np.random.Generator) -> Outcome:
    """Per-image areas of a segmentation of realistic size; most classes are absent from most images."""
    area = np.where(rng.random((n, classes)) < 8 / classes, rng.integers(100, 20_000, (n, classes)), 0)
    samples = {"id": ids(n), "intersection": (area * rng.uniform(0.3, 0.7)).astype(np.int64), "union": area}
    statistic = Statistic("miou", ("intersection", "union"), scale=100.0)
    names = {"class_names": [f"class {i}" for i in range(classes)]}
    return Outcome(samples, [Measurement("mIoU", statistic, True, "%")], "mIoU", n, names)


def hits(n: int, rng: np.random.Generator) -> Outcome:
    """One hit for each sample."""
    samples = {"id": ids(n), "hit": (rng.random(n) < rng.uniform(0.4, 0.8)).astype(float)}
    return Outcome(samples, [Measurement("R@1", Statistic("mean", ("hit",), scale=100.0), True, "%")], "R@1", n)


def ids(n: int) -> np.ndarray:
    """Sample ids as a dataset on disk would give them."""
    return np.array([f"validation/{i:08d}.jpg" for i in range(n)])


def write(results: Path) -> None:
    """Simulates every row."""
    for number in range(UNITS):
        for model in range(MODELS):
            rng = np.random.default_rng([number, model])
            if number < 2 * len(SEGMENTATION):
                name, size = list(SEGMENTATION.items())[number % len(SEGMENTATION)]
                outcome, task = segmentation(*size, rng), "linear_segmentation"
            else:
                name, task = f"set{number}", "classification"
                outcome = hits(SIZES[number % len(SIZES)], rng)
            name = f"{name}-{number}"
            data = row_data(f"model-{model:02d}", task, outcome, name)
            folder = row_folder(results, f"model-{model:02d}", task, name, "fast", data["protocol"]["hash"])
            save_json(folder, data, outcome.samples)


def main() -> int:
    """Prints the figures; exit code 1 past the budget."""
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        if not any(results.glob("model-*")):
            write(results)
            if len(sys.argv) > 1:
                print(f"{results}: written; run again to measure")
                return 0
        started, worked = time.perf_counter(), time.process_time()
        built = build(results)
        seconds, busy = time.perf_counter() - started, time.process_time() - worked
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = built.paths[0].stat().st_size / 1e6
    print(f"{built.rows} rows, {built.boards} boards: {seconds:.1f} s (budget {BUDGET_S:.0f}), ", end="")
    print(f"of that {busy:.1f} s of processor time; ", end="")
    print(f"peak {memory:.0f} MB (budget {BUDGET_MB:.0f}), page {size:.1f} MB")
    return int(seconds > BUDGET_S or memory > BUDGET_MB)


if __name__ == "__main__":
    sys.exit(main())
