"""TIPS as pure functions over scenic's own parameter tree. No torch, no flax.

Each stage is jitted by itself and once for each input shape: the forty blocks of g share one compiled program.
Shapes: B batch, h w patch grid, N = 2 + h*w tokens, L text tokens, D width, H heads, d = D / H.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Tree = Mapping[str, Any]
EPSILON = 1e-6  # of the image tower in both official codes; the text tower's is an argument
POOL_EPSILON = 1e-8
LONGEST_WAVE = 10_000.0
ATTENTION = "MultiHeadDotProductAttention_0"


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A nested tree from keys joined by "/"."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, leaf = key.split("/")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[leaf] = value
    return tree


def blocks_of(tree: Tree) -> list[Tree]:
    """The blocks of a `transformer` node in order."""
    return [tree[f"encoderblock_{i}"] for i in range(len(tree))]


@jax.jit
def embed_image(tokens: Tree, images: jax.Array) -> jax.Array:
    """[B, 2+h*w, D] from images [B, 3, H, W] of whole patches: two CLS, then patches with their positions."""
    kernel, bias = tokens["embedding"]["kernel"], tokens["embedding"]["bias"]  # [p, p, 3, D], [D]
    patch = kernel.shape[0]
    batch, _, height, width = images.shape
    h, w = height // patch, width // patch
    x = images.reshape(batch, 3, h, patch, w, patch).transpose(0, 2, 4, 3, 5, 1)  # [B, h, w, p, p, 3]
    x = _matmul(x.reshape(batch, h, w, -1).astype(kernel.dtype), kernel.reshape(-1, kernel.shape[-1])) + bias
    table = tokens["posembed_input"]  # [1, g, g, D]
    if table.shape[1:3] != (h, w):
        resized = jax.image.resize(table.astype(jnp.float32), (1, h, w, table.shape[3]), "bilinear", antialias=True)
        table = resized.astype(table.dtype)
    x = (x + table).reshape(batch, h * w, -1)
    cls = jnp.broadcast_to(tokens["cls"], (batch, *tokens["cls"].shape[1:]))
    return jnp.concatenate([cls, x], axis=1)


@partial(jax.jit, static_argnames="gelu")
def image_block(block: Tree, x: jax.Array, gelu: str) -> jax.Array:
    """One transformer block. [B, N, D] to [B, N, D]; `gelu` is "tanh" or "erf" and unused by SwiGLU."""
    normed = layer_norm(block["LayerNorm_0"], x)
    x = x + _attend(block[ATTENTION], normed, None)
    return x + _feed_forward(block, layer_norm(block["LayerNorm_1"], x), gelu)


@partial(jax.jit, static_argnames="gelu")
def value_block(block: Tree, x: jax.Array, gelu: str) -> jax.Array:
    """A block whose attention is replaced by its values: every token attends to itself alone. [B, N, D]."""
    attention = block[ATTENTION]
    normed = layer_norm(block["LayerNorm_0"], x)
    x = x + _merge_heads(attention["out"], _heads(attention["value"], normed))
    return x + _feed_forward(block, layer_norm(block["LayerNorm_1"], x), gelu)


@jax.jit
def final_norm(norm: Tree, x: jax.Array) -> jax.Array:
    """[…, D] in float32."""
    return layer_norm(norm, x).astype(jnp.float32)


@jax.jit
def embed_text(table: jax.Array, ids: jax.Array) -> jax.Array:
    """[B, L, D] from ids [B, L]: embedding times √D, plus sines then cosines of the position."""
    width = table.shape[1]
    half = width // 2
    waves = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-jnp.log(LONGEST_WAVE) / max(half - 1, 1)))
    angles = jnp.arange(ids.shape[1], dtype=jnp.float32)[:, None] * waves
    positions = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
    positions = jnp.pad(positions, ((0, 0), (0, width % 2)))
    return table[ids] * jnp.asarray(width**0.5, table.dtype) + positions.astype(table.dtype)


@partial(jax.jit, static_argnames="epsilon")
def text_block(block: Tree, x: jax.Array, mask: jax.Array, epsilon: float) -> jax.Array:
    """One text block: ReLU, no attention to padding. x [B, L, D], mask [B, L] true at real tokens."""
    x = x + _attend(block[ATTENTION], layer_norm(block["LayerNorm_0"], x, epsilon), mask[:, None, None, :])
    hidden = jax.nn.relu(_dense(block["MlpBlock_0"]["Dense_0"], layer_norm(block["LayerNorm_1"], x, epsilon)))
    return x + _dense(block["MlpBlock_0"]["Dense_1"], hidden)


@partial(jax.jit, static_argnames="epsilon")
def pool_text(norm: Tree, x: jax.Array, mask: jax.Array, epsilon: float) -> jax.Array:
    """[B, D] float32, L2-normalised: the mean of the real tokens after the final norm."""
    weights = mask[..., None].astype(jnp.float32)
    mean = (layer_norm(norm, x.astype(jnp.float32), epsilon) * weights).sum(1) / (weights.sum(1) + POOL_EPSILON)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)


def layer_norm(norm: Tree, x: jax.Array, epsilon: float = EPSILON) -> jax.Array:
    """LayerNorm over the last axis, its statistics in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    out: jax.Array = (scaled * norm["scale"] + norm["bias"]).astype(x.dtype)
    return out


def _attend(attention: Tree, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    query, key, value = (_heads(attention[name], x) for name in ("query", "key", "value"))  # [B, N, H, d]
    precision = _precision(x)
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key, precision=precision).astype(jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    shares = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
    return _merge_heads(attention["out"], jnp.einsum("bhnm,bmhd->bnhd", shares, value, precision=precision))


def _heads(projection: Tree, x: jax.Array) -> jax.Array:
    kernel = projection["kernel"]  # [D, H, d]
    flat = _matmul(x, kernel.reshape(kernel.shape[0], -1))
    out: jax.Array = flat.reshape(*x.shape[:-1], *kernel.shape[1:]) + projection["bias"]
    return out


def _merge_heads(projection: Tree, x: jax.Array) -> jax.Array:
    kernel = projection["kernel"]  # [H, d, D]
    out: jax.Array = _matmul(x.reshape(*x.shape[:-2], -1), kernel.reshape(-1, kernel.shape[-1])) + projection["bias"]
    return out


def _feed_forward(block: Tree, x: jax.Array, gelu: str) -> jax.Array:
    if "FFNSwiGluFused_0" in block:
        layers = block["FFNSwiGluFused_0"]
        return _dense(layers["Dense_2"], jax.nn.silu(_dense(layers["Dense_0"], x)) * _dense(layers["Dense_1"], x))
    layers = block["MlpBlock_0"]
    hidden = jax.nn.gelu(_dense(layers["Dense_0"], x), approximate=gelu == "tanh")
    return _dense(layers["Dense_1"], hidden)


def _dense(layer: Tree, x: jax.Array) -> jax.Array:
    out: jax.Array = _matmul(x, layer["kernel"]) + layer["bias"]
    return out


def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel, precision=_precision(x))


def _precision(x: jax.Array) -> str:
    """Accelerators round float32 products to fewer bits unless told not to."""
    return "highest" if x.dtype == jnp.float32 else "default"
