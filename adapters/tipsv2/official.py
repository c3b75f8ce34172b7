"""The layout of the official PyTorch `.npz` pair, to and from the names of transformers' Tipsv2Model.

One to one but for the fused projections: q, k, v (both towers) and the two SwiGLU inputs are stacked in one array.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

Tensors = Mapping[str, torch.Tensor]

# transformers' name -> official name
VISION = {
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.down_proj": "mlp.w3",
}
TEXT = {
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
# official name -> transformers' names, stacked along the first axis
VISION_FUSED: dict[str, tuple[str, ...]] = {
    "attn.qkv.": ("attention.q_proj.", "attention.k_proj.", "attention.v_proj."),
    "mlp.w12.": ("mlp.gate_proj.", "mlp.up_proj."),
}
TEXT_FUSED: dict[str, tuple[str, ...]] = {
    "attn.in_proj_": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")
}
BLOCKS = {"vision": ("encoder.layer.", "blocks."), "text": ("encoder.layers.", "transformer.resblocks.")}
TABLES: dict[str, tuple[dict[str, str], dict[str, tuple[str, ...]]]] = {
    "vision": (VISION, VISION_FUSED),
    "text": (TEXT, TEXT_FUSED),
}


def from_official(arrays: Tensors, part: str) -> dict[str, torch.Tensor]:
    """Official arrays of the "vision" or "text" file under transformers' names; views, no copies."""
    table, fused = TABLES[part]
    back = {official: name for name, official in table.items()}
    ours, theirs = BLOCKS[part]
    out = {}
    for key, value in arrays.items():
        prefix, name = _split(key, theirs)
        prefix = prefix.replace(theirs, ours)
        stacked = next((f for f in fused if name.startswith(f)), None)
        if stacked is None:
            out[prefix + _renamed(name, back)] = value
            continue
        pieces = fused[stacked]
        for piece, chunk in zip(pieces, value.chunk(len(pieces))):
            out[prefix + piece + name.removeprefix(stacked)] = chunk
    return out


def to_official(tensors: Tensors, part: str) -> dict[str, torch.Tensor]:
    """The inverse of `from_official`, in the order of `tensors`."""
    table, fused = TABLES[part]
    ours, theirs = BLOCKS[part]
    first = {pieces[0]: (stacked, pieces) for stacked, pieces in fused.items()}
    later = tuple(piece for pieces in fused.values() for piece in pieces[1:])
    out = {}
    for key, value in tensors.items():
        prefix, name = _split(key, ours)
        if name.startswith(later):
            continue
        target = prefix.replace(ours, theirs)
        head = next((f for f in first if name.startswith(f)), None)
        if head is None:
            out[target + _renamed(name, table)] = value
            continue
        stacked, pieces = first[head]
        tail = name.removeprefix(head)
        out[target + stacked + tail] = torch.cat([tensors[prefix + piece + tail] for piece in pieces])
    return out


def _split(key: str, blocks: str) -> tuple[str, str]:
    """("blocks.3.", "norm1.weight") of "blocks.3.norm1.weight"; ("", key) outside the blocks."""
    match = re.match(re.escape(blocks) + r"\d+\.", key)
    return (match.group(), key[match.end() :]) if match else ("", key)


def _renamed(name: str, table: Mapping[str, str]) -> str:
    if name in table:
        return table[name]
    stem, dot, tail = name.rpartition(".")
    return table.get(stem, stem) + dot + tail
