"""One layout of TIPS weights to another: transformers folder, official PyTorch pair, official JAX (scenic) pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from safetensors.torch import save

from adapters.tipsv2.checkpoint import HUB_MLP, HUB_PREFIX, PARTS, PREFIX, Checkpoint, Layout, load
from adapters.tipsv2.official import to_official
from adapters.tipsv2.scenic import to_scenic
from adapters.tipsv2.sources import TOKENIZER
from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError
from benchmark.system.files import make_folder, write_atomic, write_text

LAYOUTS: tuple[str, ...] = get_args(Layout)


def export(spec: ModelSpec, to: str, out: Path) -> list[Path]:
    """Writes the weights of `spec` in layout `to` under `out` and returns the files.

    Back to the layout they came from, the arrays are the same bit for bit. Scenic has no LayerScale, mask token or CLS
    position: the first and last are folded into their neighbours, the mask token is lost (zeros on the way back).
    Raises UsageError for an unknown layout or a model that is not TIPS, WeightsError for damaged weights.
    """
    if to not in LAYOUTS:
        raise UsageError(f"--to {to}: choose one of {', '.join(LAYOUTS)}")
    if not str(spec.row.get("target", "adapters.tipsv2:")).startswith("adapters.tipsv2:"):
        raise UsageError(f"--model {spec.name}: bench export converts TIPS and TIPSv2 weights only")
    checkpoint = load(spec)
    written = _transformers(checkpoint, out) if to == "transformers" else _npz(spec, checkpoint, to, out)
    if "arch" not in spec.row and to != "transformers":
        written.append(_config(checkpoint, out))
    tokenizer = out / TOKENIZER
    if not (tokenizer.exists() and tokenizer.samefile(checkpoint.tokenizer)):
        write_atomic(tokenizer, lambda f: f.write(checkpoint.tokenizer.read_bytes()))
    return [*written, tokenizer]


def _npz(spec: ModelSpec, checkpoint: Checkpoint, to: str, out: Path) -> list[Path]:
    scenic = to == "scenic-npz"
    stem = next(iter(spec.row.get("npz", {}).get("scenic" if scenic else "torch", [])), spec.name)
    written = []
    for part in PARTS:
        tensors = getattr(checkpoint, part)
        flat = to_scenic(tensors, part, checkpoint.arch) if scenic else to_official(tensors, part)
        if part == "text" and checkpoint.temperature is not None:
            flat["temperature_contrastive" if scenic else "temperature"] = checkpoint.temperature
        written.append(out / f"{stem}_{part}.npz")
        write_atomic(written[-1], lambda f, arrays=_arrays(flat): np.savez(f, **arrays))  # type: ignore[misc]
    return written


def _transformers(checkpoint: Checkpoint, out: Path) -> list[Path]:
    state = {k: v.contiguous() for part in PARTS for k, v in _named(checkpoint, part).items()}
    if checkpoint.temperature is not None:
        state["temperature"] = checkpoint.temperature.reshape(()).contiguous()
    weights = out / "model.safetensors"
    write_atomic(weights, lambda f: f.write(save(state, metadata={"format": "pt"})))
    return [weights, _config(checkpoint, out)]


def _named(checkpoint: Checkpoint, part: str) -> dict[str, torch.Tensor]:
    """One tower as the hub's files and `save_pretrained` name it; by module where the source did so."""
    tensors: dict[str, torch.Tensor] = getattr(checkpoint, part)
    if not checkpoint.hub_names:
        return {PREFIX[part] + k: v for k, v in tensors.items()}
    saved = {official: name for name, official in HUB_MLP.items()} if part == "vision" else {}
    official = to_official(tensors, part)
    return {HUB_PREFIX[part] + _replaced(k, saved): v for k, v in official.items()}


def _replaced(key: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        key = key.replace(old, new)
    return key


def _config(checkpoint: Checkpoint, out: Path) -> Path:
    config = checkpoint.arch.to_config(checkpoint.grid)
    config.architectures = ["Tipsv2Model"]
    if checkpoint.temperature is not None:
        config.temperature_init_value = float(checkpoint.temperature)
    make_folder(out)
    config.save_pretrained(out)
    path = out / "config.json"
    if checkpoint.temperature is None:  # the library's default is no knowledge of this model
        stated = json.loads(path.read_text(encoding="utf-8"))
        del stated["temperature_init_value"]
        write_text(path, json.dumps(stated, indent=2, sort_keys=True) + "\n")
    return path


def _arrays(flat: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """C-ordered numpy arrays; bfloat16, which numpy lacks, as float32."""
    return {k: (v.float() if v.dtype == torch.bfloat16 else v).contiguous().numpy() for k, v in flat.items()}
