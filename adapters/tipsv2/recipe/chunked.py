"""The patch loss without its logits: of [patches, prototypes] only some rows exist at a time.

At 32,768 prototypes the logits of student and teacher, their softmaxes and gradients are by far the largest tensors of
a step. Here the gradients with respect to bottleneck and prototypes are made with the loss, some rows after others.
Only centering allows it: Sinkhorn-Knopp balances all rows together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

WHOLE = 2**22  # logits up to which they are made whole: 16 MiB in float32
ROWS_AT_ONCE = 2**22  # logits that exist at a time past that


class Cosines(NamedTuple):
    """Cosines [..., P] as the two factors of their product."""

    features: torch.Tensor  # [..., d], unit length
    prototypes: torch.Tensor  # [P, d], unit length


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
        taught = target.cosines.features.flatten(0, 1)
        by_feature, by_prototype = torch.zeros_like(features), torch.zeros_like(prototypes, dtype=torch.float32)
        loss, assigned = share.new_zeros(()), share.new_zeros(len(prototypes))
        step = max(1, ROWS_AT_ONCE // len(prototypes))
        for start in starts(len(features), step):
            rows = slice(start, start + step)
            goal = (taught[rows] @ target.cosines.prototypes.T).float().sub_(target.center).div_(target.temperature)
            goal = goal.softmax(-1)
            log_q = ((features[rows] @ prototypes.T).float() / temperature).log_softmax(-1)
            loss -= ((goal * log_q).sum(-1) * share[rows]).sum()
            assigned += goal.sum(0)
            grad = log_q.exp_().sub_(goal).mul_(share[rows, None] / temperature)
            by_feature[rows] = grad @ prototypes
            by_prototype += grad.T @ features[rows]
        ctx.save_for_backward(by_feature, by_prototype.to(prototypes.dtype))
        mean = assigned / len(features)
        ctx.mark_non_differentiable(mean)
        return loss, mean

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        by_feature, by_prototype = ctx.saved_tensors
        return by_feature * grad, by_prototype * grad, None, None, None
