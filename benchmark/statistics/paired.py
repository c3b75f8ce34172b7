"""Is the difference between two models real? Paired tests on the same samples.

The interval of the difference is a bootstrap with the same draws for both models. The p-value is McNemar's for 0/1
columns, and otherwise a randomisation test that exchanges the two models on a random half of the samples: it holds its
level for any statistic, mIoU and medians included, where inverting a bootstrap interval does so only in large samples.
Where both models hit everything, or nothing, no resample differs: the interval is then what a share may hide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from benchmark.errors import UsageError
from benchmark.statistics.bootstrap import clustered, expanded_tails, unseen_share
from benchmark.statistics.draws import bootstrap_counts, swaps
from benchmark.statistics.statistic import Statistic
from benchmark.system.plurals import number_of


@dataclass(frozen=True)
class PairedResult:
    """`delta` is value(b) − value(a), `error` its standard error (NaN with fewer than two resamples).

    `units` is the number of samples, or clusters, that were resampled.
    """

    delta: float
    ci95: tuple[float, float]
    p: float
    method: str
    error: float
    units: int


def paired(
    samples_a: Mapping[str, Any],
    samples_b: Mapping[str, Any],
    statistic: Statistic,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedResult:
    """The difference b − a of `statistic` on two tables whose rows are the same samples in the same order.

    Two-sided p; NaN when either value is undefined. Raises UsageError when the tables do not have the same rows.
    """
    a, b = _matrices(samples_a, samples_b, statistic)
    observed = np.concatenate([statistic.value(a.sum(0)), statistic.value(b.sum(0))])
    delta = float(observed[1] - observed[0])
    if not np.isfinite(delta):
        nan = float("nan")
        return PairedResult(nan, (nan, nan), nan, "undefined", nan, len(a))
    joint = np.concatenate([a, b], 1)
    width = a.shape[1]
    deltas = np.concatenate(
        [_difference(counts @ joint, width, statistic) for counts in bootstrap_counts(len(joint), resamples, seed)]
    )
    deltas = deltas[np.isfinite(deltas)]
    low, high = np.percentile(deltas, 100 * expanded_tails(level, len(joint))) if len(deltas) else (delta, delta)
    hits = _hits(samples_a, samples_b, statistic)
    if hits is not None:
        p, method = mcnemar(*hits), "McNemar mid-p"
    else:
        p, method = _swap_test(a, b, statistic, delta, resamples, seed), "paired randomisation"
    error = float(np.std(deltas, ddof=1)) if len(deltas) > 1 else float("nan")
    if delta == 0 and (gap := unseen_share(a, statistic, float(observed[0]), level)):
        low, high, error = -gap, gap, gap / float(ndtri((1 + level) / 2))
    return PairedResult(delta, (float(low), float(high)), p, method, error, len(joint))


def mcnemar(hits_a: np.ndarray, hits_b: np.ndarray, mid_p: bool = True) -> float:
    """Two-sided McNemar p for two 0/1 vectors of the same samples, from the exact binomial law of the discordant ones.

    The mid-p variant (Fagerland et al. 2013) is the default: the plain exact test rejects far less than its level.
    """
    a, b = np.asarray(hits_a, bool), np.asarray(hits_b, bool)
    if a.shape != b.shape:
        raise UsageError(f"{a.size} and {b.size} hits: a paired test needs the same samples")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    n, least = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    exact = 2 * float(binom.cdf(least, n, 0.5))
    if mid_p:  # half the probability of the observed table on each side that counts it
        return min(1.0, exact - float(binom.pmf(least, n, 0.5))) if only_a != only_b else 1.0
    return min(1.0, exact)


def _matrices(
    samples_a: Mapping[str, Any], samples_b: Mapping[str, Any], statistic: Statistic
) -> tuple[np.ndarray, np.ndarray]:
    a, b = statistic.matrix(samples_a), statistic.matrix(samples_b)
    if a.shape != b.shape:
        raise UsageError(
            f"tables of {len(a)} and {number_of(len(b), 'sample')} cannot be paired: both rows must cover the same set"
        )
    for column in (statistic.cluster, statistic.group):
        if column is not None and not np.array_equal(np.asarray(samples_a[column]), np.asarray(samples_b[column])):
            raise UsageError(f"column '{column}' differs between the two tables: they are not the same samples")
    if len(a) == 0:
        raise UsageError("tables without samples cannot be compared")
    return clustered(a, statistic, samples_a), clustered(b, statistic, samples_b)


def _difference(sums: np.ndarray, width: int, statistic: Statistic) -> np.ndarray:
    difference: np.ndarray = statistic.value(sums[:, width:]) - statistic.value(sums[:, :width])
    return difference


def _swap_test(a: np.ndarray, b: np.ndarray, statistic: Statistic, delta: float, resamples: int, seed: int) -> float:
    """Share of exchanges, the observed labelling among them, whose |difference| is at least the observed one."""
    gap, sum_a, sum_b = b - a, a.sum(0), b.sum(0)
    if not gap.any():
        return 1.0
    limit = abs(delta) * (1 - 1e-9) - 1e-12
    as_large = 0
    for chosen in swaps(len(a), resamples, seed):
        moved = chosen @ gap
        as_large += int(np.sum(np.abs(statistic.value(sum_b - moved) - statistic.value(sum_a + moved)) >= limit))
    return (as_large + 1) / (resamples + 1)


def _hits(
    samples_a: Mapping[str, Any], samples_b: Mapping[str, Any], statistic: Statistic
) -> tuple[np.ndarray, np.ndarray] | None:
    """Both columns when they are plain 0/1 hits of independent samples, which is McNemar's case."""
    if statistic.kind != "mean" or statistic.cluster is not None:
        return None
    a, b = (np.asarray(s[statistic.columns[0]], np.float64) for s in (samples_a, samples_b))
    return (a, b) if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all() else None
