"""Class areas of one 512 × 688 mask of 150 classes over one bare count of (target, prediction) pairs.

`python perf/confusion.py`: medians of processor milliseconds, in turn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmark.metrics.segmentation import confusion_areas

CLASSES, HEIGHT, WIDTH, ROUNDS = 150, 512, 688, 40


def milliseconds(call: Callable[[], object]) -> float:
    """Of processor time."""
    began = time.process_time_ns()
    call()
    return (time.process_time_ns() - began) / 1e6


def main() -> None:
    """Print both sides and their ratio."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, CLASSES, (HEIGHT // 32, WIDTH // 32 + 1))
    target = np.repeat(np.repeat(blocks, 32, 0), 32, 1)[:, :WIDTH].astype(np.uint8)
    guess = np.where(rng.random(target.shape) < 0.7, target, rng.integers(0, CLASSES, target.shape))
    target[rng.random(target.shape) < 0.05] = 255

    def bare() -> np.ndarray:
        kept = target != 255
        return np.bincount(target[kept].astype(np.int64) * CLASSES + guess[kept], minlength=CLASSES * CLASSES)

    times = np.array(
        [(milliseconds(bare), milliseconds(lambda: confusion_areas(guess, target, CLASSES))) for _ in range(ROUNDS)]
    )
    counted, ours = np.median(times, axis=0)
    print(f"bare count {counted:.2f} ms, confusion_areas {ours:.2f} ms: {np.median(times[:, 1] / times[:, 0]):.2f} ×")


if __name__ == "__main__":
    main()
