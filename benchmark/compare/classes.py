"""Per-class IoU of two rows: which classes a checkpoint gained and lost."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from benchmark.rows.row import Row
from benchmark.statistics.bootstrap import clustered
from benchmark.statistics.multiple import holm
from benchmark.system.escaping import printable

FEWEST_IMAGES = 5  # a class in fewer (clusters, where the metric has them) has no error that could be estimated


@dataclass(frozen=True)
class ClassChange:
    """IoU of one class in percent, its change, the change's 95 % interval, and its p, adjusted by Holm over classes.

    Interval and p are NaN for a class in fewer than FEWEST_IMAGES images.
    """

    name: str
    a: float
    b: float
    delta: float
    ci95: tuple[float, float]
    p: float
    images: int  # images in which either model or the truth has the class; clusters where the metric has them

    @property
    def too_few(self) -> bool:
        return self.images < FEWEST_IMAGES


def class_names(row: Row, count: int) -> list[str]:
    """The class names a row carries in its details (in the order of its columns), else "class 0" …"""
    details = row.data.details
    names = list(details.get("class_names") or details.get("per_class_iou") or ())
    return [printable(str(n)) for n in names] if len(names) == count else [f"class {c}" for c in range(count)]


def class_iou(row: Row, metric: str) -> np.ndarray | None:
    """[C] IoU in percent, NaN for a class that never occurs; None for metrics other than mIoU."""
    statistic = row.statistic(metric)
    if statistic.kind != "miou":
        return None
    inter, union = (np.asarray(row.samples[c], dtype=np.float64).sum(0) for c in statistic.columns)
    return np.where(union > 0, 100.0 * inter / np.where(union > 0, union, 1.0), np.nan)


def class_changes(a: Row, b: Row, metric: str) -> tuple[ClassChange, ...]:
    """Every class that occurs in both, largest loss first and those in too few images last; empty for metrics other
    than mIoU.

    The standard error is the linearised one of a ratio of sums, paired over images (clusters where the metric has
    them). It is exactly 0 for a class in one image, whatever the truth, and far too small for one in two or three.
    """
    iou_a, iou_b = class_iou(a, metric), class_iou(b, metric)
    if iou_a is None or iou_b is None:
        return ()
    moves = _ratio_influence(b, metric) - _ratio_influence(a, metric)  # [N, C]
    seen = (_union(a, metric) + _union(b, metric)) > 0  # [N, C]
    moves, seen = (clustered(values, a.statistic(metric), a.samples) for values in (moves, seen.astype(float)))
    images = (seen > 0).sum(0)
    error = np.where(images < FEWEST_IMAGES, np.nan, np.sqrt((moves**2).sum(0)))
    names = class_names(a, len(iou_a))
    found = [
        _change(names[c], float(iou_a[c]), float(iou_b[c]), float(error[c]), int(images[c]))
        for c in range(len(iou_a))
        if np.isfinite(iou_a[c]) and np.isfinite(iou_b[c])
    ]
    adjusted = [replace(change, p=float(p)) for change, p in zip(found, holm([c.p for c in found]))]
    return tuple(sorted(adjusted, key=lambda change: (change.too_few, change.delta)))


def _union(row: Row, metric: str) -> np.ndarray:
    return np.asarray(row.samples[row.statistic(metric).columns[1]], dtype=np.float64)


def _ratio_influence(row: Row, metric: str) -> np.ndarray:
    inter, union = (np.asarray(row.samples[c], dtype=np.float64) for c in row.statistic(metric).columns)
    total = np.maximum(union.sum(0), 1.0)
    shares: np.ndarray = 100.0 * (inter - union * (inter.sum(0) / total)) / total
    return shares


def _change(name: str, a: float, b: float, error: float, images: int) -> ClassChange:
    """With the p of this class alone."""
    delta = b - a
    p = float(delta == 0) if error == 0 else float(2 * ndtr(-abs(delta) / error))
    interval = (delta - 1.96 * error, delta + 1.96 * error)
    return ClassChange(name=name, a=a, b=b, delta=delta, ci95=interval, p=p, images=images)
