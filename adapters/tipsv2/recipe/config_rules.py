"""Which values of a recipe config make a run: the range of each number, and what must fit together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from adapters.tipsv2.recipe.config import RecipeConfig
from benchmark.errors import UsageError

AT_LEAST = {
    1: (
        "model.width", "model.depth", "model.heads", "model.patch_size", "model.image_size", "model.num_cls",
        "model.text_depth", "model.text_heads", "model.vocab_size", "model.max_text", "views.global_size",
        "views.local_size", "loss.ssl_every", "head.prototypes", "head.hidden", "head.bottleneck", "head.layers",
        "head.sinkhorn_iterations", "data.size", "train.steps", "train.accumulate", "train.log_every", "guard.patience",
        "teacher.warmup_steps",
    ),
    0: (
        "model.text_mlp", "model.init_std", "views.local_crops", "loss.contrastive", "loss.dino", "loss.patch",
        "loss.dino_cls", "loss.ssl_ramp", "head.teacher_warmup", "optim.lr", "optim.weight_decay", "optim.clip",
        "optim.warmup", "optim.decay", "optim.final_lr", "data.samples", "data.workers", "data.max_bad",
        "train.threads", "train.shards", "train.checkpoint_every", "train.keep", "train.validate_every",
        "train.evaluate_every",
    ),
}  # fmt: skip
POSITIVE = (
    "model.mlp_ratio", "loss.temperature", "loss.min_temperature", "head.student_temperature",
    "head.teacher_temperature", "head.teacher_warmup_temperature",
)  # fmt: skip
SHARES = ("views.flip", "loss.mask_ratio", "head.center_momentum", "ema.momentum", "ema.final_momentum")
AREAS = ("views.global_scale", "views.local_scale")


def validate(config: RecipeConfig, where: str) -> None:
    """Raises UsageError naming `where` and the first value that makes no run."""
    for message in itertools.chain(_ranges(config), _together(config)):  # what fits together needs sound numbers
        raise UsageError(f"{where}: {message}")


def _value(config: RecipeConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _ranges(config: RecipeConfig) -> Iterator[str]:
    for least, keys in AT_LEAST.items():
        for key in keys:
            if not least <= (value := _value(config, key)) < math.inf:
                yield f"{key} = {value} must be at least {least}"
    for key in POSITIVE:
        if not 0 < (value := _value(config, key)) < math.inf:
            yield f"{key} = {value} must be above 0"
    for key in SHARES:
        if not 0 <= (value := _value(config, key)) <= 1:
            yield f"{key} = {value} must lie in [0, 1]"
    for key in AREAS:
        low, high = _value(config, key)
        if not 0 < low <= high <= 1:
            yield f"{key} = {[low, high]} must be two shares of the area, the smaller first, in (0, 1]"
    low, high = config.views.ratio
    if not 0 < low <= high < math.inf:
        yield f"views.ratio = {[low, high]} must be two ratios above 0, the smaller first"
    if not 0 <= config.optim.beta2_cap < 1:
        yield f"optim.beta2_cap = {config.optim.beta2_cap} must lie in [0, 1)"
    if not all(0 <= beta < 1 for beta in config.optim.betas):
        yield f"optim.betas = {list(config.optim.betas)} must lie in [0, 1)"


def _together(config: RecipeConfig) -> Iterator[str]:
    model, views, train, loss = config.model, config.views, config.train, config.loss
    if model.width % model.heads:
        yield f"model.width = {model.width} must be divisible by model.heads = {model.heads}"
    if model.width % model.text_heads:
        yield f"model.width = {model.width} must be divisible by text_heads"
    for key in ("model.image_size", "views.global_size", "views.local_size"):
        if (size := _value(config, key)) % model.patch_size:
            yield f"{key} = {size} must be whole patches"
    if loss.dino_cls >= model.num_cls:
        yield f"loss.dino_cls = {loss.dino_cls}, but there are {model.num_cls} CLS"
    if loss.captions == "pairs" and model.num_cls < 2:
        yield 'model.num_cls = 1, but loss.captions = "pairs" gives each of two texts a CLS of its own'
    weights = config.data.synthetic_weights
    if weights and not (all(0 <= w < math.inf for w in weights) and sum(weights) > 0):
        yield f"data.synthetic_weights = {list(weights)} must be at least 0, one of them above"
    if train.accumulate > 1 and config.head.balance == "sinkhorn" and (loss.dino > 0 or loss.patch > 0):
        yield (
            f'train.accumulate = {train.accumulate}, but head.balance = "sinkhorn" balances a whole batch, and a'
            ' micro-batch would be balanced alone. Set train.accumulate = 1 or head.balance = "center"'
        )
    if loss.dino > 0 and views.local_crops < 1:
        yield f"views.local_crops = {views.local_crops}, but the DINO loss reads them. Set loss.dino = 0"
    if train.shards and train.strategy != "fsdp":
        yield (
            f'train.shards = {train.shards}, but train.strategy = "{train.strategy}" cuts no weights. Set'
            ' train.strategy = "fsdp"'
        )
    if train.batch_size < 2:
        yield f"train.batch_size = {train.batch_size} must be at least 2"
    if train.batch_size % train.accumulate:
        yield f"train.batch_size = {train.batch_size} must be divisible by train.accumulate = {train.accumulate}"
    if (part := train.batch_size // train.accumulate) < loss.ssl_every:
        yield (
            f"loss.ssl_every = {loss.ssl_every}, but a micro-batch holds {part} of train.batch_size ="
            f" {train.batch_size}: some have no sample of the self-supervised branch"
        )
