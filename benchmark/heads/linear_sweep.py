"""Many linear classifiers in one pass over stored features: DINOv2's sweep over learning rates and feature sources.

All heads of one source share each batch and one matrix product. The best is chosen on held-out training rows, which no
head was trained on, and only that one is ever shown the test split. A head that diverges is a record, not a crash.

Training batches come from the stored features, or from a `feed` that makes them anew each time (augmented pictures). A
long sweep keeps its state in a file and goes on from there, with the same batches and so the same heads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmark.contracts import Progress
from benchmark.errors import DataError, EncoderError
from benchmark.heads.schedule import batches, cosine
from benchmark.metrics.exact_products import rows_of
from benchmark.system import sealed
from benchmark.system.digest import fingerprint
from benchmark.system.late import F, torch

_JUDGE_ROWS = 8192
_CURVE_POINTS = 200
SAVE_EVERY = 300.0  # seconds between two states on disk


# From a step on, the training features of each: source -> [b, D], of the rows that `batches` gives for that step.
Feed: TypeAlias = "Callable[[int], Iterator[Mapping[str, torch.Tensor]]]"


@dataclass(frozen=True)
class SweepHead:
    """The chosen head: weight [C, D] and bias [C] float32 on features of `source`; `table` has one row per head.

    `curve` holds (step, mean training loss since the last point) of the chosen head.
    """

    source: str
    learning_rate: float
    weight_decay: float
    weight: torch.Tensor
    bias: torch.Tensor
    table: list[dict[str, Any]] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[..., C] for features [..., D] of `source`."""
        return F.linear(x, self.weight.to(x), self.bias.to(x))


