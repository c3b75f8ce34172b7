"""TIPSv2 and TIPS in PyTorch, on transformers' Tipsv2Model.

Surprises: pixels go in as they are, in [0, 1]. The second CLS (what transformers calls a register) was trained on
synthetic captions, the first on alt-text. Patches in text space are the value path of the whole last block, residuals
and MLP kept, and not MaskCLIP's bare values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from adapters.patches import center_pad, resolve_layers, to_map
from adapters.placement import dtype_name, pick_device, pick_dtype
from adapters.tipsv2.card import card_of, choice, flag, transform_of
from adapters.tipsv2.checkpoint import Checkpoint, load
from adapters.tipsv2.tokenizer import PAD, Tokenizer
from adapters.tipsv2.variants import TEXT_EPSILON
from benchmark.contracts import ImageFeatures, ImageRequest, LayerFeatures, ModelSpec

TEXT_BATCH = 256


def build_model(checkpoint: Checkpoint, gelu: str = "erf") -> Any:
    """transformers' Tipsv2Model in evaluation mode, sharing the checkpoint's memory."""
    from transformers import Tipsv2Model
    from transformers.initialization import no_init_weights

    with no_init_weights():
        config = checkpoint.arch.to_config(checkpoint.grid, gelu)
        model: Any = Tipsv2Model._from_config(config, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    model.load_state_dict({"temperature": model.temperature.detach(), **checkpoint.state_dict()}, assign=True)
    return model.eval().requires_grad_(False)


class TipsTorch:
    """An Encoder with a text tower. `temperature` is what a cosine is divided by, None where the weights do not say."""

    def __init__(self, spec: ModelSpec) -> None:
        self.gelu = choice(spec, "gelu", TEXT_EPSILON, "erf")
        device = pick_device(spec.device)
        self.dtype = pick_dtype(spec.dtype, device)
        checkpoint = load(spec)
        self.model: Any = build_model(checkpoint, self.gelu).to(device, self.dtype)
        self.device = device
        self.tokenizer = Tokenizer(checkpoint.tokenizer, checkpoint.arch.vocabulary, checkpoint.arch.max_tokens)
        self.temperature = None if checkpoint.temperature is None else float(checkpoint.temperature)
        self.card = card_of(spec, checkpoint, "torch", dtype_name(self.dtype), self.gelu)
        self.transform = transform_of(self.card.image_size)
        if flag(spec, "compile"):
            for block in self.model.vision_model.encoder.layer:
                block.compile()

    @torch.no_grad()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """cls [B, 2, D] and patches [B, h, w, D], float32, after the final norm. Sides are padded to whole patches."""
        wanted = resolve_layers(request.layers, self.card.depth, self.card.name)
        vision = self.model.vision_model
        images = center_pad(images.to(self.device, self.dtype), self.card.patch_size)
        height, width = (side // self.card.patch_size for side in images.shape[-2:])

        def split(tokens: torch.Tensor, norm: bool = True) -> LayerFeatures:
            tokens = (vision.layernorm(tokens) if norm else tokens).float()  # [B, 2+h*w, D]
            return LayerFeatures(tokens[:, :2], to_map(tokens[:, 2:], height, width))

        x = vision.embeddings(images)
        kept: dict[int, LayerFeatures] = {}
        values = None
        for i, block in enumerate(vision.encoder.layer):
            if request.text_patches and i == self.card.depth - 1:
                values = split(value_path(block, x)).patches
            x = block(x)
            if i in wanted:
                kept[i] = split(x, request.final_norm)
        last = kept.get(self.card.depth - 1) if request.final_norm else None
        last = last or split(x)
        return ImageFeatures(last.cls, last.patches, tuple(kept[i] for i in wanted), values)

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than what is read of it."""
        return self.tokenizer.is_cut(texts)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32, L2-normalised."""
        rows = [self._text(texts[i : i + TEXT_BATCH]) for i in range(0, len(texts), TEXT_BATCH)]
        return torch.cat(rows) if rows else torch.zeros(0, self.card.text_dim, device=self.device)

    def _text(self, texts: Sequence[str]) -> torch.Tensor:
        ids = torch.from_numpy(self.tokenizer(texts)).to(self.device).long()
        mask = (ids != PAD).long()
        mask[:, 0] |= mask.sum(1) == 0  # an empty text is one padding token: attention over nothing would be NaN
        pooled = self.model.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return F.normalize(pooled.float(), dim=-1)


def value_path(block: Any, x: torch.Tensor) -> torch.Tensor:
    """A block whose attention is replaced by its values: every token attends to itself alone. [B, N, D] to the same."""
    attention = block.attention
    x = x + block.layer_scale1(attention.o_proj(attention.v_proj(block.norm1(x))))
    out: torch.Tensor = x + block.layer_scale2(block.mlp(block.norm2(x)))
    return out


def build(spec: ModelSpec) -> TipsTorch:
    """The PyTorch encoder of `spec`."""
    return TipsTorch(spec)
