"""The memory of a step, by the step itself on tensors without content: what is alive at a time is counted, nothing is
computed. Allocators' rounding and the workspaces of kernels come on top."""

from __future__ import annotations

import dataclasses
import math
import weakref
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from adapters.tipsv2.recipe import chunked
from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import ModelConfig, RecipeConfig, TeacherConfig
from adapters.tipsv2.recipe.model import Pretrainer, checkpoint_activations
from adapters.tipsv2.recipe.objective import pair_loss
from adapters.tipsv2.recipe.optim import make_optimizer
from adapters.tipsv2.recipe.step import backward, precision
from adapters.tipsv2.recipe.teacher import Teacher


@dataclass(frozen=True)
class StepMemory:
    """Bytes in one process that holds everything."""

    weights: int  # of towers and projectors, in float32
    averages: int  # of the projectors, or of all; a frozen teacher's projectors
    state: int  # of the optimiser
    gradients: int
    teacher: int  # the frozen tower
    backwards: int  # of all together, the most that forward and backward take
    stepped: int  # the same of the optimiser's step
    pairs: int  # the same of the contrastive loss of a batch in several parts

    @property
    def peak(self) -> int:
        """The most of all together."""
        return max(self.backwards, self.stepped, self.pairs)


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}
        self.watched: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return True  # a tensor without content has no number; where a branch asks, every caption is there
        out = func(*args, **(kwargs or {}))
        for found in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(found, torch.Tensor):
                self.see(found)
        return out

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            self.watched[key] = weakref.ref(storage, lambda _, key=key: self._gone(key))  # type: ignore[misc]

    def keep(self, tensor: torch.Tensor, shards: int) -> None:
        """Counts one of the tensor's `shards` from now on."""
        storage = tensor.untyped_storage()
        part = storage.nbytes() // shards
        self.now += part - self.sizes.get(storage._cdata, part)
        self.sizes[storage._cdata] = part

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)
        self.watched.pop(key, None)


def rehearse(config: RecipeConfig, batch: int, teacher: ModelConfig | None = None, shards: int = 1) -> StepMemory:
    """The memory of a step over `batch` samples in one process, with a frozen teacher of the sizes of `teacher`.

    Accumulated micro-batches are each of `batch` samples. Where weights are cut into `shards`, so is for `peak` a
    gradient that is whole. Every layer is rehearsed, some seconds for forty: the moment that takes most is another one
    where towers are shallow.
    """
    one = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=1))
    with torch.device("meta"):
        student = Pretrainer(one)
        frozen = None
        if teacher is not None:
            frozen = Pretrainer(dataclasses.replace(one, model=teacher, teacher=TeacherConfig(mask=True)))
        targets = Teacher(one, student, frozen)
    half = config.train.dtype == "bfloat16" or (config.train.dtype == "auto" and config.train.device != "cpu")
    if config.train.activation_checkpointing:
        checkpoint_activations(student)
    few = mock.patch.object(chunked, "starts", lambda rows, step: range(0, min(rows, 2 * step), step))
    with few, FakeTensorMode(allow_non_fake_inputs=True), _Alive() as alive:  # the third part takes no more than two
        student.to_empty(device="cpu")
        targets.to_empty(device="cpu")
        held = _bytes(targets)
        theirs = _bytes(targets.vision) if targets.vision is not None and frozen else 0
        seen = content_free(one, batch).to(torch.device("cpu"))
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda p: alive.keep(p.grad, shards)
                )
        alive.peak = alive.now
        pairs = _pairs(config, batch, alive) if config.train.accumulate > 1 and not config.model.frozen else 0
        alive.peak = alive.now
        for _ in range(min(config.train.accumulate, 2)):
            backward(student, targets, seen, one, 0, precision("cpu", half))
        backwards = alive.peak
        gradients = sum(p.grad.nbytes for p in student.parameters() if p.grad is not None)
        standing = alive.now
    state, used = _optimiser(student, config)  # later steps begin with its state
    found = backwards + state, standing + used + state, pairs + state
    return StepMemory(_bytes(student), held - theirs, state, gradients, theirs, *found)


def _pairs(config: RecipeConfig, batch: int, alive: _Alive) -> int:
    """Bytes alive while the contrastive loss of all parts and its gradients are computed."""
    size = batch * config.train.accumulate
    images, texts = (torch.empty(size, 2, config.model.width, requires_grad=True) for _ in range(2))
    temperature, there = torch.empty(1, requires_grad=True), torch.empty(size, 2, dtype=torch.bool)
    value = pair_loss(images, texts, temperature, config, there)
    torch.autograd.grad(value, (images, texts, temperature))
    return alive.peak


def _optimiser(student: Pretrainer, config: RecipeConfig) -> tuple[int, int]:
    """Bytes of the optimiser's state, and what its step takes beside it."""
    with torch.device("meta"):
        trained = [(k, torch.nn.Parameter(torch.empty_like(p, device="meta"))) for k, p in student.named_parameters()]
        for (_, copy), parameter in zip(trained, student.parameters(), strict=True):
            copy.requires_grad_(parameter.requires_grad)
            copy.grad = torch.empty_like(copy) if parameter.requires_grad else None
        optimizer = make_optimizer(trained, config.optim)
        with _Alive() as alive:
            optimizer.step()
            alive.peak = begun = alive.now
            optimizer.step()
    state = sum(v.nbytes for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v))
    return state, alive.peak - begun


def _bytes(module: torch.nn.Module) -> int:
    return sum(t.nbytes for t in module.state_dict().values())


def content_free(config: RecipeConfig, size: int) -> Batch:
    """A batch of the sizes of `config`, with whatever lies in its memory."""
    views, model = config.views, config.model
    chosen = max(1, math.ceil(size / config.loss.ssl_every))
    crops = views.local_crops if config.loss.dino > 0 else 0
    return Batch(
        images=torch.empty(size, 3, views.global_size, views.global_size, dtype=torch.uint8),
        texts=tuple(torch.empty(size, model.max_text, dtype=torch.long) for _ in range(2)),
        ssl_rows=torch.empty(chosen, dtype=torch.long),
        local=torch.empty(crops, chosen, 3, views.local_size, views.local_size, dtype=torch.uint8),
        mask=torch.empty(chosen, (views.global_size // model.patch_size) ** 2, dtype=torch.bool),
        captioned=torch.empty(size, 2, dtype=torch.bool),
    )