def fit_linear_sweep(
    sources: Mapping[str, Any],
    y: torch.Tensor | np.ndarray,
    num_classes: int,
    holdout: np.ndarray | torch.Tensor,
    *,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float] = (0.0,),
    steps: int = 12_500,
    batch: int = 1024,
    momentum: float = 0.9,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    feed: Feed | None = None,
    state: Path | None = None,
    save_every: float = SAVE_EVERY,
) -> SweepHead:
    """The head, over sources × learning rates × weight decays, with the best top-1 on `holdout` [n] bool rows.

    `sources` maps a name to features [n, D] (tensor, array, memory map or feature reader). Every head sees the same
    batches: SGD with momentum, cosine schedule, base rates scaled by batch / 256. Ties go to the lower rate. `feed`
    gives the training batches in place of the stored rows; heads are still chosen on the stored ones. `state` is a file
    that an interrupted call leaves and the next one goes on from. Raises EncoderError for non-finite features,
    DataError when lengths or labels do not fit.
    """
    labels = torch.as_tensor(y).long().cpu()
    held = np.asarray(holdout, bool)
    _check(sources, labels, num_classes, held)
    everything = np.arange(len(labels))
    settings = [(rate, decay) for rate in sorted(learning_rates) for decay in weight_decays]
    stacks = {name: _Stack(x, settings, num_classes, batch / 256, momentum, device) for name, x in sources.items()}
    curves = _train(stacks, labels, everything[~held], steps, batch, seed, progress, feed, state, save_every)

    table: list[dict[str, Any]] = []
    for name, stack in stacks.items():
        right = stack.hits(labels, everything[held])
        for (rate, decay), hits in zip(settings, right):
            table.append({"source": name, "learning_rate": rate, "weight_decay": decay, "holdout_top1": 100 * hits})
    best = max(range(len(table)), key=lambda i: (table[i]["holdout_top1"], -i))
    row = table[best]
    name, place = row["source"], best % len(settings)
    winner = stacks[name]
    weight, bias = winner.head(place)
    curve = [(step, losses[name][place]) for step, losses in curves]
    return SweepHead(name, row["learning_rate"], row["weight_decay"], weight, bias, table, curve)


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
        self.x, self.device, self.momentum, self.heads, self.settings = x, device, momentum, len(settings), settings
        self.rate = torch.tensor([rate * rate_scale for rate, _ in settings], device=device)[:, None, None]
        self.decay = torch.tensor([decay for _, decay in settings], device=device)[:, None, None]
        width = int(x.shape[1])
        start = 0.01 * torch.randn(num_classes, width, generator=torch.Generator().manual_seed(0))
        self.weight = start.to(device).expand(self.heads, -1, -1).contiguous()
        self.bias = torch.zeros(self.heads, num_classes, 1, device=device)
        self.weight_speed, self.bias_speed = torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def step(self, x: torch.Tensor, y: torch.Tensor, factor: float) -> torch.Tensor:
        """One step of every head on features [b, D]; the mean loss [R] before it."""
        residual = torch.softmax(self._logits(x), 1)  # [R, C, b]
        right = torch.arange(len(y), device=y.device)
        loss = -residual[:, y, right].clamp_min(1e-38).log().mean(1)
        residual[:, y, right] -= 1
        residual /= len(y)
        grad = (residual.reshape(-1, len(y)) @ x).view_as(self.weight)
        self.weight_speed.mul_(self.momentum).add_(grad).add_(self.decay * self.weight)
        self.bias_speed.mul_(self.momentum).add_(residual.sum(2, keepdim=True))
        self.weight.sub_(factor * self.rate * self.weight_speed)
        self.bias.sub_(factor * self.rate * self.bias_speed)
        return loss

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a later call needs to go on."""
        return {
            "weight": self.weight,
            "bias": self.bias,
            "weight_speed": self.weight_speed,
            "bias_speed": self.bias_speed,
        }

    def hits(self, labels: torch.Tensor, rows: np.ndarray) -> list[float]:
        """Top-1 of every head on `rows`; 0 for a head that diverged."""
        right = torch.zeros(self.heads, device=self.device)
        for start in range(0, len(rows), _JUDGE_ROWS):
            part = rows[start : start + _JUDGE_ROWS]
            y = labels[torch.from_numpy(part)].to(self.device)
            right += (self._logits(self.load(part)).argmax(1) == y).sum(1)
        sound = torch.isfinite(self.weight).flatten(1).all(1) & torch.isfinite(self.bias).flatten(1).all(1)
        return (torch.where(sound, right, 0.0) / len(rows)).tolist()

    def head(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weight[place].cpu().clone(), self.bias[place, :, 0].cpu().clone()

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight.flatten(0, 1) @ x.T).view(self.heads, -1, len(x)) + self.bias

    def load(self, rows: np.ndarray) -> torch.Tensor:
        """Stored features [n, D] of `rows`, all finite."""
        x = rows_of(self.x, rows, self.device)
        if not bool(torch.isfinite(x).all()):
            bad = int(rows[int((~torch.isfinite(x)).any(1).nonzero()[0, 0])])
            raise EncoderError(f"feature row {bad} holds NaN or infinity: check the encoder on this sample")
        return x


Curve = list[tuple[int, dict[str, list[float]]]]


def _train(
    stacks: Mapping[str, _Stack],
    labels: torch.Tensor,
    rows: np.ndarray,
    steps: int,
    batch: int,
    seed: int,
    progress: Progress | None,
    feed: Feed | None = None,
    state: Path | None = None,
    save_every: float = SAVE_EVERY,
) -> Curve:
    """The training losses of every head, (step, source -> [R]) at a few hundred points."""
    request = fingerprint({"rows": rows.tolist() if len(rows) < 1000 else len(rows), "steps": steps, "batch": batch,
                           "seed": seed, "rates": [[k, *s.settings] for k, s in stacks.items()]})  # fmt: skip
    done, curve = _resume(stacks, state, request)
    if progress is not None and done:
        progress.advance(done)
    every, total, counted = max(1, steps // _CURVE_POINTS), {k: torch.zeros(s.heads) for k, s in stacks.items()}, 0
    plan = [(step, part) for step, part in enumerate(batches(rows, batch, steps, seed)) if step >= done]
    source = feed(done) if feed else ({k: s.load(part) for k, s in stacks.items()} for _, part in plan)
    saved = time.monotonic()
    for (step, part), features in zip(plan, source, strict=True):
        factor = cosine(step, steps)
        for name, stack in stacks.items():
            x, y = features[name].to(stack.device), labels[torch.from_numpy(part)].to(stack.device)
            total[name] += stack.step(x, y, factor).cpu()
        counted += 1
        if (step + 1) % every == 0:
            curve.append((step + 1, {k: (t / counted).tolist() for k, t in total.items()}))
            if progress is not None:
                progress.note(f"lowest loss {min(min(losses) for losses in curve[-1][1].values()):.4f}")
            total, counted = {k: torch.zeros(s.heads) for k, s in stacks.items()}, 0
            if state is not None and time.monotonic() - saved >= save_every:
                _save(stacks, state, request, step + 1, curve)
                saved = time.monotonic()
        if progress is not None:
            progress.advance()
    return curve


def _save(stacks: Mapping[str, _Stack], path: Path, request: str, step: int, curve: Curve) -> None:
    tensors = {f"{k}/{name}": t.cpu() for k, stack in stacks.items() for name, t in stack.tensors().items()}
    sealed.write_tensors(path, tensors, {"request": request, "step": str(step), "curve": json.dumps(curve)})


def _resume(stacks: Mapping[str, _Stack], path: Path | None, request: str) -> tuple[int, Curve]:
    """Steps already done and their curve; the stacks are set to the state of `path` where it is of the same request."""
    if path is None or not path.is_file():
        return 0, []
    try:
        found, about = sealed.read_tensors(path)
    except sealed.Damaged as e:
        sealed.remake(path, e, "the sweep starts again")
        return 0, []
    if about.get("request") != request:
        return 0, []
    for name, stack in stacks.items():
        for key, own in stack.tensors().items():
            own.copy_(found[f"{name}/{key}"])
    return int(about["step"]), [(step, losses) for step, losses in json.loads(about["curve"])]


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
