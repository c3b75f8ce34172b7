"""SigLIP (Zhai et al. 2023) and SigLIP 2 (Tschannen et al. 2025). What surprises:

- There is no CLS token: `cls` is the vector of the attention pool (MAP head), which the papers retrieve and classify
  with. The `cls` of a layer is the same pool applied to that layer's tokens.
- `text_patches` are the attention pool with all its attention on one token at a time: value projection, output
  projection and the pool's MLP.
- Texts are padded to 64 tokens without a mask and lower-cased (A to Z alone), as in training. Punctuation is a matter
  of the task: the authors' evaluators take it out of zero-shot prompts and keep it in captions, so the card says so
  (`prompts`) and no tokenizer does. transformers' SigLIP tokenizer drops it everywhere, its SigLIP 2's nowhere.
- Away from their own size, the authors resample positions linearly with corners kept as corners, `transformers`
  bicubically; the card says which it is (option `positions`).
- The hub's SigLIP 2 fixed-resolution checkpoints are `siglip` models with Gemma's tokenizer. Those called NaFlex are
  `siglip2` models, which take patches in a row and the shape of their grid. Their processor keeps a picture's shape,
  at most 256 patches; here they get the square of 256 patches, or the size that a protocol asks for.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoTokenizer, Siglip2Model, Siglip2VisionModel, SiglipModel, SiglipVisionModel

from adapters.patches import to_map
from adapters.pieces import open_pieces
from adapters.positions import Rule, chosen
from adapters.preprocessing import NORMALISATION
from adapters.vit import VisionTransformer, load_pretrained, normalise_rows
from adapters.weights_files import Checkpoint, locate
from benchmark.contracts import ImageFeatures, ImageTransform, LayerFeatures, ModelSpec
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import code_versions

ASCII = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Siglip(VisionTransformer):
    """`SiglipModel`, or `SiglipVisionModel` where a checkpoint holds the image tower alone (then without text)."""

    family = "siglip"
    code_version = code_versions()[__name__]
    prompts = "canonical"
    prefix = 0

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, model: Any) -> None:
        super().__init__(spec, checkpoint, model)
        tower: Any = getattr(self.model, "vision_model", self.model)
        text: Any = getattr(self.model.config, "text_config", None) if tower is not self.model else None
        if not hasattr(tower, "head"):
            raise WeightsError(
                f"{spec.name}: the image tower of {checkpoint.folder} has no attention pool (vision_use_head), "
                "which gives SigLIP its vector. Take the whole model, or wrap it: --model file.py:function"
            )
        self.vision, self.blocks, self.norm, self.head = tower, tower.encoder.layers, tower.post_layernorm, tower.head
        if text:  # first: a missing tokenizer is the plainer complaint
            self.tokenize = tokenizer(checkpoint.folder, spec.name, text.max_position_embeddings)
        self.finish(self.sizes(tower.config), text_dim=text.projection_size if text else 0)
        self.place()

    def sizes(self, config: Any) -> Any:
        return config

    def place(self) -> None:
        """Has the tower resample its positions as the authors do, or leaves that to the library."""
        rule, embeddings = chosen(self.spec, "transformers", "siglip"), self.vision.embeddings

        if rule is not None:
            embeddings.interpolate_pos_encoding = partial(resampled, rule, embeddings)
        self.card = replace(self.card, options=(("positions", "authors" if rule else "transformers"),))

    def unsaid_transform(self, image_size: int) -> ImageTransform:
        """A square, pixels in [-1, 1]; SigLIP's is bicubic, SigLIP 2's bilinear, and the tokenizer tells which it is.

        Raises UsageError for an image tower alone, which could be either.
        """
        folder = self.checkpoint.folder
        if not (folder / "spiece.model").is_file() and not (folder / "tokenizer.json").is_file():
            raise UsageError(
                f"{self.spec.name}: {folder} says nothing of the preprocessing, and SigLIP's and SigLIP 2's differ. "
                "Put the model's preprocessor_config.json there"
            )
        mean, std = NORMALISATION["half"]
        bicubic = (folder / "spiece.model").is_file()
        return ImageTransform(
            "square", image_size, interpolation="bicubic" if bicubic else "bilinear", mean=mean, std=std
        )

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.vision(pixels, interpolate_pos_encoding=True)

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        return ImageFeatures(output.pooler_output[:, None].float(), to_map(output.last_hidden_state, *grid).float())

    def layer(self, tokens: torch.Tensor, grid: tuple[int, int], final_norm: bool) -> LayerFeatures:
        """As for any ViT; the head that pools a CLS only knows normed tokens."""
        normed = self.norm(tokens)
        patches = normed if final_norm else tokens
        return LayerFeatures(self.head(normed)[:, None].float(), to_map(patches, *grid).float())

    def text_tokens(self, output: Any, tokens: dict[int, torch.Tensor]) -> torch.Tensor:
        attention = self.head.attention
        weight, bias = (p.chunk(3)[2] for p in (attention.in_proj_weight, attention.in_proj_bias))
        value: torch.Tensor = attention.out_proj(torch.nn.functional.linear(output.last_hidden_state, weight, bias))
        mixed: torch.Tensor = self.head.mlp(self.head.layernorm(value))
        return value + mixed

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than the 64 tokens that are read, its end token among them."""
        return [length > self.tokenize.length for length in self.tokenize.lengths(texts)]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32, L2-normalised."""
        ids = self.tokenize(texts).to(self.device)
        output = self.model.get_text_features(input_ids=ids)
        return normalise_rows(output.pooler_output)


def resampled(rule: Rule, embeddings: Any, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The position table [1, h * w, D] for a picture of `height` and `width` (in place of SiglipVisionEmbeddings')."""
    grid = height // embeddings.patch_size, width // embeddings.patch_size
    return rule.resample(embeddings.position_embedding.weight[None], grid, prefix=0)


