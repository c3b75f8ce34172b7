"""Gradients of one step. With several micro-batches the contrastive loss still spans the whole batch.

The whole batch is embedded once without a graph; the loss's gradient with respect to those embeddings is kept,
and each micro-batch is run again with ⟨embedding, kept gradient⟩ in the place of the loss: the same gradient,
in the memory of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.model import StudentOutput
from adapters.tipsv2.recipe.objective import feature_std, pair_loss, self_supervised_loss
from adapters.tipsv2.recipe.parallel import synchronised
from adapters.tipsv2.recipe.teacher import Teacher


@dataclass
class Kept:
    """The contrastive loss of a whole batch and its gradients with respect to what produced it."""

    value: torch.Tensor
    images: torch.Tensor  # [B, K, D]
    texts: torch.Tensor  # [B, K, D]
    temperature: torch.Tensor  # [1]


def backward(
    model: nn.Module, teacher: Teacher, batch: Batch, config: RecipeConfig, step: int, autocast: torch.autocast
) -> dict[str, torch.Tensor]:
    """Adds the step's gradients to the parameters; returns loss, contrastive, dino, patch, feature_std, the share of
    samples without an alt text and the mean assignments [P]."""
    parts = batch.split(config.train.accumulate)
    kept = _whole_batch(model, parts, config, autocast) if len(parts) > 1 and not config.model.frozen else None
    sums: dict[str, torch.Tensor] = {}
    seen: list[torch.Tensor] = []
    for i, part in enumerate(parts):
        with synchronised(model, last=i == len(parts) - 1):
            with autocast:
                output: StudentOutput = model(part)
                targets = teacher(output, part, step)
                if kept is None:
                    pairs = value = pair_loss(output.images, output.texts, output.temperature, config, part.captioned)
                else:
                    pairs, value = _stand_in(output, kept, i, len(parts)), kept.value / len(parts)
                weight = len(part.ssl_rows) / len(batch.ssl_rows)
                ssl, terms = self_supervised_loss(output, targets, part.mask, config, step)
                loss = pairs + weight * ssl
            loss.backward()  # type: ignore[no-untyped-call]
        seen.append(output.images.detach())
        terms |= {"loss": ssl}
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + weight * term.detach()
        sums["contrastive"] = sums.get("contrastive", 0) + value.detach()
    sums["loss"] = sums["loss"] + sums["contrastive"]
    sums["feature_std"] = feature_std(torch.cat(seen))
    sums["no_alt"] = (~batch.captioned[:, 0]).float().mean()
    return sums


def _whole_batch(model: nn.Module, parts: Sequence[Batch], config: RecipeConfig, autocast: torch.autocast) -> Kept:
    with torch.no_grad(), autocast:
        pieces = [model(part, contrastive_only=True) for part in parts]
        images, texts, temperature = torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces]), pieces[0][2]
    images, texts, temperature = (t.float().requires_grad_() for t in (images, texts, temperature))
    captioned = torch.cat([part.captioned for part in parts])
    value = pair_loss(images, texts, temperature, config, captioned)
    return Kept(value.detach(), *torch.autograd.grad(value, (images, texts, temperature)))


def _stand_in(output: StudentOutput, kept: Kept, part: int, parts: int) -> torch.Tensor:
    size = len(output.images)
    rows = slice(part * size, (part + 1) * size)
    dot = (output.images * kept.images[rows]).sum() + (output.texts * kept.texts[rows]).sum()
    return dot + (output.temperature * kept.temperature).sum() / parts
