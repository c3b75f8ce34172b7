"""Ridge regression from streamed Gram matrices: one pass over the features gives every penalty.

Minimises  mean squared error + penalty ‖W‖²  with a free bias; scikit-learn's alpha is n · penalty. Memory is a few
D × D float64 matrices however many rows are added, and held-out error follows from the held-out Gram matrix alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.errors import DataError, EncoderError
from benchmark.system.late import F, torch

PART = 8192  # rows copied at a time
PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class RidgeHead:
    """weight [O, D] and bias [O] float64 on raw features; `history` holds each penalty's held-out error."""

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    history: list[dict[str, float]] = field(default_factory=list)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """[..., O] for features [..., D], in their dtype."""
        return F.linear(x, self.weight.to(x), self.bias.to(x))


class _Moments:
    """Count, sums and products of rows z = (features, targets) about an origin, float64."""

    def __init__(self, width: int, device: str) -> None:
        self.n = 0
        self.sum = torch.zeros(width, dtype=torch.float64, device=device)
        self.product = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, z: torch.Tensor) -> None:
        self.n += len(z)
        self.sum += z.sum(0)
        self.product.addmm_(z.T, z)

    def __add__(self, other: _Moments) -> _Moments:
        out = _Moments(len(self.sum), str(self.sum.device))
        out.n, out.sum, out.product = self.n + other.n, self.sum + other.sum, self.product + other.product
        return out

    def centred(self, about: torch.Tensor) -> torch.Tensor:
        """Mean of (z - about)(z - about)ᵀ."""
        mean = self.sum / self.n
        cross = torch.outer(mean, about)
        return self.product / self.n - cross - cross.T + torch.outer(about, about)


class RidgeAccumulator:
    """Takes blocks of features [b, dim] and targets [b, outputs]; `solve` fits. Blocks may come in any split."""

    def __init__(self, dim: int, outputs: int, device: str = "cpu") -> None:
        self.dim, self.outputs, self.device = dim, outputs, device
        self._origin: torch.Tensor | None = None
        self._train, self._held = _Moments(dim + outputs, device), _Moments(dim + outputs, device)

    def add(self, x: torch.Tensor, y: torch.Tensor, holdout: torch.Tensor | np.ndarray | None = None) -> None:
        """Add rows; those marked in `holdout` [b] only judge penalties until the last fit. EncoderError for NaN."""
        y = y[:, None] if y.ndim == 1 else y
        if x.shape[1:] != (self.dim,) or y.shape != (len(x), self.outputs):
            raise DataError(
                f"ridge rows are {tuple(x.shape)} and {tuple(y.shape)}, expected [b, {self.dim}], [b, {self.outputs}]"
            )
        if len(x) == 0:
            return
        for start in range(0, len(x), PART):
            part = slice(start, start + PART)
            sound = torch.isfinite(x[part]).all(1) & torch.isfinite(y[part]).all(1).to(x.device)
            if not bool(sound.all()):
                bad = self._train.n + self._held.n + start + int((~sound).nonzero()[0, 0])
                raise EncoderError(f"ridge row {bad} holds NaN or infinity: check the encoder on this sample")
        if self._origin is None:  # moments about a nearby point keep their digits
            self._origin = self._rows(x, y, torch.arange(len(x))).mean(0)
        held = torch.zeros(len(x), dtype=torch.bool) if holdout is None else torch.as_tensor(holdout).bool().cpu()
        for moments, chosen in ((self._train, ~held), (self._held, held)):
            z = self._rows(x, y, chosen.nonzero()[:, 0])
            z -= self._origin
            moments.add(z)
            del z  # one copy in float64 at a time

    def _rows(self, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[n, dim + outputs] float64 of `rows`, filled in place: what is joined is in memory twice."""
        z = torch.empty(len(rows), self.dim + self.outputs, dtype=torch.float64, device=self.device)
        for start in range(0, len(rows), PART):
            part = rows[start : start + PART]
            z[start : start + PART, : self.dim] = x[part.to(x.device)].to(self.device)
            z[start : start + PART, self.dim :] = y[part.to(y.device)].to(self.device)
        return z

    def solve(self, penalties: Sequence[float] = PENALTIES, standardize: bool = True) -> RidgeHead:
        """Fit; with several penalties, the one of least held-out squared error, then all rows together.

        `standardize` puts the penalty on features of unit variance. Errors of several outputs are summed after each is
        divided by its variance. Raises DataError without rows, or without held-out rows to choose by.
        """
        if self._origin is None or self._train.n == 0:
            raise DataError("ridge has no training rows: every row is held out or the training split is empty")
        if len(penalties) > 1 and self._held.n == 0:
            raise DataError(f"{len(penalties)} penalties but no held-out training rows to choose by: pass `holdout`")
        chosen, history = float(penalties[0]), list[dict[str, float]]()
        if len(penalties) > 1:
            history = self._judge(penalties, standardize)
            chosen = min(history, key=lambda record: record["holdout_error"])["penalty"]
        weight, centre = _fit(self._train + self._held, self.dim, [chosen], standardize)
        mean = centre + self._origin
        bias = mean[self.dim :] - weight[0] @ mean[: self.dim]
        return RidgeHead(weight[0].cpu(), bias.cpu(), chosen, history)

    def _judge(self, penalties: Sequence[float], standardize: bool) -> list[dict[str, float]]:
        weights, centre = _fit(self._train, self.dim, penalties, standardize)
        gram = self._held.centred(centre)
        xx, xy, yy = gram[: self.dim, : self.dim], gram[: self.dim, self.dim :], gram[self.dim :, self.dim :].diagonal()
        spread = self._train.centred(centre)[self.dim :, self.dim :].diagonal().clamp(min=1e-30)
        history = []
        for penalty, w in zip(penalties, weights):
            error = yy - 2 * (w.T * xy).sum(0) + ((w @ xx) * w).sum(1)
            rmse = float(error.mean().clamp(min=0).sqrt())
            history.append({"penalty": penalty, "holdout_error": float((error / spread).sum()), "holdout_rmse": rmse})
        return history


def _fit(
    moments: _Moments, dim: int, penalties: Sequence[float], standardize: bool
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """(weight [O, D] for each penalty, centre [D+O]) by one eigendecomposition."""
    centre = moments.sum / moments.n
    gram = moments.centred(centre)
    xx, xy = gram[:dim, :dim], gram[:dim, dim:]
    variance = xx.diagonal().clamp(min=0)
    scale = torch.where(variance > 0, variance, 1.0).rsqrt() if standardize else torch.ones_like(variance)
    values, vectors = torch.linalg.eigh(xx * scale[:, None] * scale)
    # Directions that hold rounding noise instead of variance would otherwise dominate at tiny penalties.
    values = torch.where(values > 1e-13 * values.max(), values, torch.inf)
    projected = vectors.T @ (xy * scale[:, None])
    return [(scale[:, None] * (vectors @ (projected / (values[:, None] + p)))).T for p in penalties], centre
