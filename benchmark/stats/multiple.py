"""Many comparisons, and comparisons too small to tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment [m]: rejecting adjusted p ≤ α keeps the chance of any false finding at α.

    NaN (no test was possible) stays NaN and is not counted.
    """
    p = np.asarray(p_values, np.float64)
    out = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return out


def minimum_detectable_effect(deltas: np.ndarray, level: float = 0.05, power: float = 0.8) -> float:
    """The true difference a two-sided test at `level` would find with probability `power`.

    (z₁₋α/₂ + z_power) times the standard error, which is the standard deviation of bootstrap differences `deltas`.
    NaN with fewer than two.
    """
    if len(deltas) < 2:
        return float("nan")
    return float((ndtri(1 - level / 2) + ndtri(power)) * np.std(deltas, ddof=1))
