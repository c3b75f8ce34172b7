"""V-JEPA 2 (Assran et al. 2025), an encoder of clips, on still pictures.

As its authors do for ImageNet: the picture is every frame of a clip (facebookresearch/vjepa2, configs/eval/*/in1k.yaml:
16 frames, 18 at 384 pixels), with their evaluation's pixels. Patches are the mean over the clip's time steps, which is
our choice: their attentive probe reads all of them. There is no CLS: the mean patch stands for it. `transformers`
counts rows and columns by the size in config.json, whatever the picture's; here they are the picture's, as in the
authors' code.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from transformers import VJEPA2Model

from adapters.patches import to_map
from adapters.vit import VisionTransformer, load_pretrained, square
from adapters.weights_files import locate
from benchmark.contracts import ImageFeatures, LayerFeatures, ModelSpec
from benchmark.errors import WeightsError
from benchmark.registry import code_versions

FRAMES = {384: 18}  # else 16


class StillVideo(VisionTransformer):
    """The encoder of `VJEPA2Model`; its predictor is left out."""

    family = "vjepa2"
    code_version = code_versions()[__name__]

    def __init__(self, spec: ModelSpec, checkpoint: Any, model: Any) -> None:
        config = model.config
        super().__init__(spec, checkpoint, model.encoder)
        self.vision, self.blocks, self.norm = self.model, self.model.layer, self.model.layernorm
        side, patch = square(config.crop_size, spec.name), square(config.patch_size, spec.name)
        self.frames, self.grid = FRAMES.get(side, 16), (0, 0)
        for block in self.blocks:
            block.attention.get_position_ids = self.positions
        self.finish(SimpleNamespace(hidden_size=config.hidden_size, patch_size=patch, image_size=side))

    def positions(self, tokens: torch.Tensor, masks: Any = None) -> tuple[torch.Tensor, ...]:
        """Time step, row and column of each token, without masks."""
        height, width = self.grid
        ids = torch.arange(tokens.shape[1], device=tokens.device)
        place = ids % (height * width)
        return ids // (height * width), place // width, place % width

    def forward(self, pixels: torch.Tensor) -> Any:
        self.grid = (pixels.shape[-2] // self.card.patch_size, pixels.shape[-1] // self.card.patch_size)
        return self.vision(pixels[:, None].expand(-1, self.frames, -1, -1, -1))

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        return ImageFeatures(*self.still(output.last_hidden_state, grid))

    def layer(self, tokens: torch.Tensor, grid: tuple[int, int], final_norm: bool) -> LayerFeatures:
        return LayerFeatures(*self.still(self.norm(tokens) if final_norm else tokens, grid))

    def still(self, tokens: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean patch [B, 1, D] and the patches [B, h, w, D] of tokens [B, T*h*w, D]."""
        patches = tokens.float().reshape(len(tokens), -1, grid[0] * grid[1], tokens.shape[-1]).mean(1)
        return patches.mean(dim=1, keepdim=True), to_map(patches, *grid)


def build(spec: ModelSpec) -> StillVideo:
    """Raises WeightsError when the weights are missing, damaged or of another model."""
    checkpoint = locate(spec)
    kind = checkpoint.config.get("model_type")
    if kind != "vjepa2":
        raise WeightsError(f"{spec.name}: {checkpoint.folder}/config.json is of a {kind!r} model, expected 'vjepa2'")
    model = load_pretrained(VJEPA2Model, checkpoint, spec.name, towers=("encoder",))
    if "transform" not in spec.row:  # the repository's processor is one of videos
        side = square(model.config.crop_size, spec.name)
        asked = {"resize": "short-side", "size": int(side * 256 / 224), "crop": side, "rounding": "even"}
        asked |= {"interpolation": "bilinear", "normalisation": "imagenet"}
        spec = replace(spec, row={**spec.row, "transform": asked})
    return StillVideo(spec, checkpoint, model)
