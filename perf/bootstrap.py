"""Seconds for 10,000 resamples of mIoU over 2,000 images × 150 classes, as an interval and as a paired test.

python perf/bootstrap.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmark.statistics.bootstrap import interval
from benchmark.statistics.paired import paired
from benchmark.statistics.statistic import Statistic

IMAGES, CLASSES, RESAMPLES = 2_000, 150, 10_000


def table(seed: int) -> dict[str, np.ndarray]:
    """Areas of images that hold a few classes each, as ADE20K's do."""
    rng = np.random.default_rng(seed)
    union = rng.integers(0, 20_000, (IMAGES, CLASSES)) * (rng.random((IMAGES, CLASSES)) < 0.06)
    return {"intersection": (union * rng.random((IMAGES, CLASSES))).astype(np.int64), "union": union}


def main() -> None:
    """Print both times, best of three."""
    statistic = Statistic("miou", ("intersection", "union"), scale=100.0)
    a, b = table(0), table(0)
    b["intersection"] = (b["intersection"] * 0.99).astype(np.int64)
    calls: dict[str, Callable[[], object]] = {
        "interval": lambda: interval(a, statistic, RESAMPLES),
        "paired": lambda: paired(a, b, statistic, RESAMPLES),
    }
    for name, call in calls.items():
        times = []
        for _ in range(3):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(f"{name}: {min(times):.2f} s for {RESAMPLES:,} resamples of mIoU over {IMAGES:,} × {CLASSES}")


if __name__ == "__main__":
    main()
