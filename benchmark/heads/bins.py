"""Linear depth by bins: 256 scores per pixel, made positive, normalised, and averaged over the bins' depths.

AdaBins' head as DINOv2's depth evaluation has it: ReLU + 0.1, divided by the sum, expectation over bins spaced evenly
from min to max. The loss is not convex, so it is trained by AdamW on sampled pixels; everything is drawn from `seed`.
Since the head is applied at a pixel to an interpolated feature, sampled pixels are an unbiased sample of its loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from benchmark.contracts import Progress
from benchmark.errors import DataError
from benchmark.heads.rows import Scaler, fit_scaler
from benchmark.heads.schedule import batches, cosine
from benchmark.metrics.exact_products import rows_of
from benchmark.system.late import F, torch

Loss = Literal["sig", "l2"]
FLOOR = 0.1  # added after the ReLU, DINOv2
_PREDICT_ROWS = 16_384


@dataclass(frozen=True)
class BinsHead:
    """weight [n_bins, D] and bias [n_bins] float32 on raw features, bins evenly from `min_depth` to `max_depth`."""

    weight: torch.Tensor
    bias: torch.Tensor
    min_depth: float
    max_depth: float
    history: list[dict[str, float]] = field(default_factory=list)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """[...] metres for features [..., D]."""
        return self.expectation(self.scores(x))

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """[..., n_bins] for features [..., D]: linear, so they may be interpolated."""
        return F.linear(x, self.weight.to(x), self.bias.to(x))

    def expectation(self, logits: torch.Tensor) -> torch.Tensor:
        """[...] metres for scores [..., n_bins], wherever they were interpolated."""
        return _expectation(logits, _centres(self.min_depth, self.max_depth, len(self.bias)).to(logits))


def fit_bins(
    x: Any,
    depth: torch.Tensor | np.ndarray,
    holdout: np.ndarray | torch.Tensor | None,
    min_depth: float,
    max_depth: float,
    n_bins: int = 256,
    seed: int = 0,
    *,
    learning_rates: Sequence[float] = (1e-2,),
    steps: int = 600,
    batch: int = 2048,
    weight_decay: float = 0.01,
    loss: Loss = "sig",
    device: str = "cpu",
    progress: Progress | None = None,
) -> BinsHead:
    """The head fitted on x [n, D] and depth [n] metres; rows with min_depth < depth < max_depth are used.

    Each learning rate is tried on the rows outside `holdout` [n] bool, judged there by RMSE, and the best trained on
    all rows; `holdout` may be None for a single rate. `loss`: "sig" is the scale-invariant log loss of DINOv2, "l2"
    the squared error. `history` has a record per rate. Raises EncoderError for a non-finite row, DataError when no
    depth is valid.
    """
    target = torch.as_tensor(depth).float().cpu()
    if len(target) != len(x):
        raise DataError(f"{len(target)} depths for {len(x)} feature rows: there must be one each")
    valid = (torch.isfinite(target) & (target > min_depth) & (target < max_depth)).numpy()
    rows = np.flatnonzero(valid)
    if not len(rows):
        raise DataError(
            f"no depth lies between {min_depth} and {max_depth} m: check that they are metres, and the protocol's range"
        )
    scaler = fit_scaler(x, rows, device)
    recipe = _Recipe(x, target, scaler, _centres(min_depth, max_depth, n_bins).to(device), device, steps, batch,
                     weight_decay, loss, seed)  # fmt: skip
    chosen, history = float(learning_rates[0]), list[dict[str, float]]()
    if len(learning_rates) > 1:
        held = np.zeros(len(x), bool) if holdout is None else np.asarray(holdout, bool)
        train, judge = rows[~held[rows]], rows[held[rows]]
        if not len(train) or not len(judge):
            raise DataError(f"{len(judge)} of {len(rows)} valid rows are held out: some must be, and not all")
        for rate in learning_rates:
            rmse = recipe.rmse(recipe.train(train, rate, progress), judge)
            history.append({"learning_rate": rate, "holdout_rmse": rmse})
        chosen = min(history, key=lambda record: record["holdout_rmse"])["learning_rate"]
    weight, bias = recipe.train(rows, chosen, progress)
    weight, bias = scaler.fold(weight.double(), bias.double())
    history.append({"learning_rate": chosen, "refit": 1.0})
    return BinsHead(weight.float().cpu(), bias.float().cpu(), min_depth, max_depth, history)


@dataclass(frozen=True)
class _Recipe:
    x: Any
    target: torch.Tensor
    scaler: Scaler
    centres: torch.Tensor
    device: str
    steps: int
    batch: int
    weight_decay: float
    loss: Loss
    seed: int

    def train(self, rows: np.ndarray, rate: float, progress: Progress | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias on standardised features."""
        width = len(self.scaler.mean)
        draw = torch.Generator().manual_seed(self.seed)
        weight = (0.01 * torch.randn(len(self.centres), width, generator=draw)).to(self.device).requires_grad_()
        # Starting a little above zero keeps every bin on the sloping side of the ReLU.
        bias = torch.full((len(self.centres),), 0.1, device=self.device, requires_grad=True)
        optimiser = torch.optim.AdamW([weight, bias], lr=rate, weight_decay=self.weight_decay)
        for step, part in enumerate(batches(rows, self.batch, self.steps, self.seed)):
            for group in optimiser.param_groups:
                group["lr"] = rate * cosine(step, self.steps, warmup=min(50, self.steps // 10))
            guess = _expectation(F.linear(self._load(part), weight, bias), self.centres)
            truth = self.target[torch.from_numpy(part)].to(self.device)
            error = _sig_loss(guess, truth) if self.loss == "sig" else F.mse_loss(guess, truth)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(error)
            optimiser.step()
            if progress is not None:
                progress.advance()
        return weight.detach(), bias.detach()

    def rmse(self, head: tuple[torch.Tensor, torch.Tensor], rows: np.ndarray) -> float:
        """Pooled RMSE in metres on `rows`."""
        total = 0.0
        for start in range(0, len(rows), _PREDICT_ROWS):
            part = rows[start : start + _PREDICT_ROWS]
            guess = _expectation(F.linear(self._load(part), *head), self.centres)
            truth = self.target[torch.from_numpy(part)].to(self.device)
            total += float(((guess - truth).double() ** 2).sum())
        return math.sqrt(total / len(rows))

    def _load(self, rows: np.ndarray) -> torch.Tensor:
        x = rows_of(self.x, rows, self.device)
        return (x - self.scaler.mean.float()) * self.scaler.inverse.float()


def _centres(low: float, high: float, n_bins: int) -> torch.Tensor:
    return torch.linspace(low, high, n_bins)


def _expectation(logits: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    share = F.relu(logits) + FLOOR
    return (share @ centres) / share.sum(-1)


def _sig_loss(guess: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """√(var(g) + 0.15 mean(g)²) of g = log guess − log truth: AdaBins, with DINOv2's constants."""
    gap = torch.log(guess.clamp(min=1e-6)) - torch.log(truth)
    return torch.sqrt(gap.var(correction=0) + 0.15 * gap.mean() ** 2 + 1e-12)
