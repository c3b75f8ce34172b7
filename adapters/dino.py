"""DINOv2 (Oquab et al. 2023), with registers (Darcet et al. 2023), and DINOv3 (Siméoni et al. 2025). Image only.

Register tokens sit between CLS and the patches and are dropped. DINOv2's position table is for 518 pixels while its
preprocessing crops 224; DINOv3 has no table (rotary positions). Away from 518 pixels, the authors' code for DINOv2
without registers resamples the table by (n + 0.1) / 37, `transformers` by n / 37: patches differ by 1 to 3 %. The card
says which it is (option `positions`); with registers both agree, and widen the filter where the grid shrinks.
"""

from __future__ import annotations

from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from transformers import Dinov2Model, Dinov2WithRegistersModel, DINOv3ViTModel

from adapters.patches import to_map
from adapters.positions import rules
from adapters.vit import VisionTransformer, load_pretrained
from adapters.weights_files import Checkpoint, locate
from benchmark.contracts import ImageFeatures, ModelSpec
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import code_versions

MODELS: dict[str, Any] = {
    "dinov2": Dinov2Model,
    "dinov2_with_registers": Dinov2WithRegistersModel,
    "dinov3_vit": DINOv3ViTModel,
}


POSITIONS = ("authors", "transformers")


def resampled(embeddings: Any, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The position table [1, 1 + h * w, D] for a picture by the authors' rule, in place of Dinov2Embeddings' method."""
    sides = zip((height, width), embeddings.patch_embeddings.patch_size)
    return rules()["dinov2"].resample(embeddings.position_embeddings, [side // patch for side, patch in sides])


class Dino(VisionTransformer):
    """CLS and patches after the final norm."""

    family = "dino"
    code_version = code_versions()[__name__]

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, model: Any) -> None:
        super().__init__(spec, checkpoint, model)
        tower: Any = self.model
        self.vision = tower
        self.blocks = tower.encoder.layer if hasattr(tower, "encoder") else tower.model.layer
        self.norm = tower.layernorm if hasattr(tower, "layernorm") else tower.norm
        self.prefix = 1 + getattr(tower.config, "num_register_tokens", 0)
        self.finish(tower.config)
        if tower.config.model_type == "dinov3_vit":
            return
        positions = spec.options.get("positions", "authors")
        if positions not in POSITIONS:
            raise UsageError(f"--positions {positions}: {spec.name} takes {' or '.join(POSITIONS)}")
        if tower.config.model_type == "dinov2" and positions == "authors":
            tower.embeddings.interpolate_pos_encoding = MethodType(resampled, tower.embeddings)
        self.card = replace(self.card, options=(*self.card.options, ("positions", positions)))

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        tokens: torch.Tensor = output.last_hidden_state  # [B, 1+registers+h*w, D], normed
        return ImageFeatures(tokens[:, :1].float(), to_map(tokens[:, self.prefix :], *grid).float())


def build(spec: ModelSpec) -> Dino:
    """Raises WeightsError when the weights are missing, damaged or of another model."""
    checkpoint = locate(spec)
    kind = str(checkpoint.config.get("model_type"))
    expected = spec.row.get("model_type", kind)
    if kind not in MODELS or kind != expected:
        wanted = expected if expected in MODELS else " or ".join(MODELS)
        raise WeightsError(f"{spec.name}: {checkpoint.folder}/config.json is of a {kind!r} model, expected {wanted!r}")
    return Dino(spec, checkpoint, load_pretrained(MODELS[kind], checkpoint, spec.name))
