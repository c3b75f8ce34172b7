"""Franca (Venkataramanan et al. 2025): DINOv2's architecture with a SwiGLU at every size, in its authors' own files.

`--weights` takes the released backbone, converted from a pickle (`bench show franca-b14`). What surprises:

- Names are those of facebookresearch/dinov2, blocks in chunks: `blocks.CHUNK.NUMBER.`, or `blocks.NUMBER.` once the
  authors' code has flattened them. The clustering heads of training may be left in the file, and are not read.
- No registers; positions of other sizes as DINOv2's authors resample them. RASA, which takes positions out of patches,
  is no part of the release: its layers are trained by the user.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from transformers import Dinov2Config, Dinov2Model

from adapters.dino import Dino
from adapters.state_dicts import Tensors, read_tensors
from adapters.vit import load_pretrained
from adapters.weights_files import Checkpoint, lone_file
from benchmark.contracts import ModelSpec, WeightsInfo
from benchmark.errors import UsageError, WeightsError
from benchmark.registry import code_versions
from benchmark.system.digest import sha256_file

HEAD_WIDTH = 64  # of an attention head, at every size
WRAPPED = re.compile(r"^(module\.|backbone\.)+")
HEADS = ("dino_head.", "ibot_head.")
CHUNKED = re.compile(r"^blocks\.(?:\d+\.)?(\d+)\.(.+)$")
NAMES = {  # the authors' -> those of a checkpoint of transformers
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
INSIDE = {  # of a block
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
    "mlp.w12": "mlp.weights_in",
    "mlp.w3": "mlp.weights_out",
}
JOINED, PARTS = "attn.qkv", ("query", "key", "value")


class Franca(Dino):
    """CLS and patches after the final norm."""

    family = "franca"
    code_version = code_versions()[__name__]


def renamed(state: Tensors) -> Tensors:
    """The backbone's tensors under the names of `transformers`; what has no name there keeps its own."""
    found: Tensors = {}
    for key, tensor in state.items():
        name = WRAPPED.sub("", key)
        if name.startswith(HEADS):
            continue
        block = CHUNKED.match(name)
        known, at, inner = (INSIDE, f"encoder.layer.{block[1]}.", block[2]) if block else (NAMES, "", name)
        stem, dot, leaf = inner.rpartition(".")
        if block and stem == JOINED:
            for part, third in zip(PARTS, tensor.chunk(3)):
                found[f"{at}attention.attention.{part}.{leaf}"] = third.contiguous()
        elif inner in known:
            found[at + known[inner]] = tensor
        else:
            found[f"{at}{known.get(stem, stem)}{dot}{leaf}"] = tensor
    return found


def config_of(state: Tensors, path: Path, name: str) -> Dinov2Config:
    """The sizes that the tensors have. Raises WeightsError where they are of no such model."""
    try:
        width, _, patch, _ = state["embeddings.patch_embeddings.projection.weight"].shape
        places = state["embeddings.position_embeddings"].shape[1] - 1
        depth = len({key.split(".")[2] for key in state if key.startswith("encoder.layer.")})
    except (KeyError, ValueError):
        raise WeightsError(
            f"{name}: {path} holds no backbone of Franca ({next(iter(state), 'nothing')}). bench show {name} says how "
            "to convert its file"
        ) from None
    return Dinov2Config(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=max(1, width // HEAD_WIDTH),
        image_size=patch * math.isqrt(places), patch_size=patch, use_swiglu_ffn=True,
    )  # fmt: skip


def build(spec: ModelSpec) -> Franca:
    """Raises WeightsError when the file is missing, damaged or of another model."""
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    if not spec.weights:
        raise WeightsError(f"{spec.name} is on no hub as safetensors. bench show {spec.name} says how to get its file")
    path = lone_file(Path(spec.weights), spec.name)
    state = renamed(read_tensors([path]))
    config = config_of(state, path, spec.name)
    weights = WeightsInfo(str(spec.weights), sha256_file(path))
    checkpoint = Checkpoint(path.parent, (path,), weights, {"model_type": "dinov2"}, named=True)
    model = load_pretrained(Dinov2Model, checkpoint, spec.name, tensors=state, config=config)
    return Franca(spec, checkpoint, model)
