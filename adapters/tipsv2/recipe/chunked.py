"""The patch loss without its logits: of [patches, prototypes] only some rows exist at a time.

At 32,768 prototypes the logits of student and teacher, their softmaxes and gradients are by far the largest tensors of
a step. Here the gradients with respect to bottleneck and prototypes are made with the loss, some rows after others.
Only centering allows it: Sinkhorn-Knopp balances all rows together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from adapters.tipsv2.recipe.cosines import Cosines, add_product, inverse_lengths, through_lengths

WHOLE = 2**22  # logits up to which they are made whole: 16 MiB in float32
ROWS_AT_ONCE = 2**21  # logits that exist at a time past that


class Assigned(NamedTuple):
    """The teacher's target softmax((cosine − center) / temperature), not yet computed."""

    cosines: Cosines
    center: torch.Tensor  # [P]
    temperature: float


def starts(rows: int, step: int) -> Iterable[int]:
    """Where the parts of `rows` begin that are computed one after another."""
    return range(0, rows, step)


def patch_loss_by_rows(
    student: Cosines, target: Assigned, temperature: float, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(`losses.patch_loss`, mean target [P]) of factors [B, N, d]; `weights` [B, N] as there."""
    shape = student.features.shape[:2]
    if weights is None:
        share = torch.full(shape, 1 / (shape[0] * shape[1]), device=student.features.device)
    else:
        share = weights.float() / weights.sum(1, keepdim=True).clamp_min(1) / shape[0]
    loss, mean = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        student.features.flatten(0, 1), student.prototypes, target, temperature, share.flatten()
    )
    return loss, mean


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, features: torch.Tensor, prototypes: torch.Tensor, target: Assigned, temperature: float, share: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        taught, theirs = target.cosines.features.flatten(0, 1), target.cosines.prototypes
        inverse, their_inverse = inverse_lengths(prototypes), inverse_lengths(theirs)
        by_feature, by_prototype = torch.zeros_like(features), torch.zeros_like(prototypes, dtype=torch.float32)
        loss, assigned = share.new_zeros(()), share.new_zeros(len(prototypes))
        step = max(1, ROWS_AT_ONCE // len(prototypes))
        kind = features.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else prototypes.dtype
        ours_low, theirs_low = prototypes.to(low), theirs.to(low)  # else autocast makes them anew for each part
        for start in starts(len(features), step):
            rows = slice(start, start + step)
            goal = (taught[rows] @ theirs_low.T).float().mul_(their_inverse)
            _softmax(goal.sub_(target.center).div_(target.temperature))
            ours = (features[rows] @ ours_low.T).float().mul_(inverse).div_(temperature)
            chosen = torch.linalg.vecdot(goal, ours)
            loss += ((_softmax(ours) - chosen) * share[rows]).sum()
            assigned += goal.sum(0)
            grad = ours.sub_(goal).mul_(share[rows, None] / temperature)
            add_product(by_prototype, grad.T, features[rows])
            by_feature[rows] = grad.mul_(inverse) @ ours_low
            del goal, ours, grad
        ctx.grads = [(by_feature, through_lengths(by_prototype, prototypes, inverse).to(prototypes.dtype))]
        mean = assigned / len(features)
        ctx.mark_non_differentiable(mean)
        return loss, mean

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_feature, by_prototype = ctx.grads.pop()  # once; what nobody else holds becomes the parameter's gradient
        return by_feature.mul_(grad), by_prototype.mul_(grad), None, None, None


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    """Writes the softmax over logits [n, P]; their log of summed exponentials [n]."""
    most = logits.amax(-1, keepdim=True)
    total = logits.sub_(most).exp_().sum(-1, keepdim=True)
    logits.div_(total)
    return most.add_(total.log_()).squeeze(-1)
