"""Weights that a run starts from or learns from: what `bench train` wrote, a transformers folder under either naming,
an official `.npz` pair, a model of `bench ls models` or its id on the hub."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.tipsv2 import sources
from adapters.tipsv2.recipe.config import ModelConfig, RecipeConfig
from adapters.tipsv2.recipe.config_file import from_table
from adapters.tipsv2.variants import Architecture
from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import models
from benchmark.system import sealed
from benchmark.system.digest import sha256_file

if TYPE_CHECKING:
    import torch

REMEDY = {
    "init_from": "Train the stage before it first, or name it with --set init_from=FOLDER",
    "teacher.path": "Train the teacher first, or name its folder with bench distill --teacher",
}
RECIPE = "recipe.json"


@dataclass(frozen=True)
class Weights:
    """One model's tensors under Tipsv2Model's names, `temperature` among them where the files say it."""

    where: str
    sizes: ModelConfig
    state: dict[str, torch.Tensor]
    digest: str


def spec_of(key: str, word: str) -> ModelSpec:
    """What `key` = `word` names. Raises UsageError where it is neither there nor a TIPS model."""
    path = Path(word).expanduser()
    if path.exists():
        files = [path] if path.is_file() else sorted(path.glob("*_vision.npz"))
        stem = files[0].name.removesuffix("_vision.npz").removesuffix("_text.npz") if files else ""
        owner = sources.owner_of(stem)
        return ModelSpec(owner or word, row=models()[owner] if owner else {}, weights=str(path))
    for name, row in models().items():
        if word in (name, row.get("hub")) and str(row.get("target")).startswith("adapters.tipsv2:"):
            return ModelSpec(name, row=row)
    raise UsageError(
        f"{key} = {word!r}: no such folder. {REMEDY[key]}. Official weights are named by their id: google/tipsv2-g14"
    )


def read_sizes(key: str, word: str) -> ModelConfig:
    """The sizes of these weights; nothing is downloaded. Raises UsageError where they are not there."""
    spec = spec_of(key, word)
    folder = _folder(spec)
    if folder and (folder / RECIPE).is_file():
        return recipe_of(folder).model
    config = folder / "config.json" if folder else None
    if folder and not spec.row and not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder}/config.json: missing. {key} must be a folder with config.json and model.safetensors, or with an"
            " official pair of .npz"
        )
    arch = Architecture.from_config(config) if config and config.is_file() else None
    arch = arch or Architecture.from_row(spec.row)
    if arch is None:
        raise WeightsError(f"{key} = {word!r}: no config.json says how large it is. {sources.get(spec)}")
    return model_config(arch)


def read_weights(key: str, word: str) -> Weights:
    """All tensors, on the CPU. Raises WeightsError naming file and key, sealed.Damaged for a file of `bench train` that
    is not what was written."""
    from adapters.tipsv2.checkpoint import load

    spec, folder = spec_of(key, word), Path(word).expanduser()
    if (folder / RECIPE).is_file():
        file = folder / "model.safetensors"
        return Weights(word, read_sizes(key, word), read_tensors(file), sha256_file(file))
    checkpoint = load(spec, tokenizer=False)
    sizes = model_config(checkpoint.arch)
    return Weights(checkpoint.info.source, sizes, checkpoint.state_dict(), checkpoint.info.sha256)


def read_tokenizer(word: str) -> Path:
    """The tokenizer.model of the weights in `init_from`. Raises WeightsError where they have none."""
    spec = spec_of("init_from", word)
    folder = _folder(spec) or sources.find(spec).tokenizer.parent
    path = folder / sources.TOKENIZER
    if not path.is_file():
        raise WeightsError(
            f"init_from = {word!r}: no {sources.TOKENIZER} in {folder}, and the text weights read the ids of their own."
            " Put it there, or name it with --set model.tokenizer=FILE"
        )
    return path


def head_file(word: str) -> Path | None:
    """The projectors beside these weights; None where they come without."""
    folder = Path(word).expanduser()
    if not folder.exists() and models().get(word, {}).get("embedded"):
        folder = sources.embedded(word)
    path = folder / "heads.safetensors"
    return path if path.is_file() else None


def differences(there: ModelConfig, here: ModelConfig) -> list[str]:
    """What of the model differs; a position table is resized, and captions may be cut elsewhere."""
    free = ("image_size", "max_text", "init_std", "layerscale", "tokenizer", "frozen")
    one, two = _widths(there), _widths(here)
    return [f"{k} = {v} there, model.{k} = {two[k]} here" for k, v in one.items() if k not in free and v != two[k]]


def model_config(arch: Architecture) -> ModelConfig:
    """The [model] table of an architecture."""
    return ModelConfig(
        width=arch.width,
        depth=arch.depth,
        heads=arch.heads,
        patch_size=arch.patch_size,
        image_size=arch.image_size,
        mlp_ratio=arch.mlp_width / arch.width * (1.5 if arch.swiglu else 1.0),
        swiglu=arch.swiglu,
        text_depth=arch.text_depth,
        text_heads=arch.text_heads,
        text_mlp=arch.text_mlp_width,
        vocab_size=arch.vocabulary,
        max_text=arch.max_tokens,
    )


def mlp_width(model: ModelConfig) -> int:
    """Hidden columns of the image tower's MLP as transformers builds it; of SwiGLU those of one of its two halves."""
    hidden = int(model.width * model.mlp_ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if model.swiglu else hidden


def _widths(model: ModelConfig) -> dict[str, Any]:
    """The fields, with those that say the same thing in two ways made one."""
    fields = dataclasses.asdict(model)
    del fields["mlp_ratio"]
    return {**fields, "mlp_ratio × width": mlp_width(model), "text_mlp": model.text_mlp or 4 * model.width}


def _folder(spec: ModelSpec) -> Path | None:
    if spec.weights is None:
        return sources.embedded(spec.name) if spec.row.get("embedded") else None
    path = Path(spec.weights)
    return path.parent if path.is_file() else path


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A file that `bench train` wrote. Raises WeightsError, sealed.Damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        sealed.check_written(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None


def read_recipe(folder: Path) -> dict[str, object]:
    """The config that made an exported folder. Raises WeightsError when the folder has none."""
    path = folder / RECIPE
    if not path.is_file():
        raise WeightsError(f"{path}: missing; the folder was not written by `bench train`")
    sealed.check_written(path)
    table: dict[str, object] = json.loads(path.read_text())
    return table


def recipe_of(folder: Path) -> RecipeConfig:
    """The RecipeConfig that made an exported folder."""
    return from_table(read_recipe(folder), str(folder / RECIPE))
