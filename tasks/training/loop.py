"""The loop: AdamW on a head, its encoder frozen, with checkpoints that cost little and lose little.

The last head is the one that is used: nothing is selected, so nothing can be selected on the reported split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from benchmark.contracts import Progress
from benchmark.errors import BenchError
from tasks.training.checkpoint import load_state, save_state
from tasks.training.fields import TrainedHead
from tasks.training.schedule import first_momentum, learning_rate

B = TypeVar("B")  # a batch
VERSION = "2"  # raised when the same protocol and seed would give another head
LEAST_S, SHARE = 1.0, 20.0  # a checkpoint at most every second, and at most a twentieth of the time
STD = 0.87962566103423978  # of a normal distribution cut at two deviations


def fit(
    head: nn.Module,
    p: TrainedHead,
    read: Callable[[int], Iterable[B]],
    loss: Callable[[nn.Module, B, int], torch.Tensor],
    folder: Path,
    key: str,
    bar: Progress,
    device: str,
) -> list[float]:
    """Trains `head` in place and returns the loss of every step; leaves it in eval mode. `read` gives the batches from
    a step on, `loss` the loss of a batch at a step.

    A run with the same `folder` and `key` that was stopped goes on from its last checkpoint, and ends with the same
    numbers as one that was not. Raises BenchError in one line when the loss or the gradient is no longer finite.
    """
    head.to(device).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)
    key = f"{VERSION}:{key}"
    losses = load_state(folder, key, head, optimiser, device).losses
    bar.advance(len(losses))
    saved, cost = time.monotonic(), 0.0
    for step, batch in enumerate(read(len(losses)), len(losses)):
        for group in optimiser.param_groups:
            group["lr"], group["betas"] = learning_rate(p, step), (first_momentum(p, step), p.beta2)
        value = loss(head, batch, step)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        norm = nn.utils.clip_grad_norm_(head.parameters(), p.clip if p.clip else math.inf)
        number = float(value.detach())
        if not (math.isfinite(number) and math.isfinite(float(norm))):
            raise BenchError(
                f"training stopped at step {step + 1} of {p.steps}: the loss is {number:g}, its gradient "
                f"{float(norm):g}. Try a lower rate: --set learning_rate={p.learning_rate / 10:g}"
            )
        optimiser.step()
        losses.append(number)
        bar.advance()
        bar.note(f"loss {sum(losses[-50:]) / len(losses[-50:]):.4f}")
        if step + 1 == p.steps or time.monotonic() - saved > max(LEAST_S, SHARE * cost):
            begun = time.monotonic()
            save_state(folder, key, head, optimiser, losses)
            saved, cost = time.monotonic(), time.monotonic() - begun
    head.eval()
    return losses


def initialise(build: Callable[[], nn.Module], how: str, seed: int) -> nn.Module:
    """A new head whose first weights depend on `seed` alone: torch's defaults, N(0, 0.01), or Flax's LeCun normal."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = build()
        for module in head.modules():
            if how == "torch" or not isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                continue
            if how == "normal":
                nn.init.normal_(module.weight, std=0.01)
            else:
                fan_in = module.weight[0].numel()
                if isinstance(module, nn.ConvTranspose2d):
                    fan_in = module.weight[:, 0].numel()
                std = math.sqrt(1 / fan_in) / STD
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return head
