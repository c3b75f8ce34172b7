"""Where each row of a board stands: rank, whether it ties with the best, how far its rank could move.

All from the rows' influences on the same samples, so correlated rows are compared as pairs: a tie is a difference from
the best that is not significant at 5 % after Holm's correction; the spread of ranks comes from draws of the joint
(normal) sampling distribution of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from benchmark.influence import paired_error
from benchmark.stats import holm

ALPHA = 0.05
DRAWS = 1000
FEWEST_SAMPLES = 10
JOINT_ROWS = 150  # past this the draws are independent: the covariance would cost more than it tells


@dataclass(frozen=True)
class Standing:
    """Rank 1 is the best value; `delta` and `p` compare with the best."""

    rank: int = 0
    tied: bool = False
    delta: float = 0.0
    p: float = 1.0  # Holm-adjusted
    rank_sd: float = 0.0


def standings(values: np.ndarray, moves: np.ndarray, higher_is_better: bool) -> list[Standing]:
    """One Standing for each of M rows: values [M], influences [M, N] on the same samples in the same order."""
    good = values if higher_is_better else -values
    best = int(np.argmax(good))
    ranks = 1 + (good[:, None] < good[None, :]).sum(1)
    p = np.array([_p(values[i] - values[best], moves[best], moves[i]) for i in range(len(values))])
    p[best] = np.nan  # not compared with itself
    p = np.nan_to_num(holm(p), nan=1.0)
    few = moves.shape[1] < FEWEST_SAMPLES
    spread = rank_spread(good, moves)
    return [
        Standing(int(ranks[i]), bool(tied), float(values[i] - values[best]), float(p[i]), float(spread[i]))
        for i, tied in enumerate((p >= ALPHA) | few)
    ]


def _p(delta: float, a: np.ndarray, b: np.ndarray) -> float:
    error = paired_error(a, b)
    if error == 0:
        return 1.0 if delta == 0 else 0.0
    return float(2 * ndtr(-abs(delta) / error))


def rank_spread(good: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """[M] standard deviation of each row's rank over draws of the joint sampling distribution."""
    rows = len(good)
    if rows < 2:
        return np.zeros(rows)
    normal = np.random.default_rng(0).standard_normal((DRAWS if rows <= JOINT_ROWS else DRAWS // 10, rows))
    if rows <= JOINT_ROWS:
        covariance = moves @ moves.T
        jitter = 1e-9 * max(float(np.trace(covariance)) / rows, 1e-300)
        draws = good + normal @ np.linalg.cholesky(covariance + jitter * np.eye(rows)).T
    else:
        draws = good + normal * np.sqrt((moves**2).sum(1))
    order = np.argsort(np.argsort(-draws, axis=1), axis=1)
    spread: np.ndarray = order.std(0)
    return spread
