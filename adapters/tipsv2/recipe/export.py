"""A trained student as a transformers folder that the ordinary adapters load, and back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from adapters.tipsv2.recipe.checkpoint import FACTS, TOKENIZER, checkpoints, load_checkpoint, place, write_tensors
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import from_table
from adapters.tipsv2.recipe.model import Pretrainer
from adapters.tipsv2.recipe.weights import RECIPE, differences, head_file, read_tensors, read_weights
from benchmark.errors import WeightsError, first_line
from benchmark.system import sealed
from benchmark.system.digest import plain

AVERAGES = "average/"  # in heads.safetensors, before the names of the teacher's projectors and centres


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

    `encoder` and `heads` are whole state dicts; `encoder["temperature"]` is the learned one. Of towers that were frozen
    `encoder` is empty, and the first two are not written.
    """
    staging = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if encoder:
        config = student.encoder.config.to_dict()
        config |= {"architectures": ["Tipsv2Model"], "temperature_init_value": float(encoder["temperature"])}
        config["dtype"] = str(dtype).removeprefix("torch.")
        (staging / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=plain) + "\n")
        cast = {k: v.detach().cpu().to(dtype).contiguous() for k, v in encoder.items()}
        write_tensors(staging / "model.safetensors", cast, {"format": "pt"})
    if heads:
        write_tensors(staging / "heads.safetensors", heads)
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


def exported(
    student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor], config: RecipeConfig
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(encoder, heads) for `export_folder` of the whole state dicts of `Pretrainer` and `Teacher`."""
    encoder = {k.removeprefix("encoder."): v for k, v in student.items() if k.startswith("encoder.")}
    if encoder:
        lowest = config.loss.min_temperature
        encoder["temperature"] = student["log_temperature"].exp().clamp_min(lowest).reshape(())
    heads = {k.removeprefix("heads."): v for k, v in student.items() if k.startswith("heads.")}
    if heads:
        heads |= {AVERAGES + k: v for k, v in teacher.items() if not k.startswith("vision.")}
    return encoder, heads


def export_checkpoint(path: Path, out: Path) -> Path:
    """The checkpoint `path` (RUN/step-N) of a run, which may still be going on, as the folder `out` that
    `export_folder` writes.

    Raises WeightsError for one that is gone or was made before checkpoints held all that is needed, sealed.Damaged.
    """
    try:
        tensors, facts = load_checkpoint(path)
        tokenizer = (path / TOKENIZER).read_bytes()
        config = from_table(facts["recipe"], str(path / FACTS))
    except (FileNotFoundError, KeyError) as error:
        if there := [each.name for each in checkpoints(path)]:
            raise WeightsError(f"{path} is a run. Name a checkpoint of it: {', '.join(there)}") from None
        if (path / RECIPE).is_file():
            raise WeightsError(f"{path} is what a run ended in: it needs no export") from None
        raise WeightsError(
            f"{path}: no checkpoint that can be exported ({first_line(error)} is missing): it was removed meanwhile, or"
            " made by an older densebench. Name a RUN/step-N that is there"
        ) from None
    student_state, teacher_state = (
        {k.removeprefix(part): tensors[k] for k in tensors if k.startswith(part)} for part in ("student/", "teacher/")
    )
    encoder, heads = exported(student_state, teacher_state, config)
    with torch.device("meta"):
        student = Pretrainer(config)
    return export_folder(out, encoder, heads, student, tokenizer, facts["exported"])


def load_weights(key: str, word: str, student: Pretrainer, heads: bool = True) -> None:
    """The weights that `key` = `word` names into `student`; a position table of another size is resized. The projectors
    come along where there are some and `heads`.

    Raises WeightsError naming file and key, sealed.Damaged for a file that is not what was exported.
    """
    weights = read_weights(key, word)
    file, stored, student.source = weights.where, weights.state, weights.digest
    if unlike := differences(weights.sizes, student.config.model):
        raise WeightsError(f"{file}: {'; '.join(unlike)}. Set [model] to the sizes of the weights")
    for name, value in student.encoder.state_dict().items():
        found = stored.get(name)
        if found is None and name == "temperature":
            continue  # the authors' files may not say it: it starts at loss.temperature
        if found is None:
            raise WeightsError(f"{file}: key {name} is missing; the file is incomplete")
        if name.endswith("position_embeddings") and found.shape != value.shape:
            found = resize_positions(found, value.shape[1])
        if found.shape != value.shape:
            raise WeightsError(f"{file}: {name} has shape {list(found.shape)}, the config asks for {list(value.shape)}")
        place(found.to(value.dtype), value)
    if "temperature" in stored:
        with torch.no_grad():
            student.log_temperature.copy_(stored["temperature"].float().log().reshape(1))
    if heads and (projectors := head_file(word)):
        load_heads(projectors, student.heads)


def load_heads(file: Path, heads: nn.Module, averages: bool = False) -> None:
    """The projectors in `file`, or their `averages` where it has some, into `heads`. Raises WeightsError for other
    sizes."""
    kept = read_tensors(file)
    for name, value in heads.state_dict().items():
        _place(file, kept.get(f"{AVERAGES}heads.{name}" if averages else name, kept.get(name)), value)


def load_averages(file: Path, teacher: nn.Module) -> None:
    """The averages of the projectors in `file` and their centres into `teacher` (`teacher.Teacher`).

    From a file of before they travelled it takes the projectors themselves, and leaves the centres at zero.
    """
    kept = read_tensors(file)
    for name, value in teacher.state_dict().items():
        if name.startswith("vision."):
            continue  # its size is the encoder's: a full average starts again as the student
        found = kept.get(AVERAGES + name, kept.get(name.removeprefix("heads.")))
        if found is not None or name.startswith("heads."):
            _place(file, found, value)


def _place(file: Path, found: torch.Tensor | None, value: torch.Tensor) -> None:
    if found is None or found.shape != value.shape:
        raise WeightsError(f"{file}: the projector has other sizes than [head] asks for")
    place(found, value)


def resize_positions(table: torch.Tensor, slots: int) -> torch.Tensor:
    """[1, 1 + n², D] → [1, slots, D], slots = 1 + m²: the 448 px stage starts from the 224 px table."""
    old, new = round((table.shape[1] - 1) ** 0.5), round((slots - 1) ** 0.5)
    grid = table[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (new, new), mode="bilinear", align_corners=False, antialias=True)
    return torch.cat([table[:, :1].float(), grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], 1)
