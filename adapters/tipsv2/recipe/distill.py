"""Distillation: a frozen teacher in the place of the moving average, no masking, patch loss on all tokens, contrastive
loss kept, student from random weights (TIPSv2 §3; whether the contrastive loss stays is inferred)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from adapters.tipsv2.recipe.config import ModelConfig, RecipeConfig
from adapters.tipsv2.recipe.export import load_weights, recipe_of
from adapters.tipsv2.recipe.model import Pretrainer
from benchmark.errors import UsageError, WeightsError


def frozen_teacher(config: RecipeConfig) -> Pretrainer | None:
    """The teacher that `teacher.path` names, on the CPU; None when there is none.

    The folder is one that `bench train` wrote (with its projector) or any transformers Tipsv2Model folder.
    """
    if not config.teacher.path:
        return None
    folder = Path(config.teacher.path)
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder}/config.json: missing. teacher.path must be a folder with config.json and model.safetensors"
        )
    if (folder / "recipe.json").is_file():
        theirs = recipe_of(folder)
    else:
        theirs = dataclasses.replace(config, model=sizes_of(folder))
    theirs = dataclasses.replace(theirs, views=config.views)
    _check_match(config, theirs, folder)
    wants_heads = config.teacher.heads == "frozen" and (folder / "heads.safetensors").is_file()
    if not wants_heads:
        theirs = dataclasses.replace(theirs, loss=dataclasses.replace(theirs.loss, dino=0.0, patch=0.0))
    teacher = Pretrainer(theirs)
    load_weights(folder, teacher, heads=wants_heads)
    return teacher


def sizes_of(folder: Path) -> ModelConfig:
    """The ModelConfig of a transformers folder."""
    table = json.loads((folder / "config.json").read_text())
    vision, text = table["vision_config"], table["text_config"]
    return ModelConfig(
        width=vision["hidden_size"],
        depth=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        patch_size=vision["patch_size"],
        image_size=vision["image_size"],
        mlp_ratio=float(vision["mlp_ratio"]),
        swiglu=vision.get("use_swiglu_ffn", False),
        num_cls=1 + vision.get("num_register_tokens", 1),
        text_depth=text["num_hidden_layers"],
        text_heads=text["num_attention_heads"],
        text_mlp=text["intermediate_size"],
        vocab_size=text["vocab_size"],
        max_text=text["max_position_embeddings"],
    )


def _check_match(config: RecipeConfig, theirs: RecipeConfig, folder: Path) -> None:
    if theirs.model.patch_size != config.model.patch_size:
        raise UsageError(
            f"{folder}: the teacher's patch size is {theirs.model.patch_size}, the student's {config.model.patch_size};"
            " their tokens must cover the same pixels"
        )
    if config.teacher.heads == "frozen" and theirs.head.prototypes != config.head.prototypes:
        raise UsageError(
            f"{folder}: it has {theirs.head.prototypes} prototypes, head.prototypes = {config.head.prototypes}"
        )
    if config.teacher.heads == "ema" and theirs.model.width != config.model.width:
        raise UsageError(
            f'teacher.heads = "ema" needs equal widths: {folder} has {theirs.model.width},'
            f" model.width = {config.model.width}"
        )


def sizes_of_teacher(config: RecipeConfig) -> ModelConfig:
    """Sizes of the teacher that `teacher.path` names, or of the student where the folder is not there yet."""
    folder = Path(config.teacher.path)
    return sizes_of(folder) if (folder / "config.json").is_file() else config.model