class NaFlex(Siglip):
    """`Siglip2Model`: any grid of patches. The pictures of a batch here are of one size, so no place is padding."""

    def sizes(self, config: Any) -> Any:
        side = math.isqrt(config.num_patches) * config.patch_size
        return SimpleNamespace(hidden_size=config.hidden_size, patch_size=config.patch_size, image_size=side)

    def place(self) -> None:
        """Nothing: `transformers` resamples NaFlex's table as the authors do."""

    def forward(self, pixels: torch.Tensor) -> Any:
        count, channels, *sides = pixels.shape
        patch = self.card.patch_size
        height, width = (side // patch for side in sides)
        rows = pixels.reshape(count, channels, height, patch, width, patch).permute(0, 2, 4, 3, 5, 1)
        return self.vision(
            pixel_values=rows.reshape(count, height * width, patch * patch * channels),
            pixel_attention_mask=torch.ones(count, height * width, dtype=torch.long, device=pixels.device),
            spatial_shapes=torch.tensor([[height, width]] * count, device=pixels.device),
        )


def tokenizer(folder: Path, name: str, length: int) -> Any:
    """Texts -> [N, length] token ids: SigLIP's from spiece.model, SigLIP 2's from tokenizer.json."""
    if (folder / "spiece.model").is_file():
        return PieceTokenizer(folder / "spiece.model", length)
    if (folder / "tokenizer.json").is_file():
        return GemmaTokenizer(folder, length)
    raise WeightsError(f"{name}: neither spiece.model (SigLIP) nor tokenizer.json (SigLIP 2) in {folder}")


class PieceTokenizer:
    """SigLIP: lower case, end token, padded with the end token."""

    def __init__(self, path: Path, length: int) -> None:
        self.pieces = open_pieces(path)
        self.length = length

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        end = self.pieces.eos_id()
        rows = [[*self.pieces.encode(lowered(text))[: self.length - 1], end] for text in texts]
        return torch.tensor([row + [end] * (self.length - len(row)) for row in rows]).reshape(len(rows), self.length)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut, the end token counted."""
        return [len(self.pieces.encode(lowered(text))) + 1 for text in texts]


def lowered(text: str) -> str:
    """`text` as big_vision tokenises it: `tf.strings.lower` without an encoding knows the letters of ASCII alone."""
    return text.translate(ASCII)


class GemmaTokenizer:
    """SigLIP 2: lower case, end token, padded on the right with the padding token."""

    def __init__(self, folder: Path, length: int) -> None:
        self.backend = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.length = length

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        rows = self.backend(
            [lowered(text) for text in texts],
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        ids: torch.Tensor = rows["input_ids"]
        return ids

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut, the end token counted."""
        return [len(ids) for ids in self.backend([lowered(text) for text in texts], truncation=False)["input_ids"]]


def build(spec: ModelSpec) -> Siglip:
    """Raises WeightsError when the weights are missing, damaged or of another model."""
    checkpoint = locate(spec)
    kind = checkpoint.config.get("model_type")
    if kind not in MODELS:
        raise WeightsError(f"{spec.name}: {checkpoint.folder}/config.json is of a {kind!r} model, expected 'siglip'")
    family, model_class = MODELS[kind]
    model = load_pretrained(model_class, checkpoint, spec.name)
    if family is NaFlex and "transform" not in spec.row:  # no ImageTransform says what its processor does
        vision: Any = getattr(model.config, "vision_config", model.config)
        side = math.isqrt(vision.num_patches) * vision.patch_size
        square = {"resize": "square", "size": side, "interpolation": "bilinear", "normalisation": "half"}
        spec = replace(spec, row={**spec.row, "transform": square})
    return family(spec, checkpoint, model)


MODELS: dict[Any, tuple[type[Siglip], Any]] = {
    "siglip": (Siglip, SiglipModel),
    "siglip_vision_model": (Siglip, SiglipVisionModel),
    "siglip2": (NaFlex, Siglip2Model),
    "siglip2_vision_model": (NaFlex, Siglip2VisionModel),
}
