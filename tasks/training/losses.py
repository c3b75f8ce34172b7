"""Losses of depth and normals. Each takes a batch and gives a scalar; pixels that are not valid count for nothing.

DINOv2's released GradientLoss slices [B, 1, H, W] tensors along their first two axes: it compares pictures of a batch,
not neighbouring pixels, and is always zero with the two pictures each of its devices has. Probe3D's copy did the same
until its ac00369 (2025); since then it compares pixels, as DINOv3 does. `gradient_axes` says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from benchmark.system.late import F, torch

GradientAxes = Literal["image", "released"]
EPS = 1e-3  # added to depths before the logarithm, DINOv2 and Probe3D
TINY = 1e-12  # keeps the square root's slope finite at 0
COSINE_EDGE = 1e-4  # Probe3D clamps cosines this far from ±1


def sig_loss(guess: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, with_variance: bool = True) -> torch.Tensor:
    """√(var(g) + 0.15·mean(g)²) of g = log guess − log truth over all valid pixels given (AdaBins).

    Without the variance during DINOv2's warm-up. The variance is the biased one; DINOv2's differs by 1/n of itself.
    """
    if not valid.any():
        return guess.sum() * 0
    gap = torch.log(guess[valid] + EPS) - torch.log(truth[valid] + EPS)
    inner = 0.15 * gap.mean() ** 2
    if with_variance:
        inner = inner + gap.var(correction=0)
    return torch.sqrt(inner + TINY)


def gradient_loss(
    guess: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, axes: GradientAxes = "image"
) -> torch.Tensor:
    """Differences over two steps of the log gap, at strides 1, 2, 4 and 6, each over its count of valid pixels.

    All [B, H, W]. MegaDepth's loss as DINOv2 writes it (strides 2, 4, 6, not powers of two). Axes `image`: steps are
    pixels, down and across; `released`: pictures of the batch.
    """
    total = guess.new_zeros(())
    along = (1, 2) if axes == "image" else (0,)
    for stride in (1, 2, 4, 6):
        thin = tuple(slice(None, None, stride if axis in along else 1) for axis in range(3))
        ok = valid[thin]
        gap = (torch.log(guess[thin] + EPS) - torch.log(truth[thin].clamp_min(0) + EPS)) * ok
        for axis in along:
            (near, far), (near_ok, far_ok) = _two_apart(gap, axis), _two_apart(ok, axis)
            total = total + ((near - far).abs() * (near_ok & far_ok)).sum() / ok.sum().clamp_min(1)
    return total


def _two_apart(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All but the last two and all but the first two along `axis`."""
    length = max(x.shape[axis] - 2, 0)
    return x.narrow(axis, 0, length), x.narrow(axis, x.shape[axis] - length, length)


def over_groups(
    loss: Callable[..., torch.Tensor], guess: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, size: int
) -> torch.Tensor:
    """Mean of `loss` over groups of `size` pictures of the batch (0: the whole batch), all [B, H, W].

    What data-parallel training does: each device takes the loss of its own pictures, and gradients are averaged.
    """
    groups = zip(*(torch.split(x, size or len(guess)) for x in (guess, truth, valid)))
    return torch.stack([loss(*group) for group in groups]).mean()


def normal_loss(guess: torch.Tensor, truth: torch.Tensor, kind: str) -> torch.Tensor:
    """Mean over valid pixels. guess [B, 3 or 4, H, W], truth [B, H, W, 3], NaN where invalid.

    A zero vector is at a right angle to every guess, as in Probe3D: it teaches only the certainty.
    angular: the angle in radians. uncertainty: Bae et al. 2021 as Probe3D has it, κ·angle + log(1 + e^(−κπ)) −
    log(κ² + 1) with κ = ELU(4th channel) + 1.01. l2: squared distance of unit vectors.
    """
    valid = torch.isfinite(truth).all(-1)
    if not valid.any():
        return guess.sum() * 0
    vectors = guess.permute(0, 2, 3, 1)[valid]  # [n, 3 or 4]
    truth = truth[valid]
    if kind == "l2":
        return ((F.normalize(vectors[:, :3], dim=1) - truth) ** 2).sum(1).mean()
    angle = F.cosine_similarity(vectors[:, :3], truth, dim=1).clamp(COSINE_EDGE - 1, 1 - COSINE_EDGE).acos()
    if kind == "angular":
        return angle.mean()
    kappa = F.elu(vectors[:, 3]) + 1.01
    return (torch.log1p(torch.exp(-kappa * math.pi)) - torch.log(kappa**2 + 1) + kappa * angle).mean()
