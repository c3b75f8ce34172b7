"""How float32 features are kept on disk: as they are, as float16, or as int8 with one scale per token."""

from __future__ import annotations

import numpy as np

CODECS = ("float32", "float16", "int8")
SCALE_BYTES = 4
SMALL = 2.0**-13  # float16 counts in steps of 2^-24 below 2^-14; at 1e-8 nothing but zeros would be left


def encode(items: np.ndarray, codec: str) -> np.ndarray:
    """float32 [..., D] -> what is written. int8 becomes [..., D + 4]: the values, then their float32 scale's bytes.

    float16 falls back to float32 where a value would overflow (|x| > 65504), or all are so small that it has not its
    usual digits for them (below SMALL), which `decode` sees by the dtype.
    """
    items = np.ascontiguousarray(items, dtype=np.float32)
    if codec == "float32":
        return items
    if codec == "float16":
        largest = max(items.max(initial=0), -items.min(initial=0))
        return items if largest > 65504 or 0 < largest < SMALL else items.astype(np.float16)
    scale = np.abs(np.maximum(items.max(-1, keepdims=True), -items.min(-1, keepdims=True))) / 127
    values = items / np.where(scale > 0, scale, 1)
    values = np.rint(values, out=values).astype(np.int8)
    return np.concatenate([values, np.ascontiguousarray(scale, dtype="<f4").view(np.int8)], -1)


def decode(stored: np.ndarray, codec: str) -> np.ndarray:
    """The inverse of `encode`, float32."""
    if codec != "int8":
        return stored.astype(np.float32)
    stored = np.ascontiguousarray(stored)
    scale = np.ascontiguousarray(stored[..., -SCALE_BYTES:]).view("<f4")
    values: np.ndarray = stored[..., :-SCALE_BYTES].astype(np.float32) * scale
    return values


def bytes_per_value(codec: str) -> int:
    """Bytes for one stored value (int8's scale is negligible)."""
    return {"float32": 4, "float16": 2, "int8": 1}[codec]
