"""The arrays of ImageFeatures: their names, shapes and types, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmark.check.findings import Finding, failed, passed
from benchmark.contracts import ImageFeatures

HALF = ("bfloat16", "float16")  # the coarser first: its values are float16's, too
LEAST_VALUES = 8  # distinct numbers, below which all being representable in half precision is no evidence


def array_findings(name: str, array: torch.Tensor, shape: Sequence[int], dtype: str) -> list[Finding]:
    """What is wrong with an array of two pictures' features: shape, number type of the card, numbers, differences."""
    if tuple(array.shape) != tuple(shape):
        why = "check embed_dim, patch_size, num_cls and text_dim of the card"
        return [failed(name, str(list(array.shape)), f"expected {list(shape)}; {why}")]
    if not torch.isfinite(array).all():
        return [failed(name, "not finite", "NaN or infinity in the features")]
    found = str(array.dtype).removeprefix("torch.")
    if found in HALF and found != dtype:
        why = f"the card says dtype {dtype}: set it to what the encoder computes in, or compute in {dtype}"
        return [failed(name, found, why)]
    if dtype == "float32" and (kind := half_type(array)):
        why = f"every value is a {kind}, the card says dtype float32: compute in float32, or let the card say {kind}"
        return [failed(name, kind, why)]
    if torch.equal(array[0], array[1]):
        return [failed(name, "constant", "two pictures have the same features")]
    spread = array.float().flatten(0, -2).std(dim=0).max().item()
    if not name.startswith("cls") and spread == 0:
        return [failed(name, "constant", "every patch has the same features")]
    return [passed(name, f"{list(array.shape)}, |x| ≤ {array.abs().max().item():.3g}")]


def half_type(array: torch.Tensor) -> str | None:
    """The half precision that holds every value of a float32 array exactly, as results of such a computation do."""
    values = array.float().flatten()
    for kind in HALF:
        rough = values.to(getattr(torch, kind)).float()
        if torch.equal(rough, values) and len(torch.unique(values)) >= LEAST_VALUES and not integers(values):
            return kind
    return None


def integers(values: torch.Tensor) -> bool:
    """Counts and codes are whole numbers in any type."""
    return torch.equal(values, values.round())


def maps(features: ImageFeatures) -> dict[str, torch.Tensor]:
    """Every patch map [B, h, w, …] by name: patches, "layer 0", …, text_patches."""
    found = {"patches": features.patches} | {f"layer {i}": layer.patches for i, layer in enumerate(features.layers)}
    return found if features.text_patches is None else found | {"text_patches": features.text_patches}


def arrays(features: ImageFeatures) -> dict[str, torch.Tensor]:
    """Every array [B, …] by name."""
    cls = {"cls": features.cls} | {f"cls of layer {i}": layer.cls for i, layer in enumerate(features.layers)}
    return cls | maps(features)


def largest_gap(a: ImageFeatures, b: ImageFeatures, row: int | None = None) -> float:
    """Largest difference of two arrays of the same name, relative to the largest value; of `row` of `a` where given."""
    gaps = []
    first, second = arrays(a), arrays(b)
    for name, y in second.items():
        x = first[name] if row is None else first[name][row : row + 1]
        gaps.append(relative_gap(x, y))
    return max(gaps, key=lambda gap: (gap != gap, gap))  # NaN is the largest of all


def relative_gap(x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest difference, relative to the largest value of `y`."""
    return float((x - y).abs().max() / y.abs().max().clamp_min(1e-12))
