"""`hf:REPO_OR_FOLDER`: any image encoder of `transformers`.

The families with an adapter of their own go to it. Every other vision model is read through its last hidden states:
a token list (the tokens past the patch grid's count come first and are CLS or registers) or a feature map.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from adapters.patches import to_map
from adapters.vit import VisionTransformer, load_pretrained, read_config
from adapters.weights_files import Checkpoint, locate
from benchmark.contracts import Encoder, ImageFeatures, LayerFeatures, ModelSpec
from benchmark.errors import EncoderError, UsageError
from benchmark.registry import code_versions, models

FAMILIES = {
    "clip": "adapters.clip",
    "clip_vision_model": "adapters.clip",
    "siglip": "adapters.siglip",
    "siglip_vision_model": "adapters.siglip",
    "dinov2": "adapters.dino",
    "dinov2_with_registers": "adapters.dino",
    "dinov3_vit": "adapters.dino",
    "tipsv2": "adapters.tipsv2",
}
STRIDES = {"dinov3_convnext": 32}  # pixels to a token of models whose config.json has no patch_size
NORMS = ("layernorm", "norm", "post_layernorm", "layer_norm", "ln_f")


class GenericVision(VisionTransformer):
    """A vision model that returns `last_hidden_state`. Without a CLS token, `cls` is the mean of the patches."""

    family = "hf"
    code_version = code_versions()[__name__]

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, model: Any) -> None:
        super().__init__(spec, checkpoint, model)
        self.vision, self.blocks, self.norm = self.model, [], nn.Identity()
        accepted = inspect.signature(self.model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}
        config: Any = self.model.config
        probe = self.probe(config)
        self.channels_first = probe.ndim == 4
        side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        if self.channels_first:
            config.hidden_size, config.patch_size = probe.shape[1], side // probe.shape[-1]
            self.prefix = 0
            self.model.to(memory_format=torch.channels_last)  # 1.1 × on a CPU, more on a GPU; a ViT gains nothing
        else:
            tokens, config.hidden_size = probe.shape[1:]
            if tokens < (side // config.patch_size) ** 2:  # a pyramid such as Swin: its last stage has a coarser grid
                config.patch_size = side // math.isqrt(tokens)
            self.prefix = tokens - (side // config.patch_size) ** 2
            self.find_blocks()
        self.finish(config)

    def probe(self, config: Any) -> torch.Tensor:
        """The last hidden states of a black image: tokens or a map, and how many tokens stand before the patches."""
        side = getattr(config, "image_size", None) or 224
        side = side if isinstance(side, int) else side[0]
        config.image_size = side
        if config.model_type in STRIDES:
            config.patch_size = STRIDES[config.model_type]
        image = torch.zeros(1, 3, side, side, device=self.device, dtype=self.dtype)
        try:
            with torch.inference_mode():
                hidden: torch.Tensor = self.model(image).last_hidden_state
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            kind = type(self.model).__name__
            raise UsageError(
                f"{self.spec.name}: {kind} does not turn [1, 3, {side}, {side}] pixels into last_hidden_state "
                f"({str(error).splitlines()[0]}). Wrap it in your own file: --model file.py:function"
            ) from error
        tokens = hidden.shape[1] if hidden.ndim == 3 else 0
        patch = getattr(config, "patch_size", None)
        coarse = tokens > 0 and math.isqrt(tokens) ** 2 == tokens and side % math.isqrt(tokens) == 0
        if hidden.ndim == 3 and (not isinstance(patch, int) or (tokens < (side // patch) ** 2 and not coarse)):
            raise UsageError(
                f"{self.spec.name}: {tokens} tokens do not fit a grid of {side}/{patch} patches. "
                "Wrap it in your own file: --model file.py:function"
            )
        return hidden

    def find_blocks(self) -> None:
        """The longest ModuleList holds the blocks; layers are offered only where a final norm is found beside it."""
        lists = [m for m in self.model.modules() if isinstance(m, nn.ModuleList)]
        norm = next(
            (getattr(self.model, n) for n in NORMS if isinstance(getattr(self.model, n, None), nn.Module)), None
        )
        longest = max(lists, key=len, default=nn.ModuleList())
        if norm is not None and len(longest) == getattr(self.model.config, "num_hidden_layers", -1):
            self.blocks, self.norm = list(longest), norm

    def forward(self, pixels: torch.Tensor) -> Any:
        if self.channels_first:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return self.vision(pixels, **self.options)

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        hidden: torch.Tensor = output.last_hidden_state
        if self.channels_first:
            patches = hidden.permute(0, 2, 3, 1)
            return ImageFeatures(patches.mean(dim=(1, 2))[:, None].float(), patches.float())
        cls, patches = self.split(hidden, grid)
        return ImageFeatures(cls, patches)

    def layer(self, tokens: torch.Tensor, grid: tuple[int, int], final_norm: bool) -> LayerFeatures:
        return LayerFeatures(*self.split(self.norm(tokens) if final_norm else tokens, grid))

    def split(self, tokens: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        if tokens.shape[1] != self.prefix + grid[0] * grid[1]:
            raise EncoderError(
                f"{self.card.name}: {tokens.shape[1]} tokens for {self.prefix} and a {grid[0]}x{grid[1]} grid; "
                f"this model may only take {self.card.image_size} pixel squares"
            )
        patches = tokens[:, self.prefix :]
        cls = tokens[:, :1] if self.prefix else patches.mean(dim=1, keepdim=True)
        return cls.float(), to_map(patches, *grid).float()


def build(spec: ModelSpec) -> Encoder:
    """The encoder of a hub repository or a local folder. Raises WeightsError or UsageError."""
    row = next((row for row in models().values() if row.get("hub") == spec.target), {})
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
    try:
        config = read_config(AutoConfig, checkpoint, spec.name, trust_remote_code=remote)
    except (OSError, ImportError) as error:  # the repository's own code, or a package that it needs
        reason = " ".join(str(error).split())
        raise UsageError(f"{spec.name}: the code in {checkpoint.folder} does not run ({reason[:160]})") from error
    except (ValueError, KeyError) as error:
        raise UsageError(f"{spec.name}: transformers does not know model type {kind!r} ({str(error)[:80]})") from error
    model = load_pretrained(
        AutoModel, checkpoint, spec.name, unused=("pooler.",), config=config, trust_remote_code=remote
    )
    return GenericVision(spec, checkpoint, model)


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
