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


def minimum_detectable_effect(error: float, level: float = 0.05, power: float = 0.8, tests: int = 1) -> float:
    """The true difference that a two-sided test at `level` finds with probability `power`, when its standard error
    is `error` and it is one of `tests` that are adjusted together.

    (z₁₋α/₂ₘ + z_power) · error, in the unit of `error`: Holm's first step asks for α/m, and a lone difference in a
    table where nothing else is found must pass it.
    """
    return float((ndtri(1 - level / (2 * max(tests, 1))) + ndtri(power)) * error)
