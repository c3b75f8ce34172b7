"""A training probe's state in one safetensors file, written atomically: head, optimiser, curve, step. No pickle."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from benchmark.system import sealed

SHARE = 50  # saving may cost one fiftieth of the time


@dataclass
class Curve:
    """Mean loss and accuracy over `every` steps: rows of (step, learning rate, loss, pixel accuracy in percent)."""

    every: int
    rows: list[list[float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # sums of loss and accuracy, count

    def add(self, step: int, rate: float, loss: float, accuracy: float) -> None:
        """The values of `step` (1 is the first)."""
        self.pending = [self.pending[0] + loss, self.pending[1] + accuracy, self.pending[2] + 1]
        if step % self.every == 0:
            total, right, count = self.pending
            self.rows.append([float(step), rate, total / count, right / count])
            self.pending = [0.0, 0.0, 0.0]

    @property
    def text(self) -> str:
        """The curve as CSV."""
        lines = [f"{int(step)},{rate:.6g},{loss:.6g},{right:.6g}" for step, rate, loss, right in self.rows]
        return "\n".join(["step,learning_rate,loss,pixel_accuracy", *lines, ""])


class Checkpoint:
    """`path` as the one checkpoint of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved, self._cost = time.monotonic(), 0.02

    def read(self) -> dict[str, torch.Tensor] | None:
        """Its tensors; None before the first save, or where it is damaged, which is said."""
        try:
            return sealed.read_tensors(self.path)[0]
        except FileNotFoundError:
            return None
        except sealed.Damaged as e:
            sealed.remake(self.path, e, "the probe is trained from its first step")
            return None

    def due(self) -> bool:
        """Whether enough time has passed for a save to cost little."""
        return time.monotonic() - self._saved > SHARE * self._cost

    def save(self, step: int, head: nn.Module, optimizer: torch.optim.Optimizer, curve: Curve) -> None:
        """Everything the next step depends on."""
        started = time.monotonic()
        tensors = {f"head/{k}": v for k, v in head.state_dict().items()}
        for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
            tensors |= {f"optimizer/{i}/{k}": torch.as_tensor(v) for k, v in optimizer.state[parameter].items()}
        tensors["curve"] = torch.tensor(curve.rows, dtype=torch.float64).reshape(-1, 4)
        tensors["pending"] = torch.tensor(curve.pending, dtype=torch.float64)
        tensors["step"] = torch.tensor(step)
        sealed.write_tensors(self.path, tensors, {})
        self._saved = time.monotonic()
        self._cost = max(0.005, self._saved - started)


def restore(tensors: dict[str, torch.Tensor], head: nn.Module, optimizer: torch.optim.Optimizer, curve: Curve) -> None:
    """Puts a checkpoint's tensors back in place."""
    head.load_state_dict({k.removeprefix("head/"): v for k, v in tensors.items() if k.startswith("head/")})
    for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
        prefix = f"optimizer/{i}/"
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        optimizer.state[parameter] = {k: v.to(parameter.device) if v.ndim else v for k, v in state.items()}
    curve.rows = tensors["curve"].tolist()
    curve.pending = tensors["pending"].tolist()
