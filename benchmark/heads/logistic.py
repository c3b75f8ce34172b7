"""Multinomial logistic regression, the convex linear probe: one answer for given features, whatever the seed.

Minimises  mean cross-entropy + ½ penalty ‖W‖²  on standardised features, the bias free of penalty; scikit-learn's C is
1 / (n · penalty). The penalty is chosen on held-out training rows, in one fold or several, from strong to weak with
warm starts, by the metric the head will be scored by: cross-entropy wants ten times as much as mIoU, which costs half a
point. Then the head is fitted again on all rows, with the same C, as a prior does not change with the number of rows.
A first stretch is preconditioned by the Hessian at chance, p_c(1 - p_c) · XᵀX/n, inverted by one eigendecomposition,
the rest by the Hessian's blocks where that stretch, or the penalty before, has ended (`benchmark.heads.curvature`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from benchmark.contracts import Progress
from benchmark.errors import DataError, EncoderError
from benchmark.heads.curvature import Preconditioner, block_preconditioner, fits
from benchmark.heads.lbfgs import Minimum, minimise
from benchmark.heads.rows import Rows, Scaler, fit_scaler
from benchmark.metrics.segmentation import confusion_areas, per_class_iou

Criterion = Literal["cross-entropy", "accuracy", "mIoU"]
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ABSENT = -1e4  # bias of a class without a training row: never predicted, and finite through interpolation
LOOSE = 10  # times the tolerance, for each fold, while a penalty is chosen: a decade of penalty moves mIoU far more
STRETCH = 1e-2  # tolerance of a first stretch from the classes' shares
_GRAM_ROWS = 32_768  # enough rows for a preconditioner


@dataclass(frozen=True)
class LogisticHead:
    """weight [C, D] and bias [C] float32 on raw features; `history` has one record per penalty tried."""

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    history: list[dict[str, float]] = field(default_factory=list)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[..., C] for features [..., D]."""
        return F.linear(x, self.weight.to(x.device), self.bias.to(x.device))


def fit_logistic(
    x: Any,
    y: torch.Tensor | np.ndarray,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    holdout: np.ndarray | torch.Tensor | None = None,
    device: str = "cpu",
    *,
    standardize: bool = True,
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-6,
    selection_rows: int = 65_536,
    max_iterations: int = 200,
    keep_bytes: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    criterion: Criterion = "cross-entropy",
) -> LogisticHead:
    """The head fitted on x [n, D] (tensor, array, memory map or feature reader) and y [n] class indices.

    `holdout` [n] says which rows penalties are judged on: bool, or the fold (0, 1, …) a row is held out in and -1 for
    none; whole images of the training split, never the test split. Folds are judged together, by `criterion`. It may
    be None only for a single penalty. With more than `selection_rows` rows (half of it, in several folds) the choice is
    made on that many (a random share, from `seed`); the final fit uses all, with the chosen penalty times the share of
    rows it was chosen with. Rows stay standardised in memory up to `keep_bytes` (1 GiB, or half a GPU's free memory).
    Raises EncoderError naming a non-finite row, DataError for labels out of range.
    """
    labels = _labels(y, len(x), num_classes)
    everything = np.arange(len(x))
    present = torch.unique(labels)
    compact = torch.searchsorted(present, labels)
    keep = _room(device) if keep_bytes is None else keep_bytes
    make = _Maker(x, compact, len(present), device, dtype, standardize, keep, tolerance, max_iterations)

    chosen, history = float(penalties[0]), list[dict[str, float]]()
    start: tuple[torch.Tensor, torch.Tensor] | None = None
    if len(penalties) > 1:
        if holdout is None:
            raise DataError(f"{len(penalties)} penalties but no held-out training rows to choose by: pass `holdout`")
        chosen, start, history = _choose(make, penalties, _folds(holdout), criterion, selection_rows, seed, progress)
    fit = make.problem(everything)
    best = fit.solve(chosen, None if start is None else fit.standardised(*start), tolerance)
    history.append({"penalty": chosen, "iterations": best.iterations, "train_loss": best.value, "refit": 1.0})
    if progress is not None:
        progress.advance()
    weight, bias = fit.raw(best.x)
    full_weight = torch.zeros(num_classes, weight.shape[1], dtype=torch.float64, device=weight.device)
    full_bias = torch.full((num_classes,), ABSENT, dtype=torch.float64, device=weight.device)
    full_weight[present.to(weight.device)], full_bias[present.to(weight.device)] = weight, bias
    return LogisticHead(full_weight.float().cpu(), full_bias.float().cpu(), chosen, history)


