"""Adafactor (TIPSv2), torch's Adafactor and AdamW; matrices are decayed, biases, norms, scales and tables of one row
are not."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from adapters.tipsv2.recipe.adafactor import Adafactor, TorchAdafactor
from adapters.tipsv2.recipe.config import OptimConfig
from adapters.tipsv2.recipe.schedule import peak_rate


def make_optimizer(named: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser over the parameters that take a gradient."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for _, parameter in named:
        if parameter.requires_grad:
            (decayed if _is_matrix(parameter) else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    lr = peak_rate(config)
    if config.name == "adamw":
        # fused, a fifth of the time on a CPU; on a GPU its counts of steps would have to lie there
        fused = all(parameter.device.type == "cpu" for parameter in (*decayed, *free))
        return torch.optim.AdamW(groups, lr=lr, betas=config.betas, fused=fused or None)
    if config.name == "adafactor-torch":
        return TorchAdafactor(groups, lr)
    return Adafactor(groups, lr, beta2_cap=config.beta2_cap)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _is_matrix(parameter: nn.Parameter) -> bool:
    return sum(n > 1 for n in parameter.shape) > 1
