"""Gradients of one step, a pass of the student at a time.

Each pass is run backwards before the next one begins: what a pass keeps for its gradient is never held beside what
another keeps. The gradient of a sum, in the memory of its largest term.

With several micro-batches the contrastive loss still spans the whole batch: it is embedded once without a graph, the
loss's gradient with respect to those embeddings is kept, and each micro-batch is run again with ⟨embedding, kept
gradient⟩ in the place of the loss: the same gradient, in the memory of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.model import Clean, more_passes
from adapters.tipsv2.recipe.objective import Terms, feature_std, pair_loss, self_supervised
from adapters.tipsv2.recipe.parallel import exchanging, run_back
from adapters.tipsv2.recipe.teacher import Teacher


def precision(device: str, half: bool) -> torch.autocast:
    """bfloat16 products on a kind of device where they are to be `half`. No copy of a weight is kept for another use in
    the same pass: sharded or recomputed layers would hold all of theirs until it ends."""
    return torch.autocast(device, torch.bfloat16, enabled=half, cache_enabled=False)


@dataclass
class Kept:
    """The contrastive loss of a whole batch and its gradients with respect to what produced it."""

    value: torch.Tensor
    images: torch.Tensor  # [B, K, D]
    texts: torch.Tensor  # [B, K, D]
    temperature: torch.Tensor  # [1]


def backward(
    model: nn.Module, teacher: Teacher, batch: Batch, config: RecipeConfig, step: int, autocast: torch.autocast
) -> Terms:
    """Adds the step's gradients to the parameters; returns loss, contrastive, dino, patch, feature_std, the share of
    samples without an alt text and the mean assignments [P]."""
    parts = batch.split(config.train.accumulate)
    kept = _whole_batch(model, parts, config, autocast) if len(parts) > 1 and not config.model.frozen else None
    more = more_passes(config)
    sums: Terms = {}
    seen: list[torch.Tensor] = []
    for i, part in enumerate(parts):
        last, share = i == len(parts) - 1, len(part.ssl_rows) / len(batch.ssl_rows)
        with exchanging(model, last, ends=not more):
            with autocast:
                clean: Clean = model(part)
                targets = teacher(clean, part, step)
                if kept is None:
                    loss = value = pair_loss(clean.images, clean.texts, clean.temperature, config, part.captioned)
                else:
                    loss, value = _stand_in(clean, kept, i, len(parts)), kept.value / len(parts)
                _add(sums, {"loss": value, "contrastive": value})
                if clean.patch_logits is not None:
                    terms = self_supervised("patch", clean.patch_logits, targets.pop("patch"), part.mask, config, step)
                    loss = loss + share * terms["loss"]
                    _add(sums, terms, share)
            seen.append(clean.images.detach())
            del clean  # and with it the patches of the teacher's view, which later passes do not read
            run_back(model, loss, ends=not more)
        for what in more:
            ends, kind = what == more[-1], "patch" if what == "masked" else "cls"
            with exchanging(model, last, ends):
                with autocast:
                    terms = self_supervised(kind, model(part, what), targets.pop(kind), part.mask, config, step)
                    _add(sums, terms, share)
                run_back(model, share * terms["loss"], ends)
    sums["feature_std"] = feature_std(torch.cat(seen))
    sums["no_alt"] = (~batch.captioned[:, 0]).float().mean()
    return sums


def _add(sums: Terms, terms: Terms, share: float = 1.0) -> None:
    for name, term in terms.items():
        sums[name] = sums.get(name, 0) + share * term.detach()


def _whole_batch(model: nn.Module, parts: Sequence[Batch], config: RecipeConfig, autocast: torch.autocast) -> Kept:
    with torch.no_grad(), autocast:
        pieces = [model(part, "pairs") for part in parts]
        images, texts, temperature = torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces]), pieces[0][2]
    images, texts, temperature = (t.float().requires_grad_() for t in (images, texts, temperature))
    captioned = torch.cat([part.captioned for part in parts])
    value = pair_loss(images, texts, temperature, config, captioned)
    return Kept(value.detach(), *torch.autograd.grad(value, (images, texts, temperature)))


def _stand_in(clean: Clean, kept: Kept, part: int, parts: int) -> torch.Tensor:
    size = len(clean.images)
    rows = slice(part * size, (part + 1) * size)
    dot = (clean.images * kept.images[rows]).sum() + (clean.texts * kept.texts[rows]).sum()
    return dot + (clean.temperature * kept.temperature).sum() / parts
