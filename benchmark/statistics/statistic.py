"""A metric as data: which per-sample columns it sums, and how the sums become its value.

Every metric of the suite is a function of column sums over samples. That one fact gives intervals and paired tests
without a second run: resampling is a matrix product (weights [R, N] times columns [N, F]), and the row on disk is
enough to do it, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

Kind = Literal["mean", "ratio", "root_ratio", "miou", "group_mean", "quantile"]


@dataclass(frozen=True)
class Statistic:
    """How a metric is computed from the columns of `samples.parquet`.

    mean        Σ a / N                              columns (a,)
    ratio       Σ a / Σ b                            columns (a, b)
    root_ratio  √(Σ a / Σ b)                         columns (a, b): pooled RMSE from squared error and pixel count
    miou        mean over classes with Σ union > 0 of Σ intersection / Σ union; columns (intersection, union) hold [C]
                lists; `classes` restricts the mean to these indices
    group_mean  mean over the values g of `group` of (Σ_{i in g} a / |g|)   columns (a,)
    quantile    `level`-quantile of a pooled histogram whose bins are `width` wide; column (counts,) holds [bins] lists

    NaN entries of a `mean` or `group_mean` column leave their sample out. The result is multiplied by `scale`.
    `cluster` names a column whose equal values are resampled together (images of one scene, captions of one image).
    """

    kind: Kind
    columns: tuple[str, ...]
    scale: float = 1.0
    group: str | None = None
    cluster: str | None = None
    classes: tuple[int, ...] | None = None
    level: float = 0.5
    width: float = 1.0

    def matrix(self, samples: Mapping[str, Any]) -> np.ndarray:
        """[N, F] float64: the columns whose weighted sums decide the value."""
        cols = [_stack(samples[c]) for c in self.columns]
        if self.kind == "mean":
            ok = np.isfinite(cols[0])
            return np.stack([np.where(ok, cols[0], 0.0), ok.astype(float)], 1)
        if self.kind == "group_mean":
            assert self.group is not None
            groups = np.asarray(samples[self.group])
            names = np.unique(groups)
            member = (groups[:, None] == names[None]) & np.isfinite(cols[0])[:, None]  # [N, G]
            return np.concatenate([np.where(member, cols[0][:, None], 0.0), member.astype(float)], 1)
        if self.kind == "miou":
            keep = slice(None) if self.classes is None else list(self.classes)
            return np.concatenate([cols[0][:, keep], cols[1][:, keep]], 1)
        if self.kind == "quantile":
            return cols[0]
        return np.stack(cols, 1)

    def value(self, sums: np.ndarray) -> np.ndarray:
        """[R] values for [R, F] column sums; NaN where nothing was counted."""
        sums = np.atleast_2d(np.asarray(sums, dtype=np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind in ("mean", "ratio"):
                out = sums[:, 0] / sums[:, 1]
            elif self.kind == "root_ratio":
                out = np.sqrt(sums[:, 0] / sums[:, 1])
            elif self.kind == "quantile":
                out = _quantile(sums, self.level, self.width)
            else:  # miou and group_mean: a mean of ratios over what is present
                top, bottom = np.split(sums, 2, axis=1)
                present = bottom > 0
                ratio = np.where(present, top / np.where(present, bottom, 1.0), 0.0)
                out = ratio.sum(1) / present.sum(1)
        scaled: np.ndarray = self.scale * out
        return scaled

    def of(self, samples: Mapping[str, Any]) -> float:
        """The metric's value on all samples."""
        return float(self.value(self.matrix(samples).sum(0))[0])


def parse_statistic(data: Mapping[str, Any]) -> Statistic:
    """The Statistic a row stores as JSON. Raises TypeError or ValueError for one that is none."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    found = Statistic(**fields)
    if found.kind not in get_args(Kind) or not found.columns or not all(isinstance(c, str) for c in found.columns):
        raise ValueError(f"kind {found.kind!r} of columns {found.columns!r}")
    return found


def _stack(column: Any) -> np.ndarray:
    """A column as float64; list columns (as parquet gives them) become [N, C]."""
    array = np.asarray(column)
    if array.dtype == object:
        array = np.stack([np.asarray(row) for row in array]) if len(array) else np.zeros((0, 0))
    return array.astype(np.float64)


def _quantile(sums: np.ndarray, level: float, width: float) -> np.ndarray:
    """Linear interpolation inside the bin where the cumulative count crosses level × total."""
    total = sums.sum(1)
    cumulative = np.cumsum(sums, 1)
    goal = level * total
    k = np.minimum((cumulative < goal[:, None]).sum(1), sums.shape[1] - 1)
    rows = np.arange(len(sums))
    before = np.where(k > 0, cumulative[rows, np.maximum(k - 1, 0)], 0.0)
    inside = np.where(sums[rows, k] > 0, (goal - before) / np.where(sums[rows, k] > 0, sums[rows, k], 1.0), 0.0)
    return np.where(total > 0, (k + inside) * width, np.nan)
