"""Checkpoints of sharded weights: every process writes what it holds, and a run may go on with another number of them.

torch.distributed.checkpoint keeps its table of contents as a pickle, which is never loaded here. So: one safetensors
file for each process, and in the facts of the checkpoint along which dimension each tensor is cut. Parts follow one
another in the order of the processes, so that the files alone say where each belongs. Where several groups of processes
hold a copy of the weights each, the first group writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open

DIGEST = 32  # bytes of a sha256


def file_name(rank: int, world: int) -> str:
    """Of the process `rank` of `world` that hold the weights together."""
    return f"state-{rank:05d}-of-{world:05d}.safetensors"


def cut_along(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """name -> the dimension that a tensor is cut along, of those that are; empty for weights that are whole."""
    cuts = {}
    for name, tensor in tensors.items():
        for placement in getattr(tensor, "placements", ()):
            if placement.is_shard():
                cuts[name] = int(placement.dim)
    return cuts


def own_part(tensors: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """What this process writes: its part of each tensor that is cut, and as the first one what all hold alike."""
    cuts = cut_along(tensors)
    mine = {name: tensor for name, tensor in tensors.items() if rank == 0 or name in cuts}
    return {name: t.to_local() if hasattr(t, "to_local") else t for name, t in mine.items()}


def agree(digest: str | None, device: torch.device) -> list[str | None]:
    """Each process's sha256, None of one that could not write: told to all, so that all go on or none."""
    told = torch.zeros(DIGEST + 1, dtype=torch.uint8)
    if digest is not None:
        told[:] = torch.tensor([1, *bytes.fromhex(digest)], dtype=torch.uint8)
    told = told.to(device)
    found = [torch.zeros_like(told) for _ in range(dist.get_world_size())]
    dist.all_gather(found, told)
    rows = [bytes(row.tolist()) for row in found]
    return [row[1:].hex() if row[0] else None for row in rows]


class Parts(Mapping[str, torch.Tensor]):
    """The tensors of a sharded checkpoint, each made whole when it is asked for."""

    def __init__(self, folder: Path, world: int, cuts: Mapping[str, int]) -> None:
        self.cuts = cuts
        places = [folder / file_name(rank, world) for rank in range(world)]
        self.files: list[Any] = [safe_open(place, "pt") for place in places]  # mapped, not read
        self.names = list(self.files[0].keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.cuts:
            if name not in self.names:
                raise KeyError(name)
            whole: torch.Tensor = self.files[0].get_tensor(name)
            return whole
        return torch.cat([file.get_tensor(name) for file in self.files], self.cuts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
