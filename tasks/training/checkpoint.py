"""The state of a training run in one safetensors file, replaced atomically: weights, AdamW's moments, losses so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmark.system import sealed

NAME = "head.safetensors"


@dataclass
class Progressed:
    """How far a run had come."""

    step: int  # steps done
    losses: list[float]


def save_state(folder: Path, key: str, head: nn.Module, optimiser: torch.optim.Optimizer, losses: list[float]) -> None:
    """Writes the state after len(losses) steps; `key` says what run it belongs to."""
    tensors = {f"head.{k}": v for k, v in head.state_dict().items()}
    for name, parameter in head.named_parameters():
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{moment}.{name}"] = torch.as_tensor(value)
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    sealed.write_tensors(folder / NAME, tensors, {"key": key})


def load_state(folder: Path, key: str, head: nn.Module, optimiser: torch.optim.Optimizer, device: str) -> Progressed:
    """Puts a saved state into `head` and `optimiser`; step 0 where there is none, a damaged one, or one of another
    run."""
    try:
        tensors, facts = sealed.read_tensors(folder / NAME)
    except FileNotFoundError:
        return Progressed(0, [])
    except sealed.Damaged as e:
        sealed.remake(folder / NAME, e, "the head is trained from its first step")
        return Progressed(0, [])
    if facts.get("key") != key:
        return Progressed(0, [])
    head.load_state_dict({k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")})
    for name, parameter in head.named_parameters():
        state = {
            k.split(".", 2)[1]: v
            for k, v in tensors.items()
            if k.startswith("optimiser.") and k.split(".", 2)[2] == name
        }
        if state:  # AdamW keeps its step count on the CPU
            optimiser.state[parameter] = {k: v if k == "step" else v.to(device) for k, v in state.items()}
    losses = tensors["losses"].tolist()
    return Progressed(len(losses), losses)
