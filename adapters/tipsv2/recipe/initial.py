"""Initial weights from one generator, as transformers sets them, save for the two tables named below."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Tipsv2Model

from adapters.tipsv2.recipe.config import ModelConfig


def initialise_encoder(encoder: Tipsv2Model, model: ModelConfig, generator: torch.Generator) -> None:
    """Truncated normal weights of `init_std`, zero biases, norms at 1, LayerScale at `layerscale`.

    transformers draws from the global generator and only once for each module, so its own draw cannot be repeated.
    The token table has variance 1/D, because the text tower multiplies it by √D; CLS2 starts as CLS1 does, not at zero.
    """
    std = model.init_std
    for module in encoder.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=model.width**-0.5, generator=generator)
    embeddings = encoder.vision_model.embeddings
    for table in (embeddings.position_embeddings, embeddings.cls_token, embeddings.register_tokens):
        nn.init.trunc_normal_(table, std=std, generator=generator)
