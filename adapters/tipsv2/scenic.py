"""The layout of the official JAX (scenic) `.npz` pair, to and from the names of transformers' Tipsv2Model.

Scenic has no LayerScale, no mask token and no position for CLS: going there, the scale is folded into the projection
before it and the CLS position into the CLS token; coming back they are ones and zeros. Flax kernels are transposed, and
attention kernels keep the heads as an axis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from adapters.tipsv2.variants import Architecture

Tensors = Mapping[str, torch.Tensor]

TOKENS = "encoder/ToTokenSequence_0/"
VISION_NORM, TEXT_NORM = "encoder/encoder_norm/", "text_encoder_norm/"
BLOCK = {"vision": "encoder/transformer/encoderblock_", "text": "transformer/encoderblock_"}
OURS = {"vision": "encoder.layer.", "text": "encoder.layers."}
ATTENTION = "MultiHeadDotProductAttention_0/"
NAMES = {  # part -> our names of (norms, attention, attention output)
    "vision": (("norm1", "norm2"), "attention.", "attention.o_proj"),
    "text": (("layer_norm1", "layer_norm2"), "self_attn.", "self_attn.out_proj"),
}
MLP = {"mlp.fc1": "MlpBlock_0/Dense_0/", "mlp.fc2": "MlpBlock_0/Dense_1/"}
SWIGLU = {
    "mlp.gate_proj": "FFNSwiGluFused_0/Dense_0/",
    "mlp.up_proj": "FFNSwiGluFused_0/Dense_1/",
    "mlp.down_proj": "FFNSwiGluFused_0/Dense_2/",
}
QKV = {"q_proj": "query/", "k_proj": "key/", "v_proj": "value/"}


def to_scenic(tensors: Tensors, part: str, arch: Architecture) -> dict[str, torch.Tensor]:
    """The "vision" or "text" tensors of transformers' names as flat scenic arrays; views where nothing is folded."""
    out: dict[str, torch.Tensor] = {}
    if part == "vision":
        table = tensors["embeddings.position_embeddings"]  # [1, 1+g*g, D]
        grid = round((table.shape[1] - 1) ** 0.5)
        cls = _plus(tensors["embeddings.cls_token"], table[:, :1])
        kernel = tensors["embeddings.patch_embeddings.projection.weight"]  # [D, 3, p, p]
        out[TOKENS + "embedding/kernel"] = kernel.permute(2, 3, 1, 0)
        out[TOKENS + "embedding/bias"] = tensors["embeddings.patch_embeddings.projection.bias"]
        out[TOKENS + "posembed_input"] = table[:, 1:].reshape(1, grid, grid, table.shape[2])
        out[TOKENS + "cls"] = torch.cat([cls, tensors["embeddings.register_tokens"]], dim=1)
        _norm_to(out, VISION_NORM, tensors, "layernorm")
    else:
        out["token_emb/emb_var"] = tensors["embeddings.token_embedding.weight"]
        _norm_to(out, TEXT_NORM, tensors, "final_layer_norm")
    for i in range(arch.depth if part == "vision" else arch.text_depth):
        _block_to(out, f"{BLOCK[part]}{i}/", tensors, f"{OURS[part]}{i}.", part, arch)
    return out


def from_scenic(arrays: Tensors, part: str) -> dict[str, torch.Tensor]:
    """Flat scenic arrays under transformers' names; views, no copies of the large ones."""
    out: dict[str, torch.Tensor] = {}
    if part == "vision":
        table, cls = arrays[TOKENS + "posembed_input"], arrays[TOKENS + "cls"]  # [1, g, g, D], [1, 2, D]
        zero = torch.zeros_like(cls[:, :1])
        out["embeddings.cls_token"] = cls[:, :1]
        out["embeddings.mask_token"] = zero[0]
        out["embeddings.position_embeddings"] = torch.cat([zero, table.flatten(1, 2)], dim=1)
        out["embeddings.register_tokens"] = cls[:, 1:]
        out["embeddings.patch_embeddings.projection.weight"] = arrays[TOKENS + "embedding/kernel"].permute(3, 2, 0, 1)
        out["embeddings.patch_embeddings.projection.bias"] = arrays[TOKENS + "embedding/bias"]
        _norm_from(out, "layernorm", arrays, VISION_NORM)
    else:
        out["embeddings.token_embedding.weight"] = arrays["token_emb/emb_var"]
        _norm_from(out, "final_layer_norm", arrays, TEXT_NORM)
    for i in sorted({int(n) for n in re.findall(r"encoderblock_(\d+)/", "\n".join(arrays))}):
        _block_from(out, f"{OURS[part]}{i}.", arrays, f"{BLOCK[part]}{i}/", part)
    return out


