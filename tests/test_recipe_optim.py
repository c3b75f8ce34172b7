"""Our Adafactor against torch's, which cannot step sharded parameters (`test_recipe_parallel` has those)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from adapters.tipsv2.recipe.config import OptimConfig
from adapters.tipsv2.recipe.optim import make_optimizer

SHAPES = [(7, 5), (4, 3, 2, 2), (1, 1, 6), (5, 1), (6,), (1,)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adafactor_is_torchs_bit_for_bit(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    ours.append(nn.Parameter(torch.zeros(4, 4)))  # its step is scaled by the floor instead of its own size
    theirs = copy.deepcopy(ours)
    config = OptimConfig(name="adafactor", lr=0.05, weight_decay=weight_decay)
    first = make_optimizer(((str(i), p) for i, p in enumerate(ours)), config)
    groups = [{"params": theirs, "weight_decay": 0.0}]
    matrices = [p for p in theirs if sum(n > 1 for n in p.shape) > 1]
    if weight_decay:
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": [p for p in theirs if all(p is not m for m in matrices)], "weight_decay": 0.0},
        ]
    second = torch.optim.Adafactor(groups, lr=0.05)
    for step in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator) * 10.0 ** (step - 2)
            b.grad = None if a.grad is None else a.grad.clone()
        first.step()
        second.step()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b), (step, a.shape)


def test_adafactor_leaves_a_parameter_without_gradient_alone() -> None:
    parameter = nn.Parameter(torch.ones(3, 2))
    optimiser = make_optimizer([("p", parameter)], OptimConfig(name="adafactor", lr=0.1))
    optimiser.step()
    assert torch.equal(parameter, torch.ones(3, 2))
    assert float(optimiser.state[parameter]["step"]) == 0
