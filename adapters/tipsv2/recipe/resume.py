"""Taking a run up again: which settings may have changed since the checkpoint, and what is kept of the change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from adapters.tipsv2.recipe.config import RecipeConfig
from benchmark.errors import UsageError

SILENT = (  # where a run runs, what it says, what it keeps: they change no weight
    "train.device", "train.log_every", "train.checkpoint_every", "train.keep", "train.validate_every",
    "train.validate_samples", "train.evaluate_every", "data.cache", "data.workers",
)  # fmt: skip
# What was learnt so far stays what it is under other values of these; the change is recorded. Of moved files the
# content is compared: the number of samples, the weights it starts from and the teacher's, the tokeniser.
MAY_CHANGE = (
    "name", "init_from", "model.tokenizer", "data.path", "data.max_bad", "data.image", "data.alt", "data.synthetic",
    "data.synthetic_weights", "data.order", "train.steps", "train.threads", "train.compile", "train.accumulate",
    "train.dtype", "train.strategy", "train.shards", "train.activation_checkpointing", "teacher.path", "optim.lr",
    "optim.warmup", "optim.decay", "optim.final_lr", "optim.schedule", "optim.clip", "optim.weight_decay",
    "head.balance", "head.teacher_temperature", "guard.min_entropy", "guard.min_feature_std", "guard.patience",
    "guard.after",
)  # fmt: skip
SHARES = ("optim.warmup", "head.teacher_warmup", "loss.ssl_ramp", "guard.after")  # of train.steps


def leaves(config: RecipeConfig) -> dict[str, Any]:
    """Dotted key → value, as JSON has it."""
    out: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        out |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}


def changed(before: dict[str, Any], config: RecipeConfig, path: Path, step: int) -> list[dict[str, Any]]:
    """What differs from the checkpoint at `path`, as {"step", "field", "from", "to"}.

    Raises UsageError naming every field that decides what was learnt so far, or a run that is shorter than it was.
    """
    now = leaves(config)
    before = leaves(RecipeConfig()) | before  # a field that is younger than the checkpoint was as it is by default
    unlike = {k: (before.get(k), v) for k, v in now.items() if before.get(k) != v and k not in SILENT}
    if fixed := {k: v for k, v in unlike.items() if k not in MAY_CHANGE}:
        told = "; ".join(f"{k} was {was!r}, is {is_!r}" for k, (was, is_) in fixed.items())
        raise UsageError(
            f"{path} was made with another config: {told}. Set it as it was, give another --out, or"
            f" remove {path.parent}"
        )
    if config.train.steps < step:
        field = "teacher.warmup_steps" if config.model.frozen else "train.steps"
        raise UsageError(f"{field} = {config.train.steps}, but {path} is at step {step}. Give at least that many")
    return [{"step": step, "field": k, "from": was, "to": is_} for k, (was, is_) in unlike.items()]


def same_lengths(config: RecipeConfig, bases: dict[str, int]) -> RecipeConfig:
    """`config` with the shares of the run that were set for another number of steps (`bases`) as long in steps as they
    were: a warm-up that is over does not begin again because the run is prolonged."""
    for key, steps in bases.items():
        if steps != config.train.steps:
            section, _, name = key.partition(".")
            part = getattr(config, section)
            part = dataclasses.replace(part, **{name: getattr(part, name) * steps / config.train.steps})
            config = dataclasses.replace(config, **{section: part})
    return config
