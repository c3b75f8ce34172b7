"""Depth with a head trained by gradient steps on a frozen encoder: 256 bins, linear (NYUv2) or DPT (NAVI)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmark.contracts import Answer, DepthData, Encoder, ImageSet, KeptHead, Measurement, Outcome, TaskContext
from benchmark.metrics.geometry import depth_errors, scale_and_shift
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Amount, Count, NotNegative, Positive
from benchmark.system.late import torch
from tasks.dense import mean_target, resampled_by_thing, stack_rows
from tasks.idle_fields import check_range
from tasks.training.fields import TrainedHead
from tasks.training.losses import GradientAxes, gradient_loss, over_groups, sig_loss
from tasks.training.scoring import answered, kept_pictures, predicted

if TYPE_CHECKING:
    from tasks.training.frozen import Shown
    from tasks.training.head import Ready


def eigen_crop(values: np.ndarray | torch.Tensor) -> Any:
    """Rows 45–471 and columns 41–601 of a map of 480 × 640 (Eigen et al. 2014), in proportion for other sizes."""
    height, width = values.shape[:2]
    return values[45 * height // 480 : 471 * height // 480, 41 * width // 640 : 601 * width // 640]


@dataclass(frozen=True)
class TrainedDepth(TrainedHead):
    """A TrainedHead whose output are scores over depth bins."""

    bins: Count
    min_depth: Positive  # metres; first bin
    max_depth: NotNegative  # last bin; deeper pixels take no part in training. 0: the dataset's own limit
    bin_floor: NotNegative  # added to the scores after the ReLU
    # each map is first scaled to 0.01 … 1 between its nearest (NAVI: of the uncut picture) and its farthest pixel
    relative: bool
    sig_weight: NotNegative
    sig_warmup: Amount  # steps whose SigLoss has no variance term
    gradient_weight: NotNegative
    gradient_axes: GradientAxes  # see tasks.training.losses
    loss_group: Amount  # pictures a loss is taken over, then averaged: those of one device; 0: the whole batch
    eval_crop: Literal["none", "eigen"]  # Eigen's rows 45–471 and columns 41–601 of 480 × 640 alone are scored
    score_min: NotNegative  # metres, exclusive, as the next
    score_max: NotNegative  # 0: no limit
    alignment: Literal["none", "scale_shift"]  # by least squares on each picture's valid pixels, before scoring

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("max_depth", self.min_depth, self.max_depth)
        check_range("score_max", self.score_min, self.score_max)


@dataclass(frozen=True)
class Scaled(DepthData):
    """Depth maps, each scaled to 0.01 … 1 between its nearest and its farthest valid pixel."""

    base: DepthData
    images: ImageSet = field(init=False)
    relative: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", self.base.images)

    @property
    def digest(self) -> str:
        return self.base.digest

    def thing_of(self, image_id: str) -> str | None:
        return self.base.thing_of(image_id)

    def target(self, index: int) -> np.ndarray:
        return relative_depth(self.base.target(index))


def trained_data(data: Mapping[str, Any], p: TrainedDepth) -> Mapping[str, Any]:
    """Every split; for relative depth with its maps scaled, where their reader has not done it."""
    return {split: Scaled(one) if p.relative and not one.relative else one for split, one in data.items()}


def relative_depth(depth: np.ndarray) -> np.ndarray:
    """Probe3D's `navi_reldepth`: (d − min) / max(0.01, max − min) · 0.99 + 0.01 where d is valid, else 0."""
    valid = np.isfinite(depth) & (depth > 0)
    if not valid.any():
        return np.zeros_like(depth, np.float32)
    low, high = depth[valid].min(), depth[valid].max()
    scaled = (np.where(valid, depth, low) - low) / max(0.01, high - low) * 0.99 + 0.01
    return np.where(valid, scaled, 0).astype(np.float32)


