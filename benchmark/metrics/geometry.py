"""Depth and surface normals: per-image error sums; both ways of averaging RMSE follow from them.

Published RMSE is averaged per image by some (DINOv2, Probe3D) and pooled over pixels by others; both are kept.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from benchmark.errors import DataError, EncoderError
from benchmark.system.late import torch

Map: TypeAlias = "np.ndarray | torch.Tensor"
ANGLE_BIN = 0.1  # degrees; the pooled median is exact to this, and finer by interpolation
ANGLE_BINS = 1800
THRESHOLDS = (11.25, 22.5, 30.0)  # degrees, the field's three


def depth_errors(
    pred: Map, target: Map, min_depth: float = 1e-3, max_depth: float = math.inf, clamp: bool = False
) -> dict[str, float]:
    """One image's row for `pred` and `target` [H, W] in metres, over pixels with min_depth < target < max_depth.

    sse, n, abs_rel_sum, d1_hits (δ < 1.25), d2_hits (1.25²), d3_hits (1.25³) are sums; rmse, abs_rel and d1 are this
    image's own values, NaN (left out of means) where it has no valid pixel. A prediction ≤ 0 hits no δ. `clamp` limits
    predictions to [min_depth, max_depth] first. Raises DataError when sizes differ, EncoderError for a prediction
    that is not finite on a valid pixel: such a pixel must never become a score.
    """
    guess, truth = torch.as_tensor(pred).double(), torch.as_tensor(target).double()
    truth = truth.to(guess.device)
    if guess.shape != truth.shape:
        raise DataError(f"depth prediction is {tuple(guess.shape)} but its target is {tuple(truth.shape)}")
    valid = torch.isfinite(truth) & (truth > min_depth) & (truth < max_depth)
    guess, truth = guess[valid], truth[valid]
    _require_finite(guess, "depth")
    if clamp:
        guess = guess.clamp(min_depth, max_depth)
    error = guess - truth
    ratio = torch.where(guess > 0, torch.maximum(guess / truth, truth / guess), torch.inf)
    n = guess.numel()
    sse, abs_rel = float((error**2).sum()), float((error.abs() / truth).sum())
    hits = [int((ratio < 1.25**power).sum()) for power in (1, 2, 3)]
    return {
        "sse": sse,
        "n": float(n),
        "abs_rel_sum": abs_rel,
        "d1_hits": float(hits[0]),
        "d2_hits": float(hits[1]),
        "d3_hits": float(hits[2]),
        "rmse": math.sqrt(sse / n) if n else math.nan,
        "abs_rel": abs_rel / n if n else math.nan,
        "d1": hits[0] / n if n else math.nan,
    }


def has_depth(target: np.ndarray, min_depth: float, max_depth: float) -> np.ndarray:
    """Bool of the target's shape: which pixels `depth_errors` counts."""
    return np.asarray(np.isfinite(target) & (target > min_depth) & (target < max_depth))


def has_normal(target: np.ndarray) -> np.ndarray:
    """Bool [...] of vectors [..., 3]: which pixels `normal_errors` counts."""
    return np.asarray(np.isfinite(target).all(-1) & (target != 0).any(-1))


def scale_and_shift(pred: np.ndarray, target: np.ndarray, min_depth: float, max_depth: float) -> np.ndarray:
    """a·pred + b with the least squared error over pixels with min_depth < target < max_depth (Probe3D's "SI").

    A prediction that does not vary there, or a picture with fewer than two such pixels, is only shifted.
    """
    valid = has_depth(target, min_depth, max_depth)
    if not valid.any():
        return pred
    x, y = pred[valid].astype(np.float64), target[valid].astype(np.float64)
    spread = ((x - x.mean()) ** 2).sum()
    scale = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else 1.0
    aligned: np.ndarray = scale * (pred - x.mean()) + y.mean()
    return aligned


def angular_errors(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Angles in degrees, float64 [...], between vectors [..., 3] of any length.

    By atan2(|a × b|, a · b): the arc cosine loses half its digits near 0° and 180°. A zero vector has no direction and
    is 90° from everything.
    """
    a, b = pred.double(), target.double()
    cross = torch.linalg.cross(a, b, dim=-1).norm(dim=-1)
    dot = (a * b).sum(-1)
    angle = torch.rad2deg(torch.atan2(cross, dot))
    no_direction = (a.abs().amax(-1) == 0) | (b.abs().amax(-1) == 0)
    return torch.where(no_direction, 90.0, angle)


def normal_errors(pred: Map, target: Map, zeros_count: bool = False) -> dict[str, float | np.ndarray]:
    """One image's row for `pred` and `target` [H, W, 3]; pixels whose target is zero or not finite are left out.

    `zeros_count`: only those that are not finite are; a zero vector is 90° from everything (Probe3D's metrics.py).
    Sums: sum_sq_angle (degrees²), sum_angle, n, and hits_11, hits_22, hits_30 (angle < 11.25°, 22.5°, 30°); `angles`
    [1800] int64 is the histogram in 0.1° bins; angular_rmse, mean_angle and median_angle are this image's own values,
    NaN without a valid pixel. Raises DataError when sizes differ, EncoderError for a non-finite prediction.
    """
    guess, truth = torch.as_tensor(pred), torch.as_tensor(target)
    truth = truth.to(guess.device)
    if guess.shape != truth.shape or guess.shape[-1] != 3:
        raise DataError(f"normals are {tuple(guess.shape)} against {tuple(truth.shape)}, expected twice [H, W, 3]")
    valid = torch.isfinite(truth).all(-1) & ((truth != 0).any(-1) | zeros_count)
    guess, truth = guess[valid], truth[valid]
    _require_finite(guess, "normal")
    angle = angular_errors(guess, truth)
    n = angle.numel()
    bins = (angle / ANGLE_BIN).long().clamp(max=ANGLE_BINS - 1)
    total, squares = float(angle.sum()), float((angle**2).sum())
    row: dict[str, float | np.ndarray] = {
        "sum_sq_angle": squares,
        "sum_angle": total,
        "n": float(n),
        "angles": torch.bincount(bins, minlength=ANGLE_BINS).cpu().numpy(),
        "angular_rmse": math.sqrt(squares / n) if n else math.nan,
        "mean_angle": total / n if n else math.nan,
        "median_angle": float(np.median(angle.cpu().numpy())) if n else math.nan,
    }
    for threshold in THRESHOLDS:
        row[f"hits_{int(threshold)}"] = float((angle < threshold).sum())
    return row


def _require_finite(values: torch.Tensor, what: str) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise EncoderError(
            f"{bad} of {values.numel()} valid {what} predictions are NaN or infinite: "
            "check the encoder's features; such pixels are never scored"
        )
