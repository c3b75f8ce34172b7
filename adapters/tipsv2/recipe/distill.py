"""Distillation: a frozen teacher in the place of the moving average, no masking, patch loss on all tokens, contrastive
loss kept, student from random weights (TIPSv2 §3; whether the contrastive loss stays is inferred).

Weights that come without a projector are given one of their own width, which is trained first on their frozen tokens
(`teacher.heads = "warm"`): `projector_config` is that run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from adapters.tipsv2.recipe.config import HeadConfig, RecipeConfig, TeacherConfig
from adapters.tipsv2.recipe.export import AVERAGES, load_heads, load_weights
from adapters.tipsv2.recipe.model import Pretrainer, uses_dino, uses_patches
from adapters.tipsv2.recipe.weights import RECIPE, head_file, read_sizes, read_tensors, recipe_of
from benchmark.errors import UsageError

KEY = "teacher.path"
SHAPE = ("prototypes", "hidden", "bottleneck", "layers")


def frozen_teacher(config: RecipeConfig, projectors: Path | None = None) -> Pretrainer | None:
    """The teacher that `teacher.path` names, on the CPU, with the projectors that give targets; None without a teacher.

    `projectors` is the file of those that were warmed up.
    """
    word = config.teacher.path
    if not word:
        return None
    check_teacher(config)
    own = projectors or head_file(word)
    wants_heads = config.teacher.heads != "ema"
    loss = config.loss if wants_heads and own else dataclasses.replace(config.loss, dino=0.0, patch=0.0)
    plain = TeacherConfig(mask=True)
    teacher = Pretrainer(dataclasses.replace(config, model=read_sizes(KEY, word), loss=loss, teacher=plain))
    load_weights(KEY, word, teacher, heads=False)
    if wants_heads and own:
        load_heads(own, teacher.heads, averages=True)
    return teacher


def warms_up(config: RecipeConfig) -> bool:
    """Whether a projector of the teacher is trained before the student is."""
    return bool(config.teacher.path) and config.teacher.heads == "warm" and (uses_dino(config) or uses_patches(config))


def projector_config(config: RecipeConfig) -> RecipeConfig:
    """The run that trains the projector of a teacher without one: its towers stay as they are, and the losses are those
    of pre-training (masked view against clean view, crops against the whole)."""
    return dataclasses.replace(
        config,
        name=f"{config.name}-projector",
        init_from=config.teacher.path,
        model=dataclasses.replace(read_sizes(KEY, config.teacher.path), frozen=True),
        loss=dataclasses.replace(config.loss, contrastive=0.0, ssl_ramp=0.0),
        train=dataclasses.replace(
            config.train,
            steps=config.teacher.warmup_steps,
            validate_every=0,
            evaluate_every=0,
            keep=max(config.train.keep, 1),  # it is done once, whatever the student's run is told to keep
        ),
        teacher=TeacherConfig(),
    )


def check_teacher(config: RecipeConfig) -> None:
    """Raises UsageError where the teacher gives no targets for this student; reads no weights."""
    word, heads = config.teacher.path, config.teacher.heads
    theirs = read_sizes(KEY, word)
    if theirs.patch_size != config.model.patch_size:
        raise UsageError(
            f"{word}: the teacher's patch size is {theirs.patch_size}, the student's {config.model.patch_size};"
            " their tokens must cover the same pixels"
        )
    if heads == "ema" and theirs.width != config.model.width:
        raise UsageError(
            f'teacher.heads = "ema" needs equal widths: {word} has {theirs.width}, model.width = {config.model.width}.'
            ' Set teacher.heads = "warm"'
        )
    if heads != "frozen":
        return
    file = head_file(word)
    needed = [k for k, on in (("cls", config.loss.dino), ("patch", config.loss.patch)) if on]
    there = {k.removeprefix(AVERAGES).split(".")[0] for k in read_tensors(file)} if file else set()
    if missing := [k for k in needed if k not in there]:
        raise UsageError(
            f'{word}: no projector for {", ".join(missing)} (heads.safetensors). Set teacher.heads = "warm", which'
            ' trains one on its tokens first, or (equal widths) "ema"'
        )
    if file and (file.parent / RECIPE).is_file():
        kept = recipe_of(file.parent).head
        if (theirs_of := _shape(kept)) != (ours := _shape(config.head)):
            unlike = ", ".join(f"{v} {k}, head.{k} = {ours[k]}" for k, v in theirs_of.items() if v != ours[k])
            raise UsageError(f"{word}: its projector has {unlike}. Set them alike")


def _shape(head: HeadConfig) -> dict[str, int]:
    return {name: getattr(head, name) for name in SHAPE}