def _block_to(
    out: dict[str, torch.Tensor], there: str, tensors: Tensors, here: str, part: str, arch: Architecture
) -> None:
    norms, attention, output = NAMES[part]
    heads = arch.heads if part == "vision" else arch.text_heads
    for n, norm in enumerate(norms):
        _norm_to(out, f"{there}LayerNorm_{n}/", tensors, here + norm)
    for ours, theirs in QKV.items():
        weight, bias = (tensors[f"{here}{attention}{ours}.{kind}"] for kind in ("weight", "bias"))
        out[f"{there}{ATTENTION}{theirs}kernel"] = weight.T.reshape(weight.shape[1], heads, -1)  # [D, H, d]
        out[f"{there}{ATTENTION}{theirs}bias"] = bias.reshape(heads, -1)
    weight, bias = _scaled(tensors, here + output, here + "layer_scale1.lambda1")
    out[f"{there}{ATTENTION}out/kernel"] = weight.T.reshape(heads, -1, weight.shape[0])  # [H, d, D]
    out[f"{there}{ATTENTION}out/bias"] = bias
    dense = SWIGLU if part == "vision" and arch.swiglu else MLP
    last = list(dense)[-1]
    for ours, theirs in dense.items():
        scale = here + "layer_scale2.lambda1" if ours == last else ""
        weight, bias = _scaled(tensors, here + ours, scale)
        out[f"{there}{theirs}kernel"], out[f"{there}{theirs}bias"] = weight.T, bias


def _block_from(out: dict[str, torch.Tensor], here: str, arrays: Tensors, there: str, part: str) -> None:
    norms, attention, output = NAMES[part]
    for n, norm in enumerate(norms):
        _norm_from(out, here + norm, arrays, f"{there}LayerNorm_{n}/")
    for ours, theirs in QKV.items():
        out[f"{here}{attention}{ours}.weight"] = arrays[f"{there}{ATTENTION}{theirs}kernel"].flatten(1).T
        out[f"{here}{attention}{ours}.bias"] = arrays[f"{there}{ATTENTION}{theirs}bias"].flatten()
    out[f"{here}{output}.weight"] = arrays[f"{there}{ATTENTION}out/kernel"].flatten(0, 1).T
    bias = out[f"{here}{output}.bias"] = arrays[f"{there}{ATTENTION}out/bias"]
    if part == "vision":
        out[here + "layer_scale1.lambda1"] = torch.ones_like(bias)
        out[here + "layer_scale2.lambda1"] = torch.ones_like(bias)
    for ours, theirs in (SWIGLU if f"{there}{SWIGLU['mlp.gate_proj']}kernel" in arrays else MLP).items():
        out[f"{here}{ours}.weight"] = arrays[f"{there}{theirs}kernel"].T
        out[f"{here}{ours}.bias"] = arrays[f"{there}{theirs}bias"]


def _norm_to(out: dict[str, torch.Tensor], there: str, tensors: Tensors, here: str) -> None:
    out[there + "scale"], out[there + "bias"] = tensors[here + ".weight"], tensors[here + ".bias"]


def _norm_from(out: dict[str, torch.Tensor], here: str, arrays: Tensors, there: str) -> None:
    out[here + ".weight"], out[here + ".bias"] = arrays[there + "scale"], arrays[there + "bias"]


def _scaled(tensors: Tensors, layer: str, scale: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [out, in] and bias [out] with a LayerScale multiplied in; untouched where it is all ones.

    Half-precision weights become float32 by it: rounding the product would move the outputs by 1e-4.
    """
    weight, bias = tensors[layer + ".weight"], tensors[layer + ".bias"]
    gamma = tensors.get(scale)
    if gamma is None or (not gamma.is_meta and bool((gamma == 1).all())):
        return weight, bias
    return weight.float() * gamma.float()[:, None], bias.float() * gamma.float()


def _plus(token: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Sum, but the very token where the position is zero: -0.0 + 0.0 would lose its sign bit."""
    if not position.is_meta and not position.any():
        return token
    return token.float() + position.float()
