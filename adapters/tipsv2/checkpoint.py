"""A TIPS model's weights under one set of names, whatever layout they came in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch

from adapters.state_dicts import unwrapped
from adapters.tipsv2 import sources
from adapters.tipsv2.files import read_npz, read_safetensors
from adapters.tipsv2.official import from_official, to_official
from adapters.tipsv2.scenic import TOKENS, from_scenic, to_scenic
from adapters.tipsv2.variants import Architecture
from benchmark.contracts import ModelSpec, WeightsInfo
from benchmark.errors import WeightsError
from benchmark.system import sealed
from benchmark.system.digest import fingerprint, sha256_file

Layout = Literal["transformers", "torch-npz", "scenic-npz"]
Tensors = dict[str, torch.Tensor]
TEMPERATURES = ("temperature", "temperature_contrastive")
# the hub's files, and those of `save_pretrained`, keep the official names behind a prefix
HUB_PREFIX = {"vision": "vision_encoder.", "text": "text_encoder."}
# … but for the image tower's MLP, which `save_pretrained` calls as the text tower's
HUB_MLP = {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
PREFIX = {"vision": "vision_model.", "text": "text_model."}
PARTS = ("vision", "text")


@dataclass(frozen=True)
class Checkpoint:
    """Both towers under transformers' names without their prefix, checked to be whole."""

    arch: Architecture
    vision: Tensors
    text: Tensors
    temperature: torch.Tensor | None  # the cosine is divided by it; None where the files do not say
    layout: Layout
    info: WeightsInfo
    tokenizer: Path
    hub_names: bool = True  # of a transformers folder: as the hub and `save_pretrained` write, not as the modules say

    @property
    def grid(self) -> int:
        """Side of the position table."""
        return math.isqrt(self.vision["embeddings.position_embeddings"].shape[1] - 1)

    def state_dict(self) -> Tensors:
        """Both towers under Tipsv2Model's own names, and `temperature` (a scalar) where it is known."""
        state = {prefix + k: v for part, prefix in PREFIX.items() for k, v in getattr(self, part).items()}
        return state if self.temperature is None else {**state, "temperature": self.temperature.reshape(())}

    @property
    def params(self) -> int:
        return sum(t.numel() for part in (self.vision, self.text) for t in part.values())


def load(spec: ModelSpec, tokenizer: bool = True) -> Checkpoint:
    """The checkpoint of `spec`; without `tokenizer` that one may be missing.

    Raises WeightsError naming file and key when a file is not exactly that model's.
    """
    source = sources.find(spec, tokenizer)
    arch = _architecture(spec, source)
    read = _read_pair(source) if source.npz else _read_transformers(source, spec)
    layout, flat, temperature = read
    towers, hub_names = {}, True
    for part, path in zip(PARTS, source.npz or (source.shards[0],) * 2):
        fits = _Fit(spec.name, part, arch, layout if layout != "transformers" else _dialect(flat[part]))
        fits.check(flat[part], path)
        hub_names = hub_names and fits.layout != "transformers"
        towers[part] = fits.ours(flat[part])
    return Checkpoint(
        arch, towers["vision"], towers["text"], temperature, layout, _info(source), source.tokenizer, hub_names
    )


@lru_cache(maxsize=4)
def shapes(arch: Architecture, grid: int) -> dict[str, Tensors]:
    """Both towers as meta tensors: names and shapes without memory."""
    from transformers import Tipsv2Model

    with torch.device("meta"):
        state = Tipsv2Model(arch.to_config(grid)).state_dict()
    return {
        part: {k.removeprefix(PREFIX[part]): v for k, v in state.items() if k.startswith(PREFIX[part])}
        for part in PARTS
    }


def _architecture(spec: ModelSpec, source: sources.Source) -> Architecture:
    declared = Architecture.from_row(spec.row)
    written = Architecture.from_config(source.config) if source.config else None
    if declared is None and written is None:
        raise WeightsError(f"{source.name}: no config.json says how large {spec.name} is. {sources.get(spec)}")
    if declared and written and (declared.width, declared.depth) != (written.width, written.depth):
        raise WeightsError(
            f"{source.config}: width {written.width} and {written.depth} blocks, {spec.name} has {declared.width} and "
            f"{declared.depth}. Choose the model these weights belong to"
        )
    return written or declared  # type: ignore[return-value]


