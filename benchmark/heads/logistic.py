"""Multinomial logistic regression, the convex linear probe: one answer for given features, whatever the seed.

Minimises  mean cross-entropy + ½ penalty ‖W‖²  on standardised features, the bias free of penalty; scikit-learn's C is
1 / (n · penalty). The penalty is chosen on held-out training rows, in one fold or several, from strong to weak with
warm starts, by the metric the head will be scored by: cross-entropy wants ten times as much as mIoU, which costs half a
point. Then the head is fitted again on all rows, with the same C, as a prior does not change with the number of rows.
A first stretch is preconditioned by the Hessian at chance, p_c(1 - p_c) · XᵀX/n, inverted by one eigendecomposition,
the rest by the Hessian's blocks where that stretch, or the penalty before, has ended (`benchmark.heads.curvature`).

Any size: rows that do not fit are streamed in every pass, and what grows with classes × features is bounded by bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from benchmark.contracts import Progress
from benchmark.errors import DataError
from benchmark.heads.curvature import block_bytes, block_preconditioner, fits, spectrum
from benchmark.heads.grid import GridRows, MixedRows
from benchmark.heads.lbfgs import Minimum, Preconditioner, minimise, steps_kept
from benchmark.heads.rows import BLOCK, FewRows, Rows, Scaler, class_indices, fit_scaler, folds_of
from benchmark.metrics.segmentation import confusion_areas, per_class_iou
from benchmark.system.late import F, torch
from benchmark.system.processes import give_back

Criterion = Literal["cross-entropy", "accuracy", "mIoU"]
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ABSENT = -1e4  # bias of a class without a training row: never predicted, and finite through interpolation
KEPT = 160 << 20  # bytes of all rows that stay standardised on a CPU: memory does not grow with pictures
LOOSE = 10  # times the tolerance, for each fold, while a penalty is chosen: a decade of penalty moves mIoU far more
STRETCH = 1e-2  # tolerance of a first stretch from the classes' shares
_LOGITS = 1 << 24  # of one block: 64 MiB in float32


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
    **how: Any,
) -> LogisticHead:
    """The head fitted on x [n, D] and y [n]: `fit_best` of one description, with its options."""
    return fit_best({"": x}, y, num_classes, penalties, holdout, device, **how)[1]


def fit_best(
    sources: Mapping[str, Any],
    y: torch.Tensor | np.ndarray,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    holdout: np.ndarray | torch.Tensor | None = None,
    device: str = "cpu",
    *,
    standardize: bool = True,
    dtype: torch.dtype | None = None,
    tolerance: float = 1e-6,
    selection_rows: int = 65_536,
    max_iterations: int = 200,
    keep_bytes: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    criterion: Criterion = "cross-entropy",
) -> tuple[str, LogisticHead]:
    """The best of several descriptions of the same rows, and its head, fitted on y [n] class indices.

    `sources` maps a name to x [n, D] (tensor, array, memory map or feature reader). `holdout` [n] says which rows
    sources and penalties are judged on: bool, or the fold (0, 1, …) a row is held out in and -1 for none; whole images
    of the training split, never the test split. Folds are judged together, by `criterion`; ties go to the earlier
    source and the stronger penalty. It may be None only where there is nothing to choose. With more than
    `selection_rows` rows (half of it, in several folds) the choice is made on that many (a random share, from `seed`);
    the winner alone is fitted on all, with the chosen penalty times the share of rows it was chosen with. `history` has
    the path of every source, in their order. Rows stay standardised in memory up to `keep_bytes` (1 GiB while
    it is chosen and then KEPT; half of a GPU's free memory). Raises EncoderError naming a non-finite row, DataError for
    labels out of range.
    """
    labels = class_indices(y, [len(x) for x in sources.values()], num_classes)
    present = torch.unique(labels)
    compact = torch.searchsorted(present, labels)
    keep, kind = room(device) if keep_bytes is None else keep_bytes, dtype or torch.float32
    made = {
        name: _Maker(x, compact, len(present), device, kind, standardize, keep, tolerance, max_iterations)
        for name, x in sources.items()
    }
    name, chosen, history = next(iter(sources)), float(penalties[0]), list[dict[str, float]]()
    start: tuple[torch.Tensor, torch.Tensor] | None = None
    if len(penalties) * len(sources) > 1:
        if holdout is None:
            raise DataError(f"{len(penalties)} penalties but no held-out training rows to choose by: pass `holdout`")
        folds, best = folds_of(holdout), None
        for source, make in made.items():
            found, path = _choose(make, penalties, folds, criterion, selection_rows, seed, progress)
            history += path
            if best is None or found.rank < best.rank:
                name, best = source, found
        assert best is not None
        chosen, start = best.penalty, best.start
    elif progress is not None:  # nothing to choose
        progress.advance()
    streamed = keep_bytes is None and torch.device(device).type == "cpu"
    last = replace(made[name], keep_bytes=KEPT) if streamed else made[name]
    give_back()  # what was held while it was chosen
    fit = last.problem(np.arange(len(labels)))
    give_back()  # and while their moments were added up
    minimum = fit.solve(chosen, None if start is None else fit.standardised(*start), tolerance)
    history.append({"penalty": chosen, "iterations": minimum.iterations, "train_loss": minimum.value, "refit": 1.0})
    if progress is not None:
        progress.advance()
    weight, bias = fit.raw(minimum.x)
    full_weight = torch.zeros(num_classes, weight.shape[1], dtype=torch.float64, device=weight.device)
    full_bias = torch.full((num_classes,), ABSENT, dtype=torch.float64, device=weight.device)
    full_weight[present.to(weight.device)], full_bias[present.to(weight.device)] = weight, bias
    return name, LogisticHead(full_weight.float().cpu(), full_bias.float().cpu(), chosen, history)


def held_bytes(rows: int, width: int, classes: int, device: str = "cpu") -> int:
    """Bytes that a fit of so many rows [rows, width] float32 holds at most: rows, a block's logits, L-BFGS's steps."""
    parameters = 8 * classes * (width + 1)
    block = min(BLOCK, max(1, _LOGITS // classes))
    steps = (2 * steps_kept(parameters) + 6) * parameters
    return min(4 * rows * width, room(device)) + 12 * block * classes + steps + block_bytes(rows, width, classes)


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
        block = BLOCK // 16 if isinstance(self.x, GridRows) else BLOCK
        scaler = fit_scaler(self.x, rows, self.device, self.standardize, block)
        return _Problem(self.rows(rows, scaler), scaler, self.classes, self.max_iterations)

    def of_few(self, rows: np.ndarray, fits: int) -> _Maker:
        """For so many fits of those rows: several share what is read of them once, and standardise it as they pass."""
        if fits == 1 or isinstance(self.x, GridRows) or 4 * len(rows) * self.x.shape[1] > self.keep_bytes:
            return replace(self, keep_bytes=self.keep_bytes // fits)
        return replace(self, x=FewRows(self.x, rows, self.device), keep_bytes=0)

    def rows(self, rows: np.ndarray, scaler: Scaler) -> Rows | MixedRows:
        if isinstance(self.x, GridRows):
            return MixedRows(self.x, self.labels, rows, scaler, self.device, self.dtype)
        block = min(BLOCK, max(1, _LOGITS // self.classes))
        return Rows(self.x, self.labels, rows, scaler, self.device, self.dtype, self.keep_bytes, block)


class _Problem:
    """Loss, gradient and preconditioner over one set of rows; parameters [C, D+1] float64, bias last."""

    def __init__(self, data: Rows | MixedRows, scaler: Scaler, classes: int, max_iterations: int) -> None:
        self.data, self.scaler, self.classes, self.max_iterations = data, scaler, classes, max_iterations
        share = torch.bincount(data.y, minlength=classes).double().clamp(min=0.5) / len(data)
        self.prior = share.log() - share.log().mean()
        self.curvature = share * (1 - share) if classes > 1 else torch.ones_like(share)

    @cached_property
    def spectrum(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the rows; a fit that goes on from another's end mostly never asks."""
        return spectrum(self.data)

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
        """By the curvature at those parameters, or at chance: where its blocks would be too large or, on few rows,
        dearer than the passes that they save."""
        width = len(self.scaler.mean)
        if not fits(self.classes, width) or len(self.data) < 4 * width:
            return self._at_chance(penalty)
        return block_preconditioner(self.data, at, penalty)

    def _minimise(self, penalty: float, start: torch.Tensor, tolerance: float, by: Preconditioner) -> Minimum:
        return minimise(
            lambda p: self._objective(p, penalty),
            start,
            by,
            tolerance,
            self.max_iterations,
            steps_kept(8 * start.numel()),
            noise=0.1 * torch.finfo(self.data.dtype).eps,
        )

    def raw(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [C, D] and bias [C], float64, on raw features."""
        return self.scaler.fold(parameters[:, :-1], parameters[:, -1])

    def standardised(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The parameters whose `raw` form is the given one."""
        return torch.cat([weight / self.scaler.inverse, (bias + weight @ self.scaler.mean)[:, None]], 1)

    def _objective(self, parameters: torch.Tensor, penalty: float) -> tuple[float, torch.Tensor]:
        weight, n = parameters[:, :-1], len(self.data)
        loss, grad = self.data.loss(parameters)
        grad /= n
        grad[:, :-1] += penalty * weight
        return loss / n + 0.5 * penalty * float((weight**2).sum()), grad

    def _at_chance(self, penalty: float) -> Preconditioner:
        values, vectors = self.spectrum
        floor = 1e-6 * float(values.max())  # directions without variance move only by the penalty
        scale = 1.0 / (self.curvature[:, None] * (values + floor) + penalty)
        bias_scale = 1.0 / self.curvature
        rest = 1.0 / (self.curvature[:, None] * floor + penalty)  # of the directions that fewer rows than features lack
        partial = vectors.shape[1] < vectors.shape[0]

        def step(g: torch.Tensor) -> torch.Tensor:
            inner = ((g[:, :-1] @ vectors) * (scale - rest if partial else scale)) @ vectors.T
            if partial:
                inner += rest * g[:, :-1]
            return torch.cat([inner, (g[:, -1] * bias_scale)[:, None]], 1)

        return lambda *gradients: [step(g) for g in gradients]


def room(device: str) -> int:
    """Bytes to keep rows in: from a CPU's memory they come fast each time, to a GPU they travel."""
    return torch.cuda.mem_get_info(device)[0] // 2 if torch.device(device).type == "cuda" else 1 << 30


@dataclass(frozen=True)
class _Choice:
    """A penalty for all rows, where to start from (raw weight and bias), and how it was judged: lower is better."""

    rank: tuple[float, float]
    penalty: float
    start: tuple[torch.Tensor, torch.Tensor]


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
) -> tuple[_Choice, list[dict[str, float]]]:
    """The best penalty, with the first fold's parameters, and the history.

    Judged by `criterion`, then by cross-entropy. The path stops after two penalties that improve neither: on few rows
    hits stay the same from one penalty to the next while the loss still falls. Judged with the rows outside a fold, the
    best stands for a C, so all rows get less of it.
    """
    rng = np.random.default_rng(seed)
    pick = np.arange(len(holdout))
    limit = limit if holdout.max() == 0 else limit // 2
    if len(pick) > limit:
        pick = np.sort(rng.permutation(len(pick))[:limit])
    names = np.unique(holdout[pick][holdout[pick] >= 0])
    sharing = make.of_few(pick, len(names))
    folds = [_Fold(sharing, pick[holdout[pick] != k], pick[holdout[pick] == k]) for k in names]
    give_back()  # what the folds' features took while their moments were added up
    outside = sum(len(fold.problem.data) for fold in folds) / len(folds)
    history: list[dict[str, float]] = []
    best: tuple[tuple[float, float], float, torch.Tensor] | None = None
    lowest, worse = np.inf, 0
    for penalty in sorted(penalties, reverse=True):
        # One fold's curvature serves all: they share nine rows of ten, and it decides only how fast they get there.
        by, found = None, list[Minimum]()
        for fold in folds:
            first = folds[0].parameters
            if by is None and first is not None and (history or fold.problem.data.inverted):
                by = folds[0].problem.preconditioner(penalty, first)
            found.append(fold.solve(penalty, LOOSE * len(folds) * make.tolerance, by))
        judged = _judge([(fold.judge, minimum.x) for fold, minimum in zip(folds, found)])
        record = {"penalty": penalty, "iterations": sum(m.iterations for m in found)}
        record["train_loss"] = sum(m.value for m in found) / len(found)
        history.append({**record, **{f"holdout_{name}": value for name, value in judged.items()}})
        rank = (0.0 if criterion == "cross-entropy" else -judged[criterion], judged["loss"])
        if progress is not None:
            progress.advance()
        worse = 0 if best is None or rank < best[0] or judged["loss"] < lowest else worse + 1
        lowest = min(lowest, judged["loss"])
        if best is None or rank < best[0]:
            best = (rank, penalty, found[0].x)
        elif worse == 2:
            if progress is not None:  # the bar counts the penalties that are left untried
                progress.advance(len(penalties) - len(history))
            break
    assert best is not None
    return _Choice(best[0], best[1] * outside / len(holdout), folds[0].problem.raw(best[2])), history


def _judge(folds: Sequence[tuple[Rows | MixedRows, torch.Tensor]]) -> dict[str, float]:
    """Mean cross-entropy ("loss"), accuracy and mIoU (%) over the held-out rows of all folds."""
    classes = len(folds[0][1])
    loss, areas = 0.0, np.zeros((3, classes), dtype=np.int64)
    for data, parameters in folds:
        for logits, y in data.scores(parameters):
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            areas += np.stack(confusion_areas(logits.argmax(1), y, classes))
    hits, union, total = areas[:1], areas[1:2], float(areas[2].sum())
    return {
        "loss": loss / total,
        "accuracy": 100 * float(hits.sum()) / total,
        "mIoU": float(np.nanmean(per_class_iou(hits, union))),
    }
