"""Deterministic mini-batches and the cosine schedule that the iterative heads share."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np


def batches(rows: np.ndarray, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """`steps` arrays of at most `batch` row numbers: shuffled epochs over `rows`, each row once per epoch.

    Row numbers of a batch are sorted, so that stored features are read in order.
    """
    rng = np.random.default_rng(seed)
    done = 0
    while done < steps:
        order = rng.permutation(rows)
        for start in range(0, len(order), batch):
            if done == steps:
                return
            done += 1
            yield np.sort(order[start : start + batch])


def cosine(step: int, steps: int, warmup: int = 0) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine from 1 to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
