"""`hf:REPO_OR_FOLDER`: any image encoder of `transformers`.

The families with an adapter of their own go to it; every other vision model, or the image tower of one that reads texts
as well, is read by `adapters.generic`. `adapters/families.toml` names what is refused, and what to write instead.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from adapters.generic import OTHERWISE, GenericVision
from adapters.state_dicts import names_in
from adapters.vit import load_eagerly, load_pretrained, read_config
from adapters.weights_files import Checkpoint, locate
from benchmark.contracts import Encoder, ModelSpec
from benchmark.errors import UsageError
from benchmark.registry import models

log = logging.getLogger("densebench.adapters")

FAMILIES = {
    "clip": "adapters.clip",
    "clip_vision_model": "adapters.clip",
    "siglip": "adapters.siglip",
    "siglip_vision_model": "adapters.siglip",
    "siglip2": "adapters.siglip",
    "siglip2_vision_model": "adapters.siglip",
    "dinov2": "adapters.dino",
    "dinov2_with_registers": "adapters.dino",
    "dinov3_vit": "adapters.dino",
    "tipsv2": "adapters.tipsv2",
    "vjepa2": "adapters.vjepa2",
}
ALONE = "Save its image tower alone (model.TOWER.save_pretrained(FOLDER)) and use hf:FOLDER"


def build(spec: ModelSpec) -> Encoder:
    """The encoder of a hub repository or a local folder. Raises WeightsError or UsageError."""
    row = spec.row or next((row for row in models().values() if row.get("hub") == spec.target), {})
    spec = replace(spec, row={k: v for k, v in row.items() if k != "target"})  # a registered model under its hub name
    checkpoint = locate(spec)
    kind = str(checkpoint.config.get("model_type"))
    if kind in FAMILIES:
        builder: Callable[[ModelSpec], Encoder] = importlib.import_module(FAMILIES[kind]).build
        return builder(spec)
    remote = "auto_map" in checkpoint.config
    if remote and not spec.trust_remote_code:
        raise UsageError(
            f"{spec.name}: this repository runs its own Python code. "
            f"Read it in {checkpoint.folder}, then pass --trust-remote-code"
        )
    if remote:
        check_code(checkpoint, spec)
    table = tomllib.loads(Path(__file__).with_name("families.toml").read_text(encoding="utf-8"))
    refuse(kind, table, checkpoint, spec)
    try:
        config = read_config(AutoConfig, checkpoint, spec.name, trust_remote_code=remote)
    except (OSError, ImportError) as error:  # the repository's own code, or a package that it needs
        reason = " ".join(str(error).split())
        raise UsageError(f"{spec.name}: the code in {checkpoint.folder} does not run ({reason[:160]})") from error
    except (ValueError, KeyError) as error:
        raise UsageError(f"{spec.name}: transformers does not know model type {kind!r} ({str(error)[:80]})") from error
    reading = table["read"].get(kind, {})
    if remote:
        return GenericVision(spec, checkpoint, load_eagerly(checkpoint, spec.name, config), reading)
    model_class = class_of(config, checkpoint, spec.name)
    inputs = list(inspect.signature(model_class.forward).parameters.values())[1:]
    tower = str(reading.get("tower", ""))
    beside = [p.name for p in inputs if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    if not tower and inputs[0].name != "pixel_values":
        raise UsageError(f"{spec.name}: {kind} reads texts or other things beside pictures. {ALONE}")
    if not tower and beside:
        raise UsageError(f"{spec.name}: {kind} wants {' and '.join(beside)} beside a picture's pixels. {OTHERWISE}")
    # Web-MAE's files hold a pooler that nobody trained, as ViTModel makes one: their rows say so.
    pooler = spec.row.get("pooler", True) and any("pooler." in key for key in names_in(checkpoint.files))
    more: dict[str, Any] = {"config": config}
    if pooler and "add_pooling_layer" in inspect.signature(model_class.__init__).parameters:
        more["add_pooling_layer"] = True  # Data2Vec and I-JEPA are built without it
    model = load_pretrained(model_class, checkpoint, spec.name, ("pooler.",), (tower,) if tower else (), **more)
    if tower:
        log.warning("%s: its image tower is read alone: no text, vectors before any projection", spec.name)
        model = getattr(model, tower)
        reading = table["read"].get(model.config.model_type, {})
    untrained = not pooler and any("pooler." in key for key, _ in model.named_parameters())
    return GenericVision(spec, checkpoint, model, reading, untrained)


def refuse(kind: str, table: Any, checkpoint: Checkpoint, spec: ModelSpec) -> None:
    """Raises UsageError, with what to write instead, for model types that families.toml says are not read, and for
    every language model that sees.
    """
    refused, name = table["refused"], checkpoint.config.get("architecture")
    talks = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if name and kind in ("None", *refused["timm"]["types"]):
        here = f"timm:{name} --weights {checkpoint.folder}/model.safetensors"
        hub = "/" in spec.target and not Path(spec.target).exists()
        raise UsageError(f"{spec.name}: this is timm's {name}. Use {f'timm:hf-hub:{spec.target}' if hub else here}")
    for name, group in refused.items():
        if kind in group.get("types", ()) or (name == "texts" and talks and kind not in table["read"]):
            raise UsageError(f"{spec.name}: {kind} {group['why']}. {group.get('instead', OTHERWISE)}")


def class_of(config: Any, checkpoint: Checkpoint, name: str) -> Any:
    """The class of `transformers` that turns pictures into features by this config.

    The one of AutoModel, else (towers that stand alone) the one that config.json names, else any of this config.
    Raises UsageError where none takes pixels.
    """
    found: Any = AutoModel._model_mapping.get(type(config), None)
    found = found[0] if isinstance(found, tuple) else found
    if found is None:
        module: Any = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
        fitting = [
            c for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, PreTrainedModel) and c.config_class is type(config)
        ]  # fmt: skip
        named = checkpoint.config.get("architectures") or []
        order = sorted(fitting, key=lambda c: (c.__name__ not in named, not c.__name__.endswith("Model"), c.__name__))
        found = next((c for c in order if "pixel_values" in inspect.signature(c.forward).parameters), None)
    takes = list(inspect.signature(found.forward).parameters) if found else []
    if "pixel_values" not in takes:
        kind = type(config).model_type
        raise UsageError(f"{name}: {kind} is no image encoder of transformers. {OTHERWISE}")
    return found


def check_code(checkpoint: Checkpoint, spec: ModelSpec) -> None:
    """Raises UsageError unless the code that config.json names is in the folder, where it was read and is hashed."""
    named = checkpoint.config["auto_map"]
    for reference in (named.get(key) for key in ("AutoConfig", "AutoModel") if isinstance(named, dict)):
        if not isinstance(reference, str):
            continue
        other, _, inside = reference.rpartition("--")
        file = f"{inside.partition('.')[0]}.py"
        if other or not (checkpoint.folder / file).is_file():
            place = other or spec.target
            raise UsageError(
                f"{spec.name}: its code {file} is not in {checkpoint.folder}. Put the .py files of "
                f"https://huggingface.co/{place} there" + (f" and take '{other}--' out of config.json" if other else "")
            )
