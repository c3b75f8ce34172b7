"""The student: transformers' Tipsv2Model, the two projectors and the contrastive temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Tipsv2Config, Tipsv2Model

from adapters.tipsv2.recipe import chunked
from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import ModelConfig, RecipeConfig
from adapters.tipsv2.recipe.cosines import Cosines
from adapters.tipsv2.recipe.heads import ProjectionHead
from adapters.tipsv2.recipe.initial import initialise_encoder

Pass = Literal["clean", "masked", "crops", "pairs"]
Logits = torch.Tensor | Cosines  # cosines with each prototype [..., P], or what they are made of


@dataclass
class Clean:
    """What the pass over the unmasked global view and the captions gives; b is the part of the batch B that runs the
    self-supervised branch."""

    images: torch.Tensor  # [B, K, D] CLS, L2-normalised
    texts: torch.Tensor  # [B, K, D] L2-normalised
    temperature: torch.Tensor  # [1] divisor of the cosine
    cls: torch.Tensor  # [b, K, D], detached
    patches: torch.Tensor  # [b, N, D], detached
    patch_logits: Logits | None  # [b, N, P] where the patch loss reads this view (distillation without masking)


class Pretrainer(nn.Module):
    """All that is trained. Every pass of the student is a `forward`, so that DDP and FSDP see it."""

    def __init__(self, config: RecipeConfig) -> None:
        super().__init__()
        self.config = config
        self.source = ""  # digest of the weights that were loaded
        self.encoder = build_encoder(config.model)
        self.log_temperature = nn.Parameter(torch.tensor([config.loss.temperature]).log())  # [1]: FSDP takes no scalar
        wanted = {"cls": uses_dino(config), "patch": uses_patches(config)}
        self.heads = nn.ModuleDict(
            {k: ProjectionHead(config.model.width, config.head) for k, on in wanted.items() if on}
        )
        self.encoder.temperature.requires_grad_(False)  # log_temperature is trained in its place, and exported into it
        if config.model.frozen:
            self.encoder.requires_grad_(False)
            self.log_temperature.requires_grad_(False)
        if not masks(config):
            self.encoder.vision_model.embeddings.mask_token.requires_grad_(False)

    @property
    def left_out(self) -> tuple[str, ...]:
        """How the names of what never changes begin (`model.frozen`)."""
        return ("encoder.", "log_temperature") if self.config.model.frozen else ()

    def initialise(self, seed: int) -> None:
        """Random weights that depend on `seed` alone."""
        generator = torch.Generator().manual_seed(seed)
        initialise_encoder(self.encoder, self.config.model, generator)
        for head in self.heads.children():
            if isinstance(head, ProjectionHead):
                head.initialise(generator)

    @property
    def temperature(self) -> torch.Tensor:
        """The learned divisor of the cosine."""
        return self.log_temperature.exp().clamp_min(self.config.loss.min_temperature)

    def forward(self, batch: Batch, what: Pass = "clean") -> Any:
        """One pass: "clean" gives `Clean`, "masked" the patch logits [b, N, P] of the masked view, "crops" the
        logits [M, b, P] of the local crops, "pairs" images, texts and temperature of `Clean`: all that the contrastive
        loss of a large batch needs."""
        vision, rows = self.encoder.vision_model, batch.ssl_rows
        if what == "crops":
            cls, _ = vision_tokens(vision, batch.local.flatten(0, 1))
            return self.heads["cls"](cls[:, self.config.loss.dino_cls].reshape(*batch.local.shape[:2], -1))
        if what == "masked":
            return self._patch_logits(vision_tokens(vision, batch.images[rows], batch.mask)[1])
        cls, patches = vision_tokens(vision, batch.images)
        images = F.normalize(cls[:, : len(batch.texts)].float(), dim=-1)
        if what == "pairs":
            return images, self._texts(batch), self.temperature
        return Clean(
            images=images,
            texts=self._texts(batch) if not self.config.model.frozen else cls[:, :0].float(),
            temperature=self.temperature,
            cls=cls[rows].detach(),
            patches=patches[rows].detach(),
            patch_logits=self._patch_logits(patches[rows]) if reads_clean(self.config) else None,
        )

    def _patch_logits(self, patches: torch.Tensor) -> Logits:
        head: Any = self.heads["patch"]
        return head.factors(patches) if by_rows(self.config, patches) else head(patches)  # type: ignore[no-any-return]

    def _texts(self, batch: Batch) -> torch.Tensor:
        return torch.stack([self.encode_text(ids) for ids in batch.texts], 1)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [B, L], 0 where padded → [B, D], L2-normalised."""
        pooled = self.encoder.text_model(input_ids=ids, attention_mask=(ids != 0).long()).pooler_output
        return F.normalize(pooled.float(), dim=-1)


