"""How float32 features are kept on disk: as they are, as float16, or as int8.

int8 keeps, for each shard, the middle and the spread of every dimension over its ordinary tokens, and a scale for every
token of what is left. ViTs have dimensions that are large and constant, and tokens a hundred times as long as the
others: with one scale for a whole token, or means that outliers move, either leaves nothing of the rest. Nothing is
ever clipped. What the rounding costs is measured on every shard, and one that loses more than LOSS is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.errors import BenchError

CODECS = ("float32", "float16", "int8")
LAYOUTS = {"int8": "int8 by dimension and token"}  # what an array's key says; shards of another layout are not its own
SCALE_BYTES = 4
SMALL = 2.0**-13  # float16 counts in steps of 2^-24 below 2^-14; at 1e-8 nothing but zeros would be left
LOSS = 1e-3  # of a token's variance around the middles, or of the ordinary one; bell-shaped features lose a twentieth
SAMPLE = 4096  # tokens that middles and spreads are taken from


def encode(items: np.ndarray, codec: str) -> np.ndarray:
    """float32 [n, ..., D] -> what is written. int8 becomes [k + n, ..., D + 4]: k items that hold the float32 middles
    and spreads of the dimensions, then each token's values and the bytes of its float32 scale.

    float16 falls back to float32 where a value would overflow (|x| > 65504), or all are so small that it has not its
    usual digits for them (below SMALL), which `decode` sees by the dtype. Raises BenchError where int8 loses over LOSS.
    """
    items = np.ascontiguousarray(items, dtype=np.float32)
    if codec == "float32":
        return items
    if codec == "float16":
        largest = max(items.max(initial=0), -items.min(initial=0))
        return items if largest > 65504 or 0 < largest < SMALL else items.astype(np.float16)
    width = items.shape[-1]
    middle, spread = _ordinary(items.reshape(-1, width))
    tokens = (items - middle).reshape(-1, width)
    tokens /= spread
    scale = np.maximum(tokens.max(-1, keepdims=True), -tokens.min(-1, keepdims=True)) / 127
    own = np.maximum(
        1.0, np.median(np.abs(tokens[:, :: -(-width // 64)]), -1) ** 2
    )  # of a long token, its own variance
    tokens /= np.where(scale > 0, scale, 1)
    rounded = np.empty(tokens.shape, np.int8)
    np.rint(tokens, out=rounded, casting="unsafe")  # at most 127 by its scale; no copy in float32
    tokens -= rounded
    tokens *= scale
    lost = float((np.einsum("ij,ij->i", tokens, tokens, dtype=np.float64) / own).mean() / width)
    if not lost <= LOSS:  # nor NaN, where a float32 difference overflowed
        raise BenchError(
            f"--store int8 would lose {100 * lost:.2g} % of these features' variance, more than {100 * LOSS:g} %: some "
            "values are too far from the others. Use --store float16"
        )
    body = np.concatenate([rounded, np.ascontiguousarray(scale, dtype="<f4").view(np.int8)], -1)
    body = body.reshape(*items.shape[:-1], width + SCALE_BYTES)
    head = np.zeros((_header_items(body.shape), *body.shape[1:]), np.int8)
    head.reshape(-1)[: 8 * width] = np.concatenate([middle, spread]).astype("<f4").view(np.int8)
    return np.concatenate([head, body])


def decode(shard: np.ndarray, rows: Any, codec: str) -> np.ndarray:
    """float32 [m, ..., D]: the items `rows` (a slice or indices) of what `encode` made."""
    if codec != "int8":
        return np.asarray(shard[rows]).astype(np.float32)
    width, first = shard.shape[-1] - SCALE_BYTES, _header_items(shard.shape)
    middle, spread = np.ascontiguousarray(shard[:first]).reshape(-1)[: 8 * width].view("<f4").reshape(2, width)
    stored = np.ascontiguousarray(shard[first:][rows])
    values: np.ndarray = stored[..., :-SCALE_BYTES].astype(np.float32)
    values *= np.ascontiguousarray(stored[..., -SCALE_BYTES:]).view("<f4")
    values *= spread
    values += middle
    return values


def shape_of(shard: np.ndarray, codec: str) -> tuple[int, ...]:
    """The shape [n, ..., D] of the items in what `encode` made. Raises ValueError where it made no such array."""
    if codec != "int8":
        return shard.shape
    if shard.ndim < 2 or shard.shape[-1] <= SCALE_BYTES or 0 in shard.shape:
        raise ValueError(f"{list(shard.shape)} holds no scales")
    return shard.shape[0] - _header_items(shard.shape), *shard.shape[1:-1], shard.shape[-1] - SCALE_BYTES


def _ordinary(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and spread [D] float32 of each dimension, as quartiles tell it; 1 where every token has one value."""
    low, middle, high = np.quantile(tokens[:: -(-len(tokens) // SAMPLE)], [0.25, 0.5, 0.75], axis=0)
    middle = middle.astype(np.float32)
    spread = (high - low) / 1.349  # of a normal distribution, its standard deviation
    for d in np.flatnonzero(spread <= 0):  # most tokens have one value, as behind a ReLU
        spread[d] = np.sqrt(np.mean((tokens[:, d].astype(np.float64) - middle[d]) ** 2))
    spread = spread.astype(np.float32)
    return middle, np.where(spread > 0, spread, np.float32(1))


def _header_items(shape: tuple[int, ...]) -> int:
    """Items [..., D + 4] that two float32 of each dimension fill."""
    return -(-8 * (shape[-1] - SCALE_BYTES) // int(np.prod(shape[1:])))


def bytes_per_value(codec: str) -> int:
    """Bytes for one stored value (int8's scales are negligible)."""
    return {"float32": 4, "float16": 2, "int8": 1}[codec]
