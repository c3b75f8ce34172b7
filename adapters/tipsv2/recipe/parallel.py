"""One process or many: torchrun's environment, DDP or FSDP2, and the sums over processes that the log needs."""

from __future__ import annotations

import contextlib
import gc
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from adapters.tipsv2.recipe.config import TrainConfig
from adapters.tipsv2.recipe.model import Pretrainer, checkpoint_activations
from benchmark.errors import UsageError


@dataclass(frozen=True)
class Place:
    """Where this process runs."""

    device: torch.device
    dtype: torch.dtype
    rank: int = 0
    world: int = 1
    mesh: DeviceMesh | None = None  # the processes of this run, [N] or [copies, shards of each]; None for one
    shards: int = 1  # processes that hold the weights together where they are sharded: the first `shards`, the next …

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


ALONE = Place(torch.device("cpu"), torch.float32)


@contextlib.contextmanager
def joined(train: TrainConfig, ssl_every: int = 1) -> Iterator[Place]:
    """This process's Place; inside torchrun the process group is open for as long as the block runs, and none of its
    threads outlives it. Raises UsageError where processes would hold unequal parts of a batch, or of those of its
    samples that run the self-supervised branch (every `ssl_every`-th): gradients are averaged over processes."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    kind = train.device if train.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if kind.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f'train.device = "{train.device}", but torch sees no GPU here. Set train.device = "cpu"')
    try:
        device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError):  # torch knows the word, and has no such device here
        raise UsageError(f'train.device = "{train.device}" is no device here. Give auto, cpu, cuda or cuda:N') from None
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
    share = train.batch_size // world
    if share % ssl_every or share // train.accumulate < ssl_every:
        raise UsageError(
            f"loss.ssl_every = {ssl_every}, but each of {world} processes holds {share} of train.batch_size ="
            f" {train.batch_size}, in {train.accumulate} micro-batch(es): they would not run the self-supervised branch"
            f" on equally many. Set train.batch_size to a multiple of {world * train.accumulate * ssl_every}, or"
            " loss.ssl_every = 1"
        )
    shards = shards_of(train, world)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if shards < world:
        mesh = init_device_mesh(device.type, (world // shards, shards), mesh_dim_names=("copies", "shards"))
    else:
        mesh = init_device_mesh(device.type, (world,))
    try:
        yield Place(device, dtype, dist.get_rank(), world, mesh, shards)
    except BaseException as e:
        traceback.clear_frames(e.__traceback__)  # their variables hold the model, and with it the group
        raise
    finally:
        dist.destroy_process_group()
        _end_threads(mesh)


def shards_of(train: TrainConfig, world: int) -> int:
    """How many of `world` processes hold the weights together where they are sharded. Raises UsageError where groups of
    that many do not come out even."""
    shards = train.shards or world
    if world % shards:
        raise UsageError(f"train.shards = {shards} must divide the number of processes, {world}")
    return shards


def _end_threads(mesh: DeviceMesh) -> None:
    """gloo's threads end with the last reference to their group; one that hands a tensor back while the interpreter
    ends aborts the process. torch's caches of sharded tensors keep the mesh for good, and the mesh keeps the group."""
    getattr(mesh, "_pg_registry", {}).clear()
    gc.collect()  # sharded modules and their hooks are cycles


def wrap(student: Pretrainer, train: TrainConfig, place: Place) -> nn.Module:
    """The callable model of a run: DDP, FSDP2 (layers, then the rest) or the student itself; compiled on request."""
    if train.activation_checkpointing:
        checkpoint_activations(student)
    if train.strategy == "fsdp" and place.world > 1:
        from torch.distributed.fsdp import fully_shard

        for layer in [*student.encoder.vision_model.encoder.layer, *student.encoder.text_model.encoder.layers]:
            fully_shard(layer, mesh=place.mesh)
        # the temperature is a scalar, and not trained
        fully_shard(student, mesh=place.mesh, ignored_params={student.encoder.temperature})
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
def exchanging(model: nn.Module, last: bool, ends: bool) -> Iterator[None]:
    """Around a pass and its `run_back`. Gradients are exchanged between processes in the `last` micro-batch of a step
    alone: sharded ones after each pass, as no process holds them whole; DDP's in the pass that `ends` the step."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not (last and ends):
        with model.no_sync():
            yield
        return
    set_sync = getattr(model, "set_requires_gradient_sync", None)
    if set_sync is not None:
        set_sync(last)
    yield


def run_back(model: nn.Module, loss: torch.Tensor, ends: bool) -> None:
    """Adds the gradients of `loss` to the parameters; of a loss that depends on none nothing."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and ends:
        loss = loss + _Reached.apply(*(p for p in model.parameters() if p.requires_grad))  # type: ignore[no-untyped-call]
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]


class _Reached(torch.autograd.Function):
    """Zero. DDP exchanges a bucket when backward has come by each of its parameters; the pass that ends a step may use
    few of them, and by this node it comes by all, without a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.count = len(parameters)
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, ...]:
        return tuple([None] * ctx.count)


def mean_over_processes(value: torch.Tensor, place: Place) -> torch.Tensor:
    """The mean of equal-sized readings."""
    if place.world > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= place.world
    return value
