"""Many linear classifiers in one pass over stored features: DINOv2's sweep over learning rates and feature sources.

All heads of one source share each batch and one matrix product. The best is chosen on held-out training rows, which no
head was trained on, and only that one is ever shown the test split. A head that diverges is a record, not a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmark.contracts import Progress
from benchmark.errors import DataError, EncoderError
from benchmark.heads.schedule import batches, cosine
from benchmark.similarity import rows_of

# DINOv2's thirteen, before scaling by batch / 256.
LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
_JUDGE_ROWS = 8192


@dataclass(frozen=True)
class SweepHead:
    """The chosen head: weight [C, D] and bias [C] float32 on features of `source`; `table` has one row per head."""

    source: str
    learning_rate: float
    weight_decay: float
    weight: torch.Tensor
    bias: torch.Tensor
    table: list[dict[str, Any]] = field(default_factory=list)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[..., C] for features [..., D] of `source`."""
        return F.linear(x, self.weight.to(x), self.bias.to(x))


def fit_linear_sweep(
    sources: Mapping[str, Any],
    y: torch.Tensor | np.ndarray,
    num_classes: int,
    holdout: np.ndarray | torch.Tensor,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = (0.0,),
    steps: int = 12_500,
    batch: int = 1024,
    momentum: float = 0.9,
    seed: int = 0,
    device: str = "cpu",
    refit: bool = False,
    progress: Progress | None = None,
) -> SweepHead:
    """The head, over sources × learning rates × weight decays, with the best top-1 on `holdout` [n] bool rows.

    `sources` maps a name to features [n, D] (tensor, array, memory map or feature reader). Every head sees the same
    batches: SGD with momentum, cosine schedule, base rates scaled by batch / 256. Ties go to the lower rate. `refit`
    trains the chosen setting again on all rows. Raises EncoderError for non-finite features, DataError when lengths or
    labels do not fit.
    """
    labels = torch.as_tensor(y).long().cpu()
    held = np.asarray(holdout, bool)
    _check(sources, labels, num_classes, held)
    everything = np.arange(len(labels))
    settings = [(rate, decay) for rate in sorted(learning_rates) for decay in weight_decays]
    stacks = {name: _Stack(x, settings, num_classes, batch / 256, momentum, device) for name, x in sources.items()}
    _train(stacks, labels, everything[~held], steps, batch, seed, progress)

    table: list[dict[str, Any]] = []
    for name, stack in stacks.items():
        right = stack.hits(labels, everything[held])
        for (rate, decay), hits in zip(settings, right):
            table.append({"source": name, "learning_rate": rate, "weight_decay": decay, "holdout_top1": 100 * hits})
    best = max(range(len(table)), key=lambda i: (table[i]["holdout_top1"], -i))
    row = table[best]
    name, place = row["source"], best % len(settings)
    winner = stacks[name]
    if refit:
        winner = _Stack(sources[name], [settings[place]], num_classes, batch / 256, momentum, device)
        _train({name: winner}, labels, everything, steps, batch, seed, progress)
        place = 0
    weight, bias = winner.head(place)
    return SweepHead(name, row["learning_rate"], row["weight_decay"], weight, bias, table)


class _Stack:
    """All heads of one source: weight [R, C, D], bias [R, C], trained together with gradients written out."""

    def __init__(
        self,
        x: Any,
        settings: Sequence[tuple[float, float]],
        num_classes: int,
        rate_scale: float,
        momentum: float,
        device: str,
    ) -> None:
        self.x, self.device, self.momentum, self.heads = x, device, momentum, len(settings)
        self.rate = torch.tensor([rate * rate_scale for rate, _ in settings], device=device)[:, None, None]
        self.decay = torch.tensor([decay for _, decay in settings], device=device)[:, None, None]
        width = int(x.shape[1])
        start = 0.01 * torch.randn(num_classes, width, generator=torch.Generator().manual_seed(0))
        self.weight = start.to(device).expand(self.heads, -1, -1).contiguous()
        self.bias = torch.zeros(self.heads, num_classes, 1, device=device)
        self.weight_speed, self.bias_speed = torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def step(self, rows: np.ndarray, y: torch.Tensor, factor: float) -> None:
        x = self._load(rows)
        residual = torch.softmax(self._logits(x), 1)  # [R, C, b]
        residual[:, y, torch.arange(len(y), device=y.device)] -= 1
        residual /= len(y)
        grad = (residual.reshape(-1, len(y)) @ x).view_as(self.weight)
        self.weight_speed.mul_(self.momentum).add_(grad).add_(self.decay * self.weight)
        self.bias_speed.mul_(self.momentum).add_(residual.sum(2, keepdim=True))
        self.weight.sub_(factor * self.rate * self.weight_speed)
        self.bias.sub_(factor * self.rate * self.bias_speed)

    def hits(self, labels: torch.Tensor, rows: np.ndarray) -> list[float]:
        """Top-1 of every head on `rows`; 0 for a head that diverged."""
        right = torch.zeros(self.heads, device=self.device)
        for start in range(0, len(rows), _JUDGE_ROWS):
            part = rows[start : start + _JUDGE_ROWS]
            y = labels[torch.from_numpy(part)].to(self.device)
            right += (self._logits(self._load(part)).argmax(1) == y).sum(1)
        sound = torch.isfinite(self.weight).flatten(1).all(1) & torch.isfinite(self.bias).flatten(1).all(1)
        return (torch.where(sound, right, 0.0) / len(rows)).tolist()

    def head(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight[place].cpu().clone(), self.bias[place, :, 0].cpu().clone()

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight.flatten(0, 1) @ x.T).view(self.heads, -1, len(x)) + self.bias

    def _load(self, rows: np.ndarray) -> torch.Tensor:
        x = rows_of(self.x, rows, self.device)
        if not bool(torch.isfinite(x).all()):
            bad = int(rows[int((~torch.isfinite(x)).any(1).nonzero()[0, 0])])
            raise EncoderError(f"feature row {bad} holds NaN or infinity: check the encoder on this sample")
        return x


def _train(
    stacks: Mapping[str, _Stack],
    labels: torch.Tensor,
    rows: np.ndarray,
    steps: int,
    batch: int,
    seed: int,
    progress: Progress | None,
) -> None:
    for step, part in enumerate(batches(rows, batch, steps, seed)):
        factor = cosine(step, steps)
        for stack in stacks.values():
            stack.step(part, labels[torch.from_numpy(part)].to(stack.device), factor)
        if progress is not None:
            progress.advance()


def _check(sources: Mapping[str, Any], labels: torch.Tensor, num_classes: int, held: np.ndarray) -> None:
    if not sources:
        raise DataError("no feature source for the linear sweep: give at least one")
    for name, x in sources.items():
        if len(x) != len(labels) or len(held) != len(labels):
            raise DataError(f"{name}: {len(x)} feature rows, {len(labels)} labels, {len(held)} held-out marks")
    if not held.any() or held.all():
        raise DataError(f"{int(held.sum())} of {len(held)} rows are held out: some must be, and not all")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise DataError(f"labels {int(labels.min())} … {int(labels.max())} do not fit {num_classes} classes")
