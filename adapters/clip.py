"""CLIP (Radford et al. 2021). What surprises:

- `cls` is the projected pooled vector [B, 1, E], the one the paper retrieves and classifies with; E is narrower than
  the patches' D in most variants. `layers` hold the unprojected CLS at width D.
- `text_patches` follow MaskCLIP: the last block's value projection and output projection of each token, without
  attention, residual or MLP, then the final norm and the image projection.
- A text's vector stands at the first end token of its tokenizer. The hub's old configs name another one (2), for which
  `transformers` takes the highest id: that is the end token until tokens are added behind it.
- Texts are repaired (ftfy) and HTML entities resolved before they are tokenised, as in the authors' code, which
  `transformers` leaves out; captions past 77 tokens are cut and end in the end token, as with its `truncate=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoTokenizer, CLIPModel, CLIPVisionModel

from adapters.clip_texts import ClipTexts
from adapters.patches import to_map
from adapters.preprocessing import NORMALISATION
from adapters.vit import VisionTransformer, load_pretrained, normalise_rows
from adapters.weights_files import Checkpoint, locate
from benchmark.contracts import ImageFeatures, ImageTransform, ModelSpec
from benchmark.errors import WeightsError
from benchmark.registry import code_versions


class Clip(ClipTexts, VisionTransformer):
    """`CLIPModel`, or `CLIPVisionModel` where a checkpoint holds the image tower alone (then without text)."""

    family = "clip"
    code_version = code_versions()[__name__]

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, model: Any) -> None:
        super().__init__(spec, checkpoint, model)
        self.projection: Any = getattr(self.model, "visual_projection", None)
        tower: Any = self.model.vision_model if self.projection is not None else self.model
        self.vision, self.blocks, self.norm = tower, tower.encoder.layers, tower.post_layernorm
        self.finish(tower.config, text_dim=self.model.config.projection_dim if self.projection is not None else 0)
        if self.projection is not None:
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
            self.context: int = self.model.config.text_config.max_position_embeddings
            self.end = end_token(self.tokenizer, self.model.config.text_config, f"{spec.name}: {checkpoint.folder}")

    def unsaid_transform(self, image_size: int) -> ImageTransform:
        """Short side and crop at the model's size, as the authors' own code does for every size."""
        mean, std = NORMALISATION["clip"]
        return ImageTransform("short-side", image_size, crop=image_size, mean=mean, std=std)

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.vision(pixels, interpolate_pos_encoding=True)

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        pooled = output.pooler_output  # [B, D], after the final norm
        cls = self.projection(pooled) if self.projection is not None else pooled
        patches = self.norm(output.last_hidden_state[:, 1:])  # the final norm is applied to CLS alone by the model
        return ImageFeatures(cls[:, None].float(), to_map(patches, *grid).float())

    def extra_blocks(self, text_patches: bool) -> list[int]:
        return [len(self.blocks) - 2] if text_patches else []

    def text_tokens(self, output: Any, tokens: dict[int, torch.Tensor]) -> torch.Tensor:
        last: Any = self.blocks[-1]
        before = tokens[len(self.blocks) - 2][:, 1:]  # what enters the last block
        value = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(before)))
        projected: torch.Tensor = self.projection(self.norm(value))
        return projected

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32, L2-normalised."""
        tokens = self.tokenize(texts).to(self.device)
        hidden = self.model.text_model(**tokens).last_hidden_state
        first = (tokens["input_ids"] == self.end).int().argmax(dim=1)  # texts are padded with it as well
        return normalise_rows(self.model.text_projection(hidden[torch.arange(len(first), device=first.device), first]))


def end_token(tokenizer: Any, config: Any, where: str) -> int:
    """The token that ends every text. Raises WeightsError where the tokenizer ends none with it."""
    end = config.eos_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    if end not in tokenizer("")["input_ids"]:
        said = f"its tokenizer ends no text with its end token ({end}), where CLIP pools"
        raise WeightsError(f"{where}: {said}. Are these the tokenizer's files of this model?")
    return int(end)


def build(spec: ModelSpec) -> Clip:
    """Raises WeightsError when the weights are missing, damaged or of another model."""
    checkpoint = locate(spec)
    kind = checkpoint.config.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise WeightsError(f"{spec.name}: {checkpoint.folder}/config.json is of a {kind!r} model, expected 'clip'")
    model = load_pretrained(CLIPModel if kind == "clip" else CLIPVisionModel, checkpoint, spec.name)
    return Clip(spec, checkpoint, model)