def metres_of(
    p: TrainedDepth, far: float, ready: Ready, shown: Shown | torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """[B, 1, *size] metres between the protocol's nearest and `far`, for images [B, 3, H, W] or what was encoded of
    them."""
    from benchmark.heads.depth_bins import depth_of_scores  # modules of torch: not for reading a preset

    found: torch.Tensor = ready.maps(shown, lambda scores: depth_of_scores(scores, p.min_depth, far, p.bin_floor), size)
    return found


def run_trained(context: TaskContext, p: TrainedDepth, limit: float) -> Outcome:
    """Trains or loads the head, scores every test picture. `limit` is the dataset's farthest depth in metres."""
    from tasks.training.head import make_head

    far = p.max_depth or limit
    data = trained_data(context.data, p)
    started = time.perf_counter()
    metres = partial(metres_of, p, far)

    def loss(ready: Ready, batch: Shown, step: int) -> torch.Tensor:
        truth = batch.targets  # [B, H, W]
        guess = metres(ready, batch, (truth.shape[1], truth.shape[2]))[:, 0]
        valid = (truth > 0) & (truth <= far)

        def of_group(guess: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            total = p.sig_weight * sig_loss(guess, truth, valid, with_variance=step >= p.sig_warmup)
            if p.gradient_weight:
                total = total + p.gradient_weight * gradient_loss(guess, truth, valid, p.gradient_axes)
            return total

        return over_groups(of_group, guess, truth, valid, p.loss_group)

    ready = make_head(context, p, data, p.bins, loss, "depth")
    trained = time.perf_counter()
    test = data["test"]
    bar = context.progress("scoring depth", len(test.images))
    rows, blind = [], []
    mean = mean_target(data, lambda depth: np.isfinite(depth) & (depth > 0) & (depth <= far))
    for index, found, target in predicted(test, range(len(test.images)), p, lambda i, s: metres(ready, i, s)):
        rows.append({"id": test.images.image_id(index), **score(found[0].cpu().numpy(), target, p, far)})
        blind.append(score(np.full(target.shape, mean, np.float32), target, p, far))
        bar.advance()
    samples = stack_rows(rows)
    files = kept_pictures(context, samples, test, p, lambda i, s: metres(ready, i, s), "depth", far)
    return Outcome(
        samples,
        resampled_by_thing(test, samples, depth_measurements("" if p.relative else "m")),
        main_metric="RMSE" if p.average == "image" else "RMSE pooled",
        n=len(rows),
        details={**ready.details, "max_depth_m": far},
        fit_s=trained - started,
        score_s=time.perf_counter() - trained,
        files={**ready.files, **files},
        head=ready.kept("depth", test, far=far, relative=p.relative),
        blind=[stack_rows(blind)],
    )


def answer(p: TrainedDepth, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
    """The metres (or, if relative, the share of the range) that a kept head sees in a picture."""
    from tasks.training.head import restored

    ready = restored(head, encoder, device, p, p.bins)
    return answered(head, p, picture, lambda i, s: metres_of(p, head.use["far"], ready, i, s))


def score(guess: np.ndarray, target: np.ndarray, p: TrainedDepth, far: float) -> dict[str, float]:
    """One picture's errors, both maps [H, W]: crop, range and alignment as the protocol has them."""
    if p.eval_crop == "eigen":
        guess, target = eigen_crop(guess), eigen_crop(target)
    low, high = p.score_min, p.score_max or np.inf
    if p.alignment == "scale_shift":
        guess = scale_and_shift(guess, target, low, high)
        return depth_errors(guess, target, low, high)
    return depth_errors(np.clip(guess, p.min_depth, far), target, low, high)


def depth_measurements(unit: str = "m") -> list[Measurement]:
    """RMSE, abs-rel and δ1 as means over images, as BTS, DINOv2 and Probe3D report them, and RMSE over all pixels."""
    return [
        Measurement("RMSE", Statistic("mean", ("rmse",)), False, unit),
        Measurement("RMSE pooled", Statistic("root_ratio", ("sse", "n")), False, unit),
        Measurement("abs-rel", Statistic("mean", ("abs_rel",)), False, ""),
        Measurement("δ1", Statistic("mean", ("d1",), 100.0), True, "%"),
    ]
