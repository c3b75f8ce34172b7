"""One process or many: torchrun's environment, DDP or FSDP2, and the sums over processes that the log needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from adapters.tipsv2.recipe.config import TrainConfig
from adapters.tipsv2.recipe.model import Pretrainer
from benchmark.errors import UsageError


@dataclass(frozen=True)
class Place:
    """Where this process runs."""

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


@contextlib.contextmanager
def joined(train: TrainConfig) -> Iterator[Place]:
    """This process's Place; inside torchrun the process group is open for as long as the block runs."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    kind = train.device if train.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f'train.device = "{train.device}", but torch sees no GPU here. Set train.device = "cpu"')
    try:
        device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    except RuntimeError:
        raise UsageError(f'train.device = "{train.device}" is no device. Give auto, cpu, cuda or cuda:N') from None
    bf16 = train.dtype == "bfloat16" or (
        train.dtype == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    dtype = torch.bfloat16 if bf16 else torch.float32
    if train.threads:
        torch.set_num_threads(train.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Place(device, dtype)
        return
    if train.batch_size % (world * train.accumulate):
        raise UsageError(
            f"train.batch_size = {train.batch_size} must be divisible by {world} processes"
            f" × train.accumulate = {train.accumulate}"
        )
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Place(device, dtype, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def wrap(student: Pretrainer, train: TrainConfig, place: Place) -> nn.Module:
    """The callable model of a run: DDP, FSDP2 (layers, then the rest) or the student itself; compiled on request."""
    if train.activation_checkpointing:
        student.encoder.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]
    if train.strategy == "fsdp" and place.world > 1:
        from torch.distributed.fsdp import fully_shard

        for layer in [*student.encoder.vision_model.encoder.layer, *student.encoder.text_model.encoder.layers]:
            fully_shard(layer)
        fully_shard(student, ignored_params={student.encoder.temperature})  # a scalar, and not trained
        model: nn.Module = student
    elif place.world > 1:
        model = nn.parallel.DistributedDataParallel(
            student, device_ids=[place.device] if place.device.type == "cuda" else None
        )
    else:
        model = student
    if train.compile:
        model.compile()
    return model


@contextlib.contextmanager
def synchronised(model: nn.Module, last: bool) -> Iterator[None]:
    """Gradients are exchanged between processes in the last micro-batch of a step only."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
        with model.no_sync():
            yield
        return
    set_sync = getattr(model, "set_requires_gradient_sync", None)
    if set_sync is not None:
        set_sync(last)
    yield


def mean_over_processes(value: torch.Tensor, place: Place) -> torch.Tensor:
    """The mean of equal-sized readings."""
    if place.world > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= place.world
    return value