@dataclass(frozen=True)
class _Maker:
    x: Any
    labels: torch.Tensor  # [n] indices into the classes that occur
    classes: int
    device: str
    dtype: torch.dtype
    standardize: bool
    keep_bytes: int
    tolerance: float
    max_iterations: int

    def problem(self, rows: np.ndarray) -> _Problem:
        scaler = fit_scaler(self.x, rows, self.device, self.standardize)
        return _Problem(self.rows(rows, scaler), scaler, self.classes, self.max_iterations)

    def rows(self, rows: np.ndarray, scaler: Scaler) -> Rows:
        return Rows(self.x, self.labels, rows, scaler, self.device, self.dtype, self.keep_bytes)


class _Problem:
    """Loss, gradient and preconditioner over one set of rows; parameters [C, D+1] float64, bias last."""

    def __init__(self, data: Rows, scaler: Scaler, classes: int, max_iterations: int) -> None:
        self.data, self.scaler, self.classes, self.max_iterations = data, scaler, classes, max_iterations
        self.values, self.vectors = _spectrum(data)
        share = torch.bincount(data.y, minlength=classes).double().clamp(min=0.5) / len(data)
        self.prior = share.log() - share.log().mean()
        self.curvature = share * (1 - share) if classes > 1 else torch.ones_like(share)

    def solve(
        self, penalty: float, start: torch.Tensor | None, tolerance: float, precondition: Preconditioner | None = None
    ) -> Minimum:
        """From `start`; without one from the classes' shares, and then in two stretches."""
        first: Minimum | None = None
        if start is None:
            start = torch.zeros(self.classes, len(self.scaler.mean) + 1, dtype=torch.float64, device=self.prior.device)
            start[:, -1] = self.prior
            first = self._minimise(penalty, start, max(tolerance, STRETCH), self._at_chance(penalty))
            start = first.x
        rest = self._minimise(penalty, start, tolerance, precondition or self.preconditioner(penalty, start))
        return rest if first is None else replace(rest, iterations=first.iterations + rest.iterations)

    def preconditioner(self, penalty: float, at: torch.Tensor) -> Preconditioner:
        """By the curvature at those parameters, or at chance where its blocks would be too large."""
        if not fits(self.classes, len(self.scaler.mean)):
            return self._at_chance(penalty)
        return block_preconditioner(self.data, at, penalty)

    def _minimise(self, penalty: float, start: torch.Tensor, tolerance: float, by: Preconditioner) -> Minimum:
        return minimise(
            lambda p: self._objective(p, penalty),
            start,
            by,
            tolerance,
            self.max_iterations,
            noise=0.1 * torch.finfo(self.data.dtype).eps,
        )

    def raw(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [C, D] and bias [C], float64, on raw features."""
        return self.scaler.fold(parameters[:, :-1], parameters[:, -1])

    def standardised(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The parameters whose `raw` form is the given one."""
        return torch.cat([weight / self.scaler.inverse, (bias + weight @ self.scaler.mean)[:, None]], 1)

    def _objective(self, parameters: torch.Tensor, penalty: float) -> tuple[float, torch.Tensor]:
        weight, bias = parameters[:, :-1], parameters[:, -1]
        loss, grad = 0.0, torch.zeros_like(parameters)
        narrow, narrow_bias = weight.to(self.data.dtype), bias.to(self.data.dtype)
        for x, y in self.data:
            log_p = torch.log_softmax(torch.addmm(narrow_bias, x, narrow.T), 1)
            loss -= float(log_p.gather(1, y[:, None]).sum(dtype=torch.float64))
            residual = log_p.exp_()
            residual[torch.arange(len(y), device=y.device), y] -= 1
            grad[:, :-1] += residual.T @ x
            grad[:, -1] += residual.sum(0)
        n = len(self.data)
        grad /= n
        grad[:, :-1] += penalty * weight
        return loss / n + 0.5 * penalty * float((weight**2).sum()), grad

    def _at_chance(self, penalty: float) -> Preconditioner:
        floor = 1e-6 * float(self.values.max())  # directions without variance move only by the penalty
        scale = 1.0 / (self.curvature[:, None] * (self.values + floor) + penalty)
        bias_scale = 1.0 / self.curvature

        def apply(g: torch.Tensor) -> torch.Tensor:
            inner = ((g[:, :-1] @ self.vectors) * scale) @ self.vectors.T
            return torch.cat([inner, (g[:, -1] * bias_scale)[:, None]], 1)

        return apply


def _room(device: str) -> int:
    """Bytes to keep rows in: from a CPU's memory they come fast each time, to a GPU they travel."""
    return torch.cuda.mem_get_info(device)[0] // 2 if torch.device(device).type == "cuda" else 1 << 30


def _folds(holdout: np.ndarray | torch.Tensor) -> np.ndarray:
    """[n] the fold each row is held out in, -1 for none. DataError when no row or every row is in the only fold."""
    given = np.asarray(holdout)
    folds = np.where(given, 0, -1) if given.dtype == bool else given
    if folds.max(initial=-1) < 0 or (folds == folds[0]).all():
        raise DataError(f"{int((folds >= 0).sum())} of {len(folds)} rows are held out: some must be, and not all")
    return folds


class _Fold:
    """One fit on the rows outside a fold, judged on those inside."""

    def __init__(self, make: _Maker, train: np.ndarray, held: np.ndarray) -> None:
        self.problem = make.problem(train)
        self.judge = make.rows(held, self.problem.scaler)
        self.parameters: torch.Tensor | None = None

    def solve(self, penalty: float, tolerance: float, precondition: Preconditioner | None) -> Minimum:
        """From where the last penalty ended."""
        found = self.problem.solve(penalty, self.parameters, tolerance, precondition)
        self.parameters = found.x
        return found


def _choose(
    make: _Maker,
    penalties: Sequence[float],
    holdout: np.ndarray,
    criterion: Criterion,
    limit: int,
    seed: int,
    progress: Progress | None,
) -> tuple[float, tuple[torch.Tensor, torch.Tensor], list[dict[str, float]]]:
    """(penalty for all rows, raw weight and bias of the best in the first fold, history).

    The path stops after two penalties without improvement. Judged with the rows outside a fold, the best stands for a
    C, so all rows get less of it.
    """
    rng = np.random.default_rng(seed)
    pick = np.arange(len(holdout))
    limit = limit if holdout.max() == 0 else limit // 2
    if len(pick) > limit:
        pick = np.sort(rng.permutation(len(pick))[:limit])
    names = np.unique(holdout[pick][holdout[pick] >= 0])
    sharing = replace(make, keep_bytes=make.keep_bytes // max(1, len(names)))
    folds = [_Fold(sharing, pick[holdout[pick] != k], pick[holdout[pick] == k]) for k in names]
    outside = sum(len(fold.problem.data) for fold in folds) / len(folds)
    history: list[dict[str, float]] = []
    best: tuple[float, float, torch.Tensor] | None = None
    worse = 0
    for penalty in sorted(penalties, reverse=True):
        # One fold's curvature serves all: they share nine rows of ten, and it decides only how fast they get there.
        first = folds[0].parameters
        by = None if first is None else folds[0].problem.preconditioner(penalty, first)
        found = [fold.solve(penalty, LOOSE * len(folds) * make.tolerance, by) for fold in folds]
        judged = _judge([(fold.judge, minimum.x) for fold, minimum in zip(folds, found)])
        record = {"penalty": penalty, "iterations": sum(m.iterations for m in found)}
        record["train_loss"] = sum(m.value for m in found) / len(found)
        history.append({**record, **{f"holdout_{name}": value for name, value in judged.items()}})
        loss = judged["loss"] if criterion == "cross-entropy" else -judged[criterion]
        if progress is not None:
            progress.advance()
        worse = 0 if best is None or loss < best[0] else worse + 1
        if worse == 0:
            best = (loss, penalty, found[0].x)
        elif worse == 2:
            break
    assert best is not None
    return best[1] * outside / len(holdout), folds[0].problem.raw(best[2]), history


def _judge(folds: Sequence[tuple[Rows, torch.Tensor]]) -> dict[str, float]:
    """Mean cross-entropy ("loss"), accuracy and mIoU (%) over the held-out rows of all folds."""
    classes = len(folds[0][1])
    loss, areas = 0.0, np.zeros((3, classes), dtype=np.int64)
    for data, parameters in folds:
        weight, bias = parameters[:, :-1].to(data.dtype), parameters[:, -1].to(data.dtype)
        for x, y in data:
            logits = torch.addmm(bias, x, weight.T)
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            areas += np.stack(confusion_areas(logits.argmax(1), y, classes))
    hits, union, total = areas[:1], areas[1:2], float(areas[2].sum())
    return {
        "loss": loss / total,
        "accuracy": 100 * float(hits.sum()) / total,
        "mIoU": float(np.nanmean(per_class_iou(hits, union))),
    }


def _spectrum(data: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues [D] and eigenvectors [D, D] of XᵀX/n over the first blocks of rows."""
    gram: torch.Tensor | None = None
    seen = 0
    for x, _ in data:
        part = (x.T @ x).double()
        gram = part if gram is None else gram + part
        seen += len(x)
        if seen >= max(_GRAM_ROWS, 4 * x.shape[1]):
            break
    if gram is None:
        raise EncoderError("no training rows: every row is held out or the training split is empty")
    values, vectors = torch.linalg.eigh(gram / seen)
    return values.clamp(min=0), vectors


def _labels(y: torch.Tensor | np.ndarray, n: int, num_classes: int) -> torch.Tensor:
    labels = torch.as_tensor(y).long().cpu()
    if len(labels) != n:
        raise DataError(f"{len(labels)} labels for {n} feature rows: there must be one each")
    if n and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        bad = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise DataError(f"label {bad} is outside 0 … {num_classes - 1}: drop ignored pixels before fitting")
    return labels
