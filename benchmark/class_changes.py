"""Per-class IoU of two rows: which classes a checkpoint gained and lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from benchmark.results import Row


@dataclass(frozen=True)
class ClassChange:
    """IoU of one class in percent, its change, and the change's 95 % interval and unadjusted p."""

    name: str
    a: float
    b: float
    delta: float
    ci95: tuple[float, float]
    p: float


def class_names(row: Row, count: int) -> list[str]:
    """The class names a row carries in its details (in the order of its columns), else "class 0" …"""
    details = row.data.get("details") or {}
    names = list(details.get("class_names") or details.get("per_class_iou") or ())
    return [str(n) for n in names] if len(names) == count else [f"class {c}" for c in range(count)]


def class_iou(row: Row, metric: str) -> np.ndarray | None:
    """[C] IoU in percent, NaN for a class that never occurs; None for metrics other than mIoU."""
    statistic = row.statistic(metric)
    if statistic.kind != "miou":
        return None
    inter, union = (np.asarray(row.samples[c], dtype=np.float64).sum(0) for c in statistic.columns)
    return np.where(union > 0, 100.0 * inter / np.where(union > 0, union, 1.0), np.nan)


def class_changes(a: Row, b: Row, metric: str) -> tuple[ClassChange, ...]:
    """Every class that occurs in both, largest loss first; empty for metrics other than mIoU.

    The standard error is the linearised one of a ratio of sums, paired over images (clusters where the metric has
    them).
    """
    iou_a, iou_b = class_iou(a, metric), class_iou(b, metric)
    if iou_a is None or iou_b is None:
        return ()
    moves = _ratio_influence(b, metric) - _ratio_influence(a, metric)  # [N, C]
    cluster = a.statistic(metric).cluster
    if cluster is not None:
        _, member = np.unique(a.samples[cluster], return_inverse=True)
        moves = np.stack([np.bincount(member.reshape(-1), weights=column) for column in moves.T], 1)
    error = np.sqrt((moves**2).sum(0))
    names = class_names(a, len(iou_a))
    found = [
        _change(names[c], iou_a[c], iou_b[c], error[c])
        for c in range(len(iou_a))
        if np.isfinite(iou_a[c]) and np.isfinite(iou_b[c])
    ]
    return tuple(sorted(found, key=lambda change: change.delta))


def _ratio_influence(row: Row, metric: str) -> np.ndarray:
    inter, union = (np.asarray(row.samples[c], dtype=np.float64) for c in row.statistic(metric).columns)
    total = np.maximum(union.sum(0), 1.0)
    shares: np.ndarray = 100.0 * (inter - union * (inter.sum(0) / total)) / total
    return shares


def _change(name: str, a: float, b: float, error: float) -> ClassChange:
    delta = float(b - a)
    p = float(2 * ndtr(-abs(delta) / error)) if error > 0 else float(delta == 0)
    return ClassChange(name, float(a), float(b), delta, (delta - 1.96 * error, delta + 1.96 * error), p)
