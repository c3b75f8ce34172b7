"""A trained student as a transformers folder that the ordinary adapters load, and back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapters.tipsv2.recipe.checkpoint import place
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import from_table
from adapters.tipsv2.recipe.model import Pretrainer
from benchmark.errors import WeightsError
from benchmark.system import sealed
from benchmark.system.digest import plain


def export_folder(
    folder: Path,
    encoder: dict[str, torch.Tensor],
    heads: dict[str, torch.Tensor],
    student: Pretrainer,
    tokenizer: bytes,
    facts: Mapping[str, object],
    dtype: torch.dtype = torch.float32,
) -> Path:
    """config.json, model.safetensors (in `dtype`), tokenizer.model, heads.safetensors, recipe.json, run.json (`facts`)
    and the checksums of all; the folder has its name when it is whole.

    `encoder` and `heads` are whole state dicts; `encoder["temperature"]` is the learned one.
    """
    staging = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    config = student.encoder.config.to_dict()
    config |= {"architectures": ["Tipsv2Model"], "temperature_init_value": float(encoder["temperature"])}
    config["dtype"] = str(dtype).removeprefix("torch.")
    (staging / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=plain) + "\n")
    cast = {k: v.detach().cpu().to(dtype).contiguous() for k, v in encoder.items()}
    save_file(cast, staging / "model.safetensors", metadata={"format": "pt"})
    if heads:
        save_file({k: v.detach().cpu().contiguous() for k, v in heads.items()}, staging / "heads.safetensors")
    (staging / "tokenizer.model").write_bytes(tokenizer)
    (staging / "recipe.json").write_text(json.dumps(dataclasses.asdict(student.config), indent=1) + "\n")
    (staging / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    sealed.write_checksums(staging, sorted(p.name for p in staging.iterdir()))
    before = folder.with_name(f".{folder.name}.before.part")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)  # removed file by file it would be half a model for a while
    staging.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
    return folder


def load_weights(folder: Path, student: Pretrainer, heads: bool = True) -> None:
    """Weights of an exported folder into `student`; a position table of another size is resized.

    Raises WeightsError naming file and key, sealed.Damaged for a file that is not what was exported.
    """
    file = folder / "model.safetensors"
    stored = _read(file)
    for name, value in student.encoder.state_dict().items():
        found = stored.get(name)
        if found is None:
            raise WeightsError(f"{file}: key {name} is missing; this is not a Tipsv2Model of that depth")
        if name.endswith("position_embeddings") and found.shape != value.shape:
            found = resize_positions(found, value.shape[1])
        if found.shape != value.shape:
            raise WeightsError(f"{file}: {name} has shape {list(found.shape)}, the config asks for {list(value.shape)}")
        place(found.to(value.dtype), value)
    with torch.no_grad():
        student.log_temperature.copy_(stored["temperature"].float().log().reshape(1))
    head_file = folder / "heads.safetensors"
    if heads and head_file.is_file():
        kept = _read(head_file)
        own = student.heads.state_dict()
        if {k: v.shape for k, v in kept.items()} != {k: v.shape for k, v in own.items()}:
            raise WeightsError(f"{head_file}: the projector has other sizes than [head] asks for")
        student.heads.load_state_dict(kept)


def resize_positions(table: torch.Tensor, slots: int) -> torch.Tensor:
    """[1, 1 + n², D] → [1, slots, D], slots = 1 + m²: the 448 px stage starts from the 224 px table."""
    old, new = round((table.shape[1] - 1) ** 0.5), round((slots - 1) ** 0.5)
    grid = table[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (new, new), mode="bilinear", align_corners=False, antialias=True)
    return torch.cat([table[:, :1].float(), grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], 1)


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        sealed.check_written(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None


def read_recipe(folder: Path) -> dict[str, object]:
    """The config that made an exported folder. Raises WeightsError when the folder has none."""
    path = folder / "recipe.json"
    if not path.is_file():
        raise WeightsError(f"{path}: missing; the folder was not written by `bench train`")
    sealed.check_written(path)
    table: dict[str, object] = json.loads(path.read_text())
    return table


def recipe_of(folder: Path) -> RecipeConfig:
    """The RecipeConfig that made an exported folder."""
    return from_table(read_recipe(folder), str(folder / "recipe.json"))
