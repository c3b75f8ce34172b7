"""Patches in text space of open_clip's own CLIP ViTs, by MaskCLIP's trick as for `clip` (adapters/clip.py).

Its other towers (EVA, timm's SigLIP and ConvNeXt, CoCa's pooler) keep no such block in a known place: they give none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def last_block(visual: Any) -> Any:
    """The block whose values are read, or None where the tower is no CLIP ViT: CLS pooled after the norm, projected."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    plain = getattr(visual, "pool_type", "tok") == "tok" and not getattr(visual, "final_ln_after_pool", False)
    if not blocks or not plain or getattr(visual, "attn_pool", None) is not None:
        return None
    attention = getattr(blocks[-1], "attn", None)
    known = isinstance(attention, nn.MultiheadAttention) and attention.in_proj_weight is not None
    named = hasattr(blocks[-1], "ln_1") and hasattr(visual, "ln_post")
    return blocks[-1] if known and named and getattr(visual, "proj", None) is not None else None


@contextlib.contextmanager
def entering(block: Any) -> Iterator[list[torch.Tensor]]:
    """What enters the block during a forward: one tensor a forward; nothing for no block."""
    seen: list[torch.Tensor] = []
    if block is None:
        yield seen
        return

    def keep(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(inputs[0] if inputs else named["q_x"])

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def text_patches(visual: Any, before: torch.Tensor) -> torch.Tensor:
    """[B, h*w, E] of what enters the last block, CLS first: [B, 1+h*w, D], or [1+h*w, B, D] in a tower so built."""
    if not getattr(visual.transformer, "batch_first", True):
        before = before.transpose(0, 1)
    block = last_block(visual)
    weight, bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]
    value = block.attn.out_proj(F.linear(block.ln_1(before[:, 1:]), weight, bias))
    projected: torch.Tensor = visual.ln_post(value) @ visual.proj
    return projected
