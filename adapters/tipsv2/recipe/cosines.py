"""Cosines with prototypes that keep their own lengths: they are never copied at unit length, nor is their gradient;
each copy would be as large as they are (32 MiB for 32,768 × 256 in float32)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Cosines(NamedTuple):
    """Cosines [..., P] as what they are made of."""

    features: torch.Tensor  # [..., d], unit length
    head: Any  # whose `prototypes` they are with: FSDP hooks each tensor that a pass gives, and a parameter keeps hooks

    @property
    def prototypes(self) -> torch.Tensor:
        """[P, d], of any length."""
        found: torch.Tensor = self.head.prototypes
        return found


def cosines(features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """[..., P] float32 of unit features [..., d] and prototypes [P, d] of any length; the product is autocast's."""
    found: torch.Tensor = _Cosines.apply(features, prototypes)  # type: ignore[no-untyped-call]
    return found


def inverse_lengths(prototypes: torch.Tensor) -> torch.Tensor:
    """[P] float32; of a prototype that is zero F.normalize's 1e12."""
    lengths: torch.Tensor = torch.linalg.vector_norm(prototypes, dim=-1, dtype=torch.float32)
    return lengths.clamp_min_(1e-12).reciprocal_()


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total [n, m] += left [n, k] @ right [k, m]; a product that autocast makes in half precision is made first."""
    if torch.is_autocast_enabled(total.device.type):
        total += left @ right
    else:
        total.addmm_(left, right)


def through_lengths(grad: torch.Tensor, prototypes: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """The gradient of the prototypes, written over `grad` [P, d], that of them at unit length."""
    along = torch.linalg.vecdot(grad, prototypes).mul_(inverse.square())
    return grad.addcmul_(prototypes, along[:, None], value=-1).mul_(inverse[:, None])


class _Cosines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        inverse = inverse_lengths(prototypes)
        ctx.save_for_backward(features, prototypes, inverse)
        kind = features.device.type
        ctx.half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return (features @ prototypes.T).float().mul_(inverse)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        features, prototypes, inverse = ctx.saved_tensors
        with torch.autocast(features.device.type, ctx.half, enabled=ctx.half is not None):
            by_feature = (grad * inverse) @ prototypes
            by_prototype = (grad.flatten(0, -2).T @ features.flatten(0, -2)).to(prototypes.dtype)
        return by_feature.to(features.dtype), through_lengths(by_prototype, prototypes, inverse)
