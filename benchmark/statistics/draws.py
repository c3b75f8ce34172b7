"""Random weights for resampling, the same for a seed on every machine and numpy version.

They come from PCG64's raw 64-bit output, which numpy keeps stable, and not from `Generator` methods, which it does not.
Whatever the block size, resample r of a seed has the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK_BYTES = 64 << 20
DRAWN_BYTES = 1 << 20  # of a block, at a time: the steps to a count take four times what is counted


def bootstrap_counts(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks [r, n] float64: how often each sample is drawn in n draws with replacement."""
    source = _source(seed, 1)
    half = (n + 1) // 2  # one 64-bit word is two draws
    for rows in _blocks(n, resamples):
        counts = np.empty((rows, n))
        done = 0
        for part in _blocks(n, rows, DRAWN_BYTES):
            words = source.random_raw(part * half).astype("<u8").view("<u4").reshape(part, 2 * half)[:, :n]
            # Lemire's multiply and shift: uniform to n / 2³², far below what any resampling can show.
            drawn = ((words.astype(np.uint64) * np.uint64(n)) >> np.uint64(32)).astype(np.int64)
            drawn += np.arange(part, dtype=np.int64)[:, None] * n
            counts[done : done + part] = np.bincount(drawn.ravel(), minlength=part * n).reshape(part, n)
            done += part
        yield counts


def swaps(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks [r, n] float64 of fair 0/1: which samples have their two models exchanged."""
    source = _source(seed, 2)
    words = (n + 63) // 64
    for rows in _blocks(n, resamples):
        raw = source.random_raw(rows * words).astype("<u8").view(np.uint8).reshape(rows, 8 * words)
        yield np.unpackbits(raw, axis=1, count=n, bitorder="little").astype(np.float64)


def _source(seed: int, purpose: int) -> np.random.PCG64:
    """A stream of its own, unrelated to whatever else was drawn from the same seed."""
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0xD15E, purpose)))


def _blocks(n: int, resamples: int, size: int | None = None) -> Iterator[int]:
    step = max(1, (size or BLOCK_BYTES) // (8 * max(n, 1)))
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
