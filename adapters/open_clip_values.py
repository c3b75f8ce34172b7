"""Patches in text space of open_clip's towers: what each makes of one patch by itself.

- Its own CLIP ViTs, and timm's that pool CLS (EVA, MobileCLIP's ViTs): MaskCLIP's trick as in adapters/clip.py, the
  last block's attention where every token sees itself alone, without residual and MLP.
- timm's that pool by attention (SigLIP, Perception Encoder): the pool with all its attention on one patch.
- timm's convolutional ones that pool the mean (MobileCLIP's FastViT, ConvNeXt): the head at each place of the map.
- CoCa's pooler and the ResNets' attention pool, whose queries are patches, have no such reading: none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

MEAN_HEADS = ("ClassifierHead", "NormMlpClassifierHead")  # timm.layers: the pooled mean, a norm, a projection


@dataclass(frozen=True)
class TextSpace:
    """`project` makes [B, h*w, E] of what enters `watched` during a forward."""

    watched: nn.Module
    project: Callable[[torch.Tensor], torch.Tensor]


def text_space(visual: Any) -> TextSpace | None:
    """How patches of a tower come into text space; None where it pools in another way."""
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        return own_vit(visual)
    pool, blocks = getattr(trunk, "attn_pool", None), getattr(trunk, "blocks", None)
    if pool is not None and getattr(pool, "pos_embed", None) is None:
        return TextSpace(pool, lambda tokens: pooled_alone(visual, tokens[:, trunk.num_prefix_tokens :]))
    if pool is None and blocks and getattr(trunk, "global_pool", "") == "token":
        return TextSpace(blocks[-1], lambda tokens: values(visual, tokens[:, trunk.num_prefix_tokens :]))
    head = mean_head(visual)
    return head and TextSpace(head, lambda features: each_place(visual, features))


def mean_head(visual: Any) -> Any:
    """The head of a timm tower that pools the mean of its map; None where there is none."""
    head: Any = getattr(getattr(visual, "trunk", None), "head", None)
    mean = type(head).__name__ in MEAN_HEADS and getattr(head.global_pool, "pool_type", "") == "avg"
    return head if mean and not hasattr(visual.head, "pool") else None


def pooled_alone(visual: Any, tokens: torch.Tensor) -> torch.Tensor:
    """[B, N, E] of [B, N, D]: the image vector of a picture that has one token."""
    alone = tokens.reshape(-1, 1, tokens.shape[-1])
    projected: torch.Tensor = visual.head(visual.trunk.forward_head(alone))
    return projected.reshape(*tokens.shape[:2], -1)


def values(visual: Any, before: torch.Tensor) -> torch.Tensor:
    """[B, N, E] of what enters the last block [B, N, D]; a rotation of queries and keys is nothing to a token alone."""
    block = visual.trunk.blocks[-1]
    alone = before.reshape(-1, 1, before.shape[-1])
    if type(block).__name__.endswith("PostNorm"):  # EVA-02's E/14 norms what a block adds
        value = block.norm1(block.attn(alone))
    else:
        value = block.attn(block.norm1(alone))
    gamma = getattr(block, "gamma_1", None)
    value = getattr(block, "ls1", nn.Identity())(value if gamma is None else gamma * value)
    return pooled_alone(visual, visual.trunk.norm(value).reshape(before.shape))


def each_place(visual: Any, features: torch.Tensor) -> torch.Tensor:
    """[B, h*w, E] of the final map [B, D, h, w]."""
    places = features.flatten(2).transpose(1, 2)
    projected: torch.Tensor = visual.head(visual.trunk.head(places.reshape(-1, places.shape[-1], 1, 1)))
    return projected.reshape(*places.shape[:2], -1)


def own_vit(visual: Any) -> TextSpace | None:
    """That of open_clip's own CLIP ViT: CLS pooled after the norm, projected; None for any other tower."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    plain = getattr(visual, "pool_type", "tok") == "tok" and not getattr(visual, "final_ln_after_pool", False)
    if not blocks or not plain or getattr(visual, "attn_pool", None) is not None:
        return None
    attention = getattr(blocks[-1], "attn", None)
    known = isinstance(attention, nn.MultiheadAttention) and attention.in_proj_weight is not None
    named = hasattr(blocks[-1], "ln_1") and hasattr(visual, "ln_post")
    if not known or not named or getattr(visual, "proj", None) is None:
        return None
    return TextSpace(blocks[-1], lambda before: own_values(visual, before))


def own_values(visual: Any, before: torch.Tensor) -> torch.Tensor:
    """[B, h*w, E] of what enters the last block, CLS first: [B, 1+h*w, D], or [1+h*w, B, D] in a tower so built."""
    if not getattr(visual.transformer, "batch_first", True):
        before = before.transpose(0, 1)
    block = visual.transformer.resblocks[-1]
    weight, bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]
    value = block.attn.out_proj(F.linear(block.ln_1(before[:, 1:]), weight, bias))
    projected: torch.Tensor = visual.ln_post(value) @ visual.proj
    return projected


@contextlib.contextmanager
def entering(module: nn.Module | None) -> Iterator[list[torch.Tensor]]:
    """What enters the module during a forward: one tensor a forward; nothing for no module."""
    seen: list[torch.Tensor] = []
    if module is None:
        yield seen
        return

    def keep(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(inputs[0] if inputs else named["q_x"])

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
