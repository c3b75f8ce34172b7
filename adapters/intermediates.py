"""Layers through `forward_intermediates`, which timm and open_clip spell nearly alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmark.contracts import LayerFeatures


def layer_of(patches: torch.Tensor, prefix: torch.Tensor | None) -> LayerFeatures:
    """CLS [B, 1, D] and patches [B, h, w, D] of a map [B, D, h, w] and the tokens [B, K, D] before it, CLS first.

    Without such tokens the mean of the patches stands for CLS.
    """
    patches = patches.permute(0, 2, 3, 1).float()
    cls = patches.mean(dim=(1, 2))[:, None] if prefix is None else prefix[:, :1].float()
    return LayerFeatures(cls, patches)


def usable_depth(layers: Sequence[LayerFeatures], patches: torch.Tensor) -> int:
    """How many blocks can be asked for, by what all of them gave for one picture whose final patches [B, h, w, D] are.

    None where they are no equal blocks (a pyramid's stages), or where the last is not the final output.
    """
    alike = all(layer.patches.shape == patches.shape for layer in layers)
    return len(layers) if layers and alike and torch.allclose(layers[-1].patches, patches, atol=1e-3) else 0
