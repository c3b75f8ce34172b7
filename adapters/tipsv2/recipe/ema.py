"""Moving averages for the teacher: of the projector alone (TIPSv2's head-only EMA) or of encoder and projector."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from adapters.tipsv2.recipe.checkpoint import whole


def averaged_copy(module: nn.Module) -> nn.Module:
    """A copy that starts equal and never takes a gradient."""
    return copy.deepcopy(module).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, online: nn.Module, momentum: float) -> None:
    """average ← momentum · average + (1 − momentum) · online, parameter by parameter."""
    for kept, new in zip(average.parameters(), online.parameters()):
        kept.lerp_(whole(new).to(kept.dtype), 1 - momentum)


def momentum_at(step: int, steps: int, start: float, end: float) -> float:
    """Cosine from `start` at step 0 to `end` at the last step."""
    return end - (end - start) * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))) / 2
