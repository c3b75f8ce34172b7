"""Where each row of a board stands: rank, whether it ties with the best, how far its rank could move.

All from the rows' influences on the same samples, so correlated rows are compared as pairs. A tie is a difference from
the best that is not significant at 5 % over all pairs of the board: which row is the best is known only after looking,
so a p-value adjusted over its own differences alone would call equal rows worse far too often. The largest |t| of all
pairs and the spread of ranks come from draws of the joint (normal) sampling distribution of all rows; the single-step
adjustment by that maximum is Hothorn, Bretz and Westfall 2008, "Simultaneous inference in general parametric models".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from benchmark.statistics.jackknife import paired_error

ALPHA = 0.05
DRAWS = 4000  # at 5 % a share of these draws has a standard error of 0.3 points
FEWEST_SAMPLES = 10  # samples, or clusters where the metric has them
JOINT_ROWS = 150  # past this ranks are drawn independently and p-values adjusted by Bonferroni: all pairs cost too much
SMALL = 100  # samples or clusters below which one draw of Student's denominator for all pairs is too kind
SAME = 1e-12  # rows whose difference varies by less than this share of their own variance are one and the same


@dataclass(frozen=True)
class Standing:
    """Rank 1 is the best value; `delta` and `p` compare with the best."""

    rank: int = 0
    tied: bool = False
    delta: float = 0.0
    p: float = 1.0  # adjusted over all pairs of the board
    rank_sd: float = 0.0


def standings(
    values: np.ndarray, moves: np.ndarray, higher_is_better: bool, independent: int | None = None
) -> list[Standing]:
    """One Standing for each of M rows: values [M], influences [M, N] on the same samples in the same order.

    `independent` is the number of clusters where the metric has them (default: N).
    """
    good = values if higher_is_better else -values
    best = int(np.argmax(good))
    ranks = 1 + (good[:, None] < good[None, :]).sum(1)
    units = moves.shape[1] if independent is None else independent
    draws = joint_draws(moves)
    p = adjusted_p(values - values[best], best, moves, draws, units)
    few = units < FEWEST_SAMPLES
    spread = rank_spread(good, draws)
    return [
        Standing(
            rank=int(ranks[i]),
            tied=bool(tied),
            delta=float(values[i] - values[best]),
            p=float(p[i]),
            rank_sd=float(spread[i]),
        )
        for i, tied in enumerate((p >= ALPHA) | few)
    ]


def joint_draws(moves: np.ndarray) -> np.ndarray:
    """[R, M] draws of the errors of M values; past JOINT_ROWS rows fewer and independent ones."""
    rows = len(moves)
    normal = np.random.default_rng(0).standard_normal((DRAWS if rows <= JOINT_ROWS else DRAWS // 40, rows))
    if rows > JOINT_ROWS:
        return np.asarray(normal * np.sqrt((moves**2).sum(1)))
    size, axes = np.linalg.eigh(moves @ moves.T)
    return np.asarray(normal @ (axes * np.sqrt(np.maximum(size, 0.0))).T)


def adjusted_p(deltas: np.ndarray, best: int, moves: np.ndarray, draws: np.ndarray, units: int) -> np.ndarray:
    """[M] p of each row's difference from row `best`: how often the largest |t| of any pair is as large by chance."""
    rows = len(moves)
    error = np.array([paired_error(moves[best], m) for m in moves])
    t = np.where(error > 0, np.abs(deltas) / np.where(error > 0, error, 1.0), np.where(deltas == 0, 0.0, np.inf))
    if rows > JOINT_ROWS:
        p = np.minimum(1.0, rows * (rows - 1) * ndtr(-t))
    else:
        largest = np.sort(largest_t(moves, draws, units))
        p = (1 + len(largest) - np.searchsorted(largest, t)) / (1 + len(largest))
    p[best] = 1.0
    return np.asarray(p)


def largest_t(moves: np.ndarray, draws: np.ndarray, units: int) -> np.ndarray:
    """[R] largest |t| over all pairs of rows in each draw, with the tails of Student's t for `units` samples.

    Every pair has an error of its own, estimated from those samples (and, as they are, too small by √((n − 1) / n)). Of
    few samples the most mistaken of many errors makes the largest |t|: with 12 samples and 20 equal rows, one
    denominator for all pairs would call 20 boards of 100 decided.
    """
    variance = moves @ moves.T
    own = np.diag(variance)
    largest = np.zeros(len(draws))
    freedom, chance = max(units - 1, 1), np.random.default_rng(1)
    for i in range(len(moves) - 1):
        both = own[i] + own[i + 1 :]
        gap = both - 2 * variance[i, i + 1 :]
        differs = gap > SAME * both
        if differs.any():
            apart = np.abs(draws[:, i, None] - draws[:, i + 1 :][:, differs]) / np.sqrt(gap[differs])
            if units < SMALL:
                apart *= np.sqrt(units / chance.chisquare(freedom, apart.shape))
            largest = np.maximum(largest, apart.max(1))
    return largest if units < SMALL else np.asarray(largest * np.sqrt(freedom / chance.chisquare(freedom, len(draws))))


def rank_spread(good: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """[M] standard deviation of each row's rank over the draws [R, M] of the values' errors."""
    order = np.argsort(np.argsort(-(good + draws), axis=1), axis=1)
    spread: np.ndarray = order.std(0)
    return spread
