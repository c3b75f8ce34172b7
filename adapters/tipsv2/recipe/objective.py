"""The weighted sum of the three losses, and the numbers that the log and the guards read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from adapters.tipsv2.recipe.chunked import patch_loss_by_rows
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.cosines import Cosines
from adapters.tipsv2.recipe.losses import contrastive_loss, dino_loss, global_sum, patch_loss
from adapters.tipsv2.recipe.model import StudentOutput
from adapters.tipsv2.recipe.schedule import ramp


def self_supervised_loss(
    output: StudentOutput, targets: Mapping[str, Any], mask: torch.Tensor, config: RecipeConfig, step: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(weighted DINO + patch loss, {"dino", "patch", "assignment_cls" [P], "assignment_patch" [P]})."""
    total = output.images.new_zeros(())
    terms: dict[str, torch.Tensor] = {}
    temperature = config.head.student_temperature
    if output.local_logits is not None:
        terms["dino"] = dino_loss(output.local_logits, targets["cls"], temperature)
        total = total + config.loss.dino * terms["dino"]
    if output.patch_logits is not None:
        only_masked = config.loss.patch_loss == "ibot" and (not config.teacher.path or config.teacher.mask)
        weights = mask if only_masked else None
        if isinstance(output.patch_logits, Cosines):
            terms["patch"], terms["assignment_patch"] = patch_loss_by_rows(
                output.patch_logits, targets["patch"], temperature, weights
            )
        else:
            terms["patch"] = patch_loss(output.patch_logits, targets["patch"], temperature, weights)
        total = total + config.loss.patch * terms["patch"]
    for name, target in targets.items():
        if isinstance(target, torch.Tensor):
            terms[f"assignment_{name}"] = target.detach().reshape(-1, target.shape[-1]).mean(0)
    return ramp(step, config.train.steps, config.loss.ssl_ramp) * total, terms


def pair_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    temperature: torch.Tensor,
    config: RecipeConfig,
    captioned: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weighted contrastive loss over the pairs that are `captioned` [B, K]; zero where the towers are frozen."""
    if config.model.frozen:
        return images.new_zeros(())
    return config.loss.contrastive * contrastive_loss(images, texts, temperature, captioned)


@torch.no_grad()
def assignment_entropy(mean: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of the mean assignment [P]: log(P) when all prototypes are used alike, 0 when one takes all.

    The mean is that of the whole batch: n sharp rows have at most log(n), however well they spread.
    """
    return -(mean * mean.clamp_min(1e-12).log()).sum()


@torch.no_grad()
def feature_std(images: torch.Tensor) -> torch.Tensor:
    """Mean standard deviation over the global batch of the normalised CLS, times √D: 1 for spread, 0 for collapsed.

    `images` [B, K, D] are all rows of this process; neither micro-batches nor processes change the value.
    """
    rows = images.double()
    count, total = global_sum(rows.new_tensor(float(len(rows)))), global_sum(rows.sum(0))
    squares = global_sum((rows - total / count).square().sum(0))
    return (squares / (count - 1)).sqrt().mean().mul(images.shape[-1] ** 0.5).float()