def _read_pair(source: sources.Source) -> tuple[Layout, dict[str, Tensors], torch.Tensor | None]:
    flat = {part: read_npz(path) for part, path in zip(PARTS, source.npz)}
    vision = flat["vision"]
    if any(key.startswith("encoder/") for key in vision):
        layout: Layout = "scenic-npz"
    elif "pos_embed" in vision or any(key.startswith("blocks.") for key in vision):
        layout = "torch-npz"
    else:
        names = ", ".join(map(repr, list(vision)[:3])) or "none"
        raise WeightsError(f"{source.npz[0]} is no TIPS image tower: its keys are {names} …. Choose another file")
    temperature = None
    for key in TEMPERATURES:
        temperature = flat["text"].pop(key, temperature)
    return layout, flat, temperature


def _read_transformers(
    source: sources.Source, spec: ModelSpec
) -> tuple[Layout, dict[str, Tensors], torch.Tensor | None]:
    tensors = unwrapped(read_safetensors(source.shards))
    temperature = tensors.pop("temperature", None)
    flat: dict[str, Tensors] = {"vision": {}, "text": {}}
    for key, value in tensors.items():
        for part in PARTS:
            for prefix in (HUB_PREFIX[part], PREFIX[part]):
                if key.startswith(prefix):
                    flat[part][_official_mlp(key.removeprefix(prefix), part)] = value
                    break
            else:
                continue
            break
        else:
            raise WeightsError(f"{source.shards[0]}: {key!r} is not of a TIPS model. {sources.get(spec)}")
    if temperature is None and source.config is not None:
        temperature = _configured_temperature(source.config)
    return "transformers", flat, temperature


def _official_mlp(key: str, part: str) -> str:
    for saved, official in HUB_MLP.items() if part == "vision" else ():
        key = key.replace(saved, official)
    return key


def _configured_temperature(path: Path) -> torch.Tensor | None:
    """What the hub's config.json says: `transformers` uses the first name, the authors the other."""
    config = json.loads(path.read_text(encoding="utf-8"))
    value = config.get("temperature_init_value", config.get("temperature"))
    return None if value is None else torch.tensor(float(value))


def _dialect(flat: Mapping[str, torch.Tensor]) -> Layout:
    """Hub files carry the official names, `save_pretrained` may write either."""
    official = ("blocks.", "transformer.resblocks.")
    return "torch-npz" if any(key.startswith(official) for key in flat) else "transformers"


@dataclass(frozen=True)
class _Fit:
    """Whether a file's arrays are those of one tower, in the file's own names."""

    model: str
    part: str
    arch: Architecture
    layout: Layout

    def ours(self, flat: Tensors) -> Tensors:
        if self.layout == "torch-npz":
            return from_official(flat, self.part)
        return from_scenic(flat, self.part) if self.layout == "scenic-npz" else flat

    def theirs(self, tensors: Tensors) -> Tensors:
        if self.layout == "torch-npz":
            return to_official(tensors, self.part)
        return to_scenic(tensors, self.part, self.arch) if self.layout == "scenic-npz" else tensors

    def grid(self, flat: Tensors) -> int:
        """Side of the file's position table; the architecture's when the file has none (reported as missing later)."""
        if self.layout == "scenic-npz":
            table = flat.get(TOKENS + "posembed_input")
            side = table.shape[1] if table is not None and table.ndim == 4 else 0
        else:
            table = flat.get("pos_embed", flat.get("embeddings.position_embeddings"))
            side = math.isqrt(max(table.shape[1] - 1, 0)) if table is not None and table.ndim == 3 else 0
        return side or self.arch.image_size // self.arch.patch_size

    def check(self, flat: Tensors, path: Path) -> None:
        expected = self.theirs(shapes(self.arch, self.grid(flat))[self.part])
        for key, value in flat.items():
            if key in expected and value.shape != expected[key].shape:
                raise WeightsError(
                    f"{path}: {key!r} is {list(value.shape)}, {self.model} needs {list(expected[key].shape)}. "
                    f"Choose the model these weights belong to"
                )
        for keys, what in ((expected.keys() - flat.keys(), "missing"), (flat.keys() - expected.keys(), "unknown")):
            if keys:
                more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
                raise WeightsError(
                    f"{path}: {min(keys)!r}{more} is {what} for {self.model}. The file is incomplete or another model's"
                )


def _info(source: sources.Source) -> WeightsInfo:
    """sha256 over the digests of the weight files, the sizes and the tokenizer: all that decides what comes out.

    Raises sealed.Damaged for a file of `bench train` that is not what was written."""
    files = (
        *source.weights,
        *([source.tokenizer] if source.tokenizer.is_file() else []),
        *([source.config] if source.config else []),
    )
    digests = [sha256_file(path) for path in files]
    for path, digest in zip(files, digests):
        sealed.check_written(path, digest)
    return WeightsInfo(source.name, fingerprint(digests))
