"""The weighted sum of the three losses, and the numbers that the log and the guards read."""

from __future__ import annotations

import torch

from adapters.tipsv2.recipe.centering import Target
from adapters.tipsv2.recipe.chunked import Assigned, patch_loss_by_rows
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.cosines import Cosines
from adapters.tipsv2.recipe.losses import contrastive_loss, dino_loss, global_sum, patch_loss
from adapters.tipsv2.recipe.model import Logits, masks
from adapters.tipsv2.recipe.schedule import ramp

Terms = dict[str, torch.Tensor]


def self_supervised(
    kind: str, logits: Logits, target: Target, mask: torch.Tensor, config: RecipeConfig, step: int
) -> Terms:
    """A loss, weighted, and its readings. Of "cls" that of the crops' logits [M, b, P]: {"loss", "dino",
    "assignment_cls" [P]}; of "patch" that of logits [b, N, P], of which `mask` [b, N] were hidden: {"loss", "patch",
    "assignment_patch" [P]}."""
    temperature, weight = config.head.student_temperature, ramp(step, config.train.steps, config.loss.ssl_ramp)
    if isinstance(logits, Cosines) or isinstance(target, Assigned):
        assert isinstance(logits, Cosines) and isinstance(target, Assigned)  # `model.by_rows` of both
        loss, mean = patch_loss_by_rows(logits, target, temperature, _counted(mask, config))
    else:
        mean = target.detach().reshape(-1, target.shape[-1]).mean(0)
        if kind == "cls":
            loss = dino_loss(logits, target, temperature)
            return {"loss": weight * config.loss.dino * loss, "dino": loss, "assignment_cls": mean}
        loss = patch_loss(logits, target, temperature, _counted(mask, config))
    return {"loss": weight * config.loss.patch * loss, "patch": loss, "assignment_patch": mean}


def _counted(mask: torch.Tensor, config: RecipeConfig) -> torch.Tensor | None:
    """The patches that the patch loss runs over; None: all."""
    return mask if config.loss.patch_loss == "ibot" and masks(config) else None


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
    sums = global_sum(torch.cat([rows.sum(0).flatten(), rows.square().sum(0).flatten(), rows.new_tensor([len(rows)])]))
    total, squares = sums[:-1].chunk(2)
    variance = (squares - total.square() / sums[-1]) / (sums[-1] - 1)
    return variance.clamp_min(0).sqrt().mean().mul(images.shape[-1] ** 0.5).float()