def vision_tokens(
    vision: nn.Module, images: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(CLS [B, K, D], patches [B, N, D]) after the final norm; images in [0, 1], mask [B, N] bool."""
    tokens = vision(pixel_values=images, bool_masked_pos=mask).last_hidden_state
    patch = vision.config.patch_size  # type: ignore[union-attr]
    num_cls = tokens.shape[1] - (images.shape[-2] // patch) * (images.shape[-1] // patch)  # type: ignore[operator]
    return tokens[:, :num_cls], tokens[:, num_cls:]


def build_encoder(model: ModelConfig) -> Tipsv2Model:
    """A Tipsv2Model of these sizes; its weights are set by `Pretrainer.initialise` or by a checkpoint."""
    vision = {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "mlp_ratio": model.mlp_ratio,
        "image_size": model.image_size,
        "patch_size": model.patch_size,
        "use_swiglu_ffn": model.swiglu,
        "num_register_tokens": model.num_cls - 1,
        "layerscale_value": model.layerscale,
        "initializer_range": model.init_std,
    }
    text = {
        "hidden_size": model.width,
        "intermediate_size": model.text_mlp or 4 * model.width,
        "num_hidden_layers": model.text_depth,
        "num_attention_heads": model.text_heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_text,
        "initializer_range": model.init_std,
    }
    return Tipsv2Model(Tipsv2Config(vision_config=vision, text_config=text))


def checkpoint_activations(student: Pretrainer) -> None:
    """Each layer keeps its input alone and is computed again backwards; frozen ones keep nothing as they are."""
    if student.config.model.frozen:  # transformers would have their input take a gradient, through every layer
        return
    encoder: Any = student.encoder
    enable = getattr(encoder, "activation_checkpointing_enable", None)  # its name since transformers 5.24
    (enable or encoder.gradient_checkpointing_enable)()


def by_rows(config: RecipeConfig, patches: torch.Tensor) -> bool:
    """Whether the logits of `patches` [b, N, D] are too many to be made whole."""
    count = patches.shape[0] * patches.shape[1] * config.head.prototypes
    return config.head.balance == "center" and count > chunked.WHOLE


def more_passes(config: RecipeConfig) -> list[Pass]:
    """The passes of the self-supervised losses beside the clean one, in the order in which a step makes them: that of
    the patch loss, which takes most, before the gradients of the other projector are there."""
    found: list[Pass] = ["masked"] if masks(config) else []
    return [*found, "crops"] if uses_dino(config) else found


def uses_dino(config: RecipeConfig) -> bool:
    """Whether the DINO loss runs."""
    return config.loss.dino > 0


def uses_patches(config: RecipeConfig) -> bool:
    """Whether a patch loss runs."""
    return config.loss.patch > 0 and config.loss.patch_loss != "none"


def masks(config: RecipeConfig) -> bool:
    """Whether the student sees a masked view: always in pre-training, on request in distillation."""
    return uses_patches(config) and (not config.teacher.path or config.teacher.mask)


def reads_clean(config: RecipeConfig) -> bool:
    """Whether the patch loss reads the unmasked view."""
    return uses_patches(config) and not masks(config)
