"""Both Adafactors against what they are to be (`test_recipe_parallel` has sharded parameters); every shipped config's
optimiser trains, and none steps on a gradient that is no number."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_fixtures import tiny
from safetensors.torch import load_file
from torch import nn

from adapters.tipsv2.recipe import trainer
from adapters.tipsv2.recipe.checkpoint import checkpoints, load_checkpoint
from adapters.tipsv2.recipe.config import OptimConfig
from adapters.tipsv2.recipe.config_file import CONFIGS, read_config
from adapters.tipsv2.recipe.guards import DivergenceError
from adapters.tipsv2.recipe.optim import make_optimizer
from adapters.tipsv2.recipe.schedule import peak_rate
from adapters.tipsv2.recipe.trainer import train

SHAPES = [(7, 5), (4, 3, 2, 2), (1, 1, 6), (5, 1), (6,), (1,)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adafactor_is_torchs_bit_for_bit(weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    ours.append(nn.Parameter(torch.zeros(4, 4)))  # its step is scaled by the floor instead of its own size
    theirs = copy.deepcopy(ours)
    config = OptimConfig(name="adafactor-torch", lr=0.05, weight_decay=weight_decay)
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


def expected(parameter: torch.Tensor, grads: list[torch.Tensor], lr: float, decay: float, cap: float) -> torch.Tensor:
    """big_vision's scale_by_adafactor in float64, as its chain of optax transformations defines it."""
    value, moment = parameter.double(), torch.zeros_like(parameter, dtype=torch.float64)
    rows = columns = full = torch.zeros((), dtype=torch.float64)
    for t, grad in enumerate(grads, 1):
        beta = min(cap, 1 - t**-0.8)
        squares = grad.double() ** 2 + 1e-30
        if grad.ndim > 1 and min(grad.shape[-2:]) >= 32:
            rows = beta * rows + (1 - beta) * squares.mean(-1, keepdim=True)
            columns = beta * columns + (1 - beta) * squares.mean(-2, keepdim=True)
            update = grad.double() * (rows / rows.mean(-2, keepdim=True)) ** -0.5 * columns**-0.5
        else:
            full = beta * full + (1 - beta) * squares
            update = grad.double() * full**-0.5
        update = 0.1 * update + 0.9 * moment
        moment = update.bfloat16().double()
        value = value * (1 - lr * decay) - lr * update
    return value


@pytest.mark.parametrize("scale", [1e3, 1.0, 1e-12], ids=["large", "unit", "small"])
def test_adafactor_is_that_of_vision_transformers(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(40, 36), (2, 33, 32), (8, 64), (4, 3, 2, 2), (1, 1, 64), (64,), (1,)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    grads = [[scale * torch.randn(shape, generator=generator) for _ in range(6)] for shape in shapes]
    ours = [nn.Parameter(p.clone()) for p in start]
    config = OptimConfig(name="adafactor", lr=0.01, weight_decay=0.1, beta2_cap=0.7)  # reached at the fifth step
    optimiser = make_optimizer(((str(i), p) for i, p in enumerate(ours)), config)
    for t in range(6):
        for parameter, given in zip(ours, grads, strict=True):
            parameter.grad = given[t].clone()
        optimiser.step()
    for parameter, first, given in zip(ours, start, grads, strict=True):
        decay = 0.1 if sum(n > 1 for n in first.shape) > 1 else 0.0
        torch.testing.assert_close(parameter.double(), expected(first, given, 0.01, decay, 0.7), rtol=1e-5, atol=1e-6)
    assert optimiser.state[ours[0]]["momentum"].dtype == torch.bfloat16


CONFIGS_READ = [read_config(path.stem) for path in sorted(CONFIGS.glob("*.toml"))]
OPTIMISERS = {(config.optim.name, peak_rate(config.optim)): config for config in CONFIGS_READ}


@pytest.mark.parametrize("chosen", OPTIMISERS, ids=str)
def test_fifty_steps_with_a_shipped_configs_optimiser_lower_the_loss(tmp_path: Path, chosen: Any) -> None:
    """The rate that stood there before left the contrastive loss at that of chance, log(16) = 2.77."""
    optim = vars(OPTIMISERS[chosen].optim)
    changes = {f"optim__{k}": list(v) if k == "betas" else v for k, v in optim.items()}
    config = tiny(
        model__width=32, model__depth=1, model__init_std=0.02, train__steps=50, train__batch_size=16,
        train__log_every=10, train__checkpoint_every=0, loss__dino=0.0, loss__patch_loss="none", data__samples=4000,
        **changes,
    )  # fmt: skip
    train(config, tmp_path, quiet=True)
    rows = [json.loads(line)["contrastive"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(rows[-2:]) / 2 < 2.5, rows


@pytest.mark.parametrize(
    "changes",
    [
        {"train__steps": 2, "train__keep": 1, "optim__name": "adafactor"},
        {"train__steps": 3, "optim__clip": 0.0, "train__dtype": "bfloat16", "train__accumulate": 2},
    ],
)
def test_a_gradient_that_overflows_stops_before_it_reaches_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Clipping makes an infinite gradient NaN, and with it every weight."""
    original = trainer.backward

    def backward(*args):
        terms = original(*args)
        if args[4] == 1:
            args[0].heads["patch"].prototypes.grad[3, 2] = torch.inf
        return terms

    config = tiny(train__checkpoint_every=1, **changes)
    with monkeypatch.context() as patched:
        patched.setattr(trainer, "backward", backward)
        words = r"step 2: the norm of the gradient is inf\. The last good checkpoint is .*step-00000001\. Lower"
        with pytest.raises(DivergenceError, match=words):
            train(config, tmp_path, quiet=True)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
    assert all(v.isfinite().all() for v in load_checkpoint(tmp_path / "step-00000001")[0].values())
    assert not (tmp_path / "final").exists()
    final = train(config, tmp_path, quiet=True)  # goes on from there
    assert all(v.isfinite().all() for v in load_file(final / "model.safetensors").values())
