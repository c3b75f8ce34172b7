"""What a run will take, from its config alone: parameters, FLOPs per step, memory per device, device-days."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise

import torch

from adapters.tipsv2.recipe.config import ModelConfig, RecipeConfig
from adapters.tipsv2.recipe.distill import projector_config, warms_up
from adapters.tipsv2.recipe.model import Pretrainer, build_encoder, masks, uses_dino, uses_patches
from adapters.tipsv2.recipe.parallel import shards_of
from adapters.tipsv2.recipe.rehearsal import rehearse
from adapters.tipsv2.recipe.weights import read_sizes
from benchmark.errors import BenchError

GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """All counts are for the whole run unless said otherwise; with that of the teacher's projector where one is trained
    first (`teacher.heads = "warm"`)."""

    vision_params: int  # of what is trained: none where towers are frozen
    text_params: int
    head_params: int
    flops_per_step: float  # multiply and add counted apart; of the student
    samples: int
    weights_gib: float  # per device, in the stage that takes most: weights, optimiser state, averages
    activations_gib: float  # per device, when most is held: activations, gradients, what is exchanged
    device_days: float
    teacher: str = ""  # what it is, or that it is not there and not counted; "" without one
    teacher_gib: float = 0.0  # per device: the frozen tower, whole on each
    projector: str = ""  # what its training takes; "" where there is none

    def lines(self) -> list[str]:
        """The table that --dry-run prints."""
        trained = self.vision_params + self.text_params + self.head_params
        return [
            f"parameters        {trained / 1e6:,.1f} M trained: vision {self.vision_params / 1e6:,.1f},"
            f" text {self.text_params / 1e6:,.1f}, projectors {self.head_params / 1e6:,.1f}",
            f"samples seen      {self.samples / 1e6:,.2f} M",
            f"compute           {self.flops_per_step / 1e12:,.3g} TFLOP per step",
            *([f"teacher           {self.teacher}"] if self.teacher else []),
            *([f"its projector     {self.projector}"] if self.projector else []),
            f"memory per device {self.weights_gib + self.activations_gib + self.teacher_gib:,.2f} GiB: weights and"
            f" optimiser {self.weights_gib:,.2f}, frozen teacher {self.teacher_gib:,.2f}, activations and gradients"
            f" {self.activations_gib:,.2f}",
            f"device-days       {self.device_days:,.3g}",
        ]


def estimate(config: RecipeConfig, devices: int = 1, tflops: float = 989.0, utilisation: float = 0.4) -> Cost:
    """The cost on `devices` devices of `tflops` peak (989: H100, dense bf16) at this share of the peak.

    FLOPs are exact for the matrix products of towers and projectors; the backward pass counts twice the forward one,
    activation checkpointing one forward more. Memory is that of the step itself, rehearsed on tensors without content
    (`rehearsal`; perf/dry_run.py holds it against a process). What processes exchange is arithmetic.
    """
    cost = _stage(config, devices, tflops, utilisation)
    if not warms_up(config):
        return cost
    if teacher_model(config) is None:
        return dataclasses.replace(cost, projector="is trained first, and not counted either")
    first = projector_config(config)
    before = _stage(first, devices, tflops, utilisation)
    most = max(cost, before, key=lambda c: c.weights_gib + c.activations_gib + c.teacher_gib)
    return dataclasses.replace(
        cost,
        samples=cost.samples + before.samples,
        weights_gib=most.weights_gib,
        activations_gib=most.activations_gib,
        teacher_gib=most.teacher_gib,
        device_days=cost.device_days + before.device_days,
        projector=f"trained first: {first.train.steps:,} steps of {first.train.batch_size:,},"
        f" {before.samples / 1e6:,.2f} M samples, {before.head_params / 1e6:,.1f} M trained,"
        f" {before.flops_per_step / 1e12:,.3g} TFLOP per step, {before.device_days:,.3g} device-days"
        f"{', and the most memory' if most is before else ''}",
    )


def _stage(config: RecipeConfig, devices: int, tflops: float, utilisation: float) -> Cost:
    """What one training run of the config takes."""
    with torch.device("meta"):
        student = Pretrainer(config)
    towers = (student.encoder.vision_model, student.encoder.text_model, student.heads)
    vision, text, heads = (sum(p.numel() for p in tower.parameters() if p.requires_grad) for tower in towers)
    flops = step_flops(config)
    micro = max(1, math.ceil(config.train.batch_size / devices / config.train.accumulate))
    sharded = config.train.strategy == "fsdp" and devices > 1
    shards = shards_of(config.train, devices) if sharded else 1
    summed = shards if config.train.accumulate == 1 else 1  # over micro-batches gradients are summed whole
    held = rehearse(config, micro, teacher_model(config) if config.teacher.path else None, summed)
    weights = (held.weights + held.state) / shards + held.averages
    rest = held.peak - held.weights - held.state - held.averages - held.teacher
    if sharded:  # what is gathered: two layers and what is in none
        layers = [*student.encoder.vision_model.encoder.layer, *student.encoder.text_model.encoder.layers]
        sizes = [4 * sum(p.numel() for p in layer.parameters()) for layer in layers]
        rest += 2 * max(sizes) + held.weights - sum(sizes)
    elif devices > 1:
        rest += held.gradients  # DDP exchanges them in buckets of their own
    seconds = flops * config.train.steps / (devices * tflops * 1e12 * utilisation)
    return Cost(
        vision, text, heads, flops, config.train.steps * config.train.batch_size,
        weights / GIB, rest / GIB, seconds * devices / 86400, *_teacher(config),
    )  # fmt: skip


def _teacher(config: RecipeConfig) -> tuple[str, float]:
    """(what the frozen teacher is, its GiB on each device)."""
    if not config.teacher.path:
        return "", 0.0
    model = teacher_model(config)
    if model is None:
        return f"{config.teacher.path} is not there: neither its memory nor its FLOPs are counted", 0.0
    with torch.device("meta"):
        tower = build_encoder(model).vision_model
    count = sum(p.numel() for p in tower.parameters())
    return f"{config.teacher.path}, {count / 1e6:,.1f} M frozen", 4 * count / GIB


def teacher_model(config: RecipeConfig) -> ModelConfig | None:
    """The sizes of the teacher; None where its weights are not there."""
    try:
        return read_sizes("teacher.path", config.teacher.path)
    except BenchError:
        return None


def step_flops(config: RecipeConfig) -> float:
    """FLOPs of one optimiser step over the global batch. Frozen towers read no text and have no backward pass."""
    batch, views = config.train.batch_size, config.views
    chosen = batch // config.loss.ssl_every
    frozen = config.model.frozen
    whole = vision_flops(config.model, views.global_size)
    embedded = batch * (whole if frozen else whole + 2 * text_flops(config.model))
    forward = embedded
    if uses_dino(config):
        forward += chosen * views.local_crops * vision_flops(config.model, views.local_size)
    if masks(config):
        forward += chosen * whole
    total = forward * (1 if frozen else 4 if config.train.activation_checkpointing else 3)
    if config.train.accumulate > 1 and not frozen:
        total += embedded  # the pass without a graph
    head_rows = chosen * (views.local_crops * uses_dino(config) + patches(config) * uses_patches(config))
    total += 3 * head_rows * head_flops(config, config.model.width)  # checkpoints of activations are those of towers
    if not head_rows:
        return total  # nothing asks a teacher
    width = config.model.width
    if config.teacher.path:
        if theirs := teacher_model(config):
            total += chosen * vision_flops(theirs, views.global_size)
            width = theirs.width
    elif config.ema.scope == "full":
        total += chosen * whole
    teacher_rows = chosen * (uses_dino(config) + patches(config) * uses_patches(config))
    return total + teacher_rows * head_flops(config, width)


def text_flops(model: ModelConfig) -> float:
    """One forward of one caption of `max_text` tokens."""
    return tower_flops(model.max_text, model.width, model.text_depth, 2 * (model.text_mlp or 4 * model.width))


def vision_flops(model: ModelConfig, size: int) -> float:
    """One forward of one image of size × size pixels."""
    grid = (size // model.patch_size) ** 2
    hidden = int(model.width * model.mlp_ratio)
    mlp = 3 * ((hidden * 2 // 3 + 7) // 8 * 8) if model.swiglu else 2 * hidden
    embed = 2.0 * grid * model.width * 3 * model.patch_size**2
    return embed + tower_flops(grid + model.num_cls, model.width, model.depth, mlp)


def tower_flops(tokens: int, width: int, depth: int, mlp_width: int) -> float:
    """One forward of a transformer; `mlp_width` is the total of the MLP's hidden columns."""
    return depth * (2.0 * tokens * width * (4 * width + mlp_width) + 4.0 * tokens**2 * width)


def head_flops(config: RecipeConfig, width: int) -> float:
    """One forward of one token of `width` channels through a projector."""
    head = config.head
    widths = [width, *[head.hidden] * (head.layers - 1), head.bottleneck, head.prototypes]
    return 2.0 * sum(a * b for a, b in pairwise(widths))


def patches(config: RecipeConfig) -> int:
    """Patch tokens of a global view."""
    return (config.views.global_size // config.model.patch_size) ** 2
