"""What a run will take, from its config alone: parameters, FLOPs per step, memory per device, device-days."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from adapters.tipsv2.recipe import chunked
from adapters.tipsv2.recipe.config import ModelConfig, RecipeConfig
from adapters.tipsv2.recipe.model import Pretrainer, build_encoder, masks, uses_dino, uses_patches
from adapters.tipsv2.recipe.weights import read_sizes
from benchmark.errors import BenchError

GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """All counts are for the whole run unless said otherwise."""

    vision_params: int
    text_params: int
    head_params: int
    flops_per_step: float  # multiply and add counted apart
    samples: int
    weights_gib: float  # per device: weights, gradients, optimiser state, averages
    activations_gib: float  # per device and micro-batch
    device_days: float
    teacher: str = ""  # what it is, or that it is not there and not counted; "" without one
    teacher_gib: float = 0.0  # per device: the frozen tower, whole on each

    def lines(self) -> list[str]:
        """The table that --dry-run prints."""
        trained = self.vision_params + self.text_params + self.head_params
        return [
            f"parameters        {trained / 1e6:,.1f} M trained: vision {self.vision_params / 1e6:,.1f},"
            f" text {self.text_params / 1e6:,.1f}, projectors {self.head_params / 1e6:,.1f}",
            f"samples seen      {self.samples / 1e6:,.2f} M",
            f"compute           {self.flops_per_step / 1e12:,.3g} TFLOP per step",
            *([f"teacher           {self.teacher}"] if self.teacher else []),
            f"memory per device {self.weights_gib + self.activations_gib + self.teacher_gib:,.2f} GiB: weights and"
            f" optimiser {self.weights_gib:,.2f}, frozen teacher {self.teacher_gib:,.2f}, activations about"
            f" {self.activations_gib:,.2f}",
            f"device-days       {self.device_days:,.3g}",
        ]


def estimate(config: RecipeConfig, devices: int = 1, tflops: float = 989.0, utilisation: float = 0.4) -> Cost:
    """The cost on `devices` devices of `tflops` peak (989: H100, dense bf16) at this share of the peak.

    FLOPs are exact for the matrix products of towers and projectors; the backward pass counts twice the forward one,
    activation checkpointing one forward more. Memory of activations is a rule of thumb (34 bytes per token, layer
    and channel in bf16 with fused attention), good to a factor of about 1.5.
    """
    with torch.device("meta"):
        student = Pretrainer(config)
    towers = (student.encoder.vision_model, student.encoder.text_model, student.heads)
    vision, text, heads = (sum(p.numel() for p in tower.parameters()) for tower in towers)
    flops = step_flops(config)
    shards = devices if config.train.strategy == "fsdp" else 1
    # Adafactor keeps one row and one column for each matrix, ours a first moment in bfloat16 too.
    state = {"adamw": 8, "adafactor": 2.1, "adafactor-torch": 0.1}[config.optim.name]
    average = heads * 4 + (vision * 4 if config.ema.scope == "full" and not config.teacher.path else 0)
    weights = (vision + text + heads) * (4 + 4 + state) / shards + average
    seconds = flops * config.train.steps / (devices * tflops * 1e12 * utilisation)
    return Cost(
        vision, text, heads, flops, config.train.steps * config.train.batch_size,
        weights / GIB, _activation_bytes(config, devices) / GIB, seconds * devices / 86400, *_teacher(config),
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
    """FLOPs of one optimiser step over the global batch."""
    batch, views = config.train.batch_size, config.views
    chosen = batch // config.loss.ssl_every
    text = batch * text_flops(config.model)
    whole = vision_flops(config.model, views.global_size)
    forward = batch * whole + 2 * text
    if uses_dino(config):
        forward += chosen * views.local_crops * vision_flops(config.model, views.local_size)
    if masks(config):
        forward += chosen * whole
    head_rows = chosen * (views.local_crops * uses_dino(config) + patches(config) * uses_patches(config))
    forward += head_rows * head_flops(config)
    total = forward * (4 if config.train.activation_checkpointing else 3)
    if config.train.accumulate > 1:
        total += batch * whole + 2 * text  # the pass without a graph
    if config.teacher.path:
        theirs = teacher_model(config)
        total += chosen * vision_flops(theirs, views.global_size) if theirs else 0
    elif config.ema.scope == "full":
        total += chosen * whole
    teacher_rows = chosen * (uses_dino(config) + patches(config) * uses_patches(config))
    return float(total + teacher_rows * head_flops(config))


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


def head_flops(config: RecipeConfig) -> float:
    """One forward of one token through a projector."""
    head = config.head
    widths = [config.model.width, *[head.hidden] * (head.layers - 1), head.bottleneck, head.prototypes]
    return 2.0 * sum(a * b for a, b in pairwise(widths))


def patches(config: RecipeConfig) -> int:
    """Patch tokens of a global view."""
    return (config.views.global_size // config.model.patch_size) ** 2


def _activation_bytes(config: RecipeConfig, devices: int) -> float:
    micro = config.train.batch_size / devices / config.train.accumulate
    chosen = micro / config.loss.ssl_every
    local = (config.views.local_size // config.model.patch_size) ** 2 + config.model.num_cls
    tokens = micro * patches(config) + chosen * (
        config.views.local_crops * local * uses_dino(config) + patches(config) * masks(config)
    )
    layer = 34 * config.model.width
    vision = _kept(tokens * layer, config.model.depth, config)
    text = _kept(2 * micro * config.model.max_text * layer, config.model.text_depth, config)
    logits = chosen * patches(config) * config.head.prototypes * 6 * uses_patches(config)
    if config.head.balance == "center" and logits > 6 * chunked.WHOLE:
        logits = 6 * chunked.ROWS_AT_ONCE
    return vision + text + logits


def _kept(one_layer: float, depth: int, config: RecipeConfig) -> float:
    """Bytes of a tower: every layer, or each layer's input (2 of the 34 bytes) and one layer at work."""
    return one_layer * (1 + depth * 2 / 34) if config.train.activation_checkpointing else one_layer * depth
