"""Geometry every patch encoder shares: padding to whole patches, tokens to maps, negative layer numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from benchmark.errors import UsageError


def center_pad(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    """[B, C, H', W'] zero-padded around the middle to whole patches, the smaller half first (top, left)."""
    height, width = images.shape[-2:]
    more_rows, more_columns = -height % patch_size, -width % patch_size
    if not more_rows and not more_columns:
        return images
    left, top = more_columns // 2, more_rows // 2
    return F.pad(images, (left, more_columns - left, top, more_rows - top))


def pad_to_patches(images: torch.Tensor, patch_size: int, own: int) -> torch.Tensor:
    """`center_pad`, but for pictures of the model's `own` size, which it takes as they are.

    SigLIP's so400m has patches of 14 and 384 pixels, and leaves 6 of them unseen.
    """
    return images if images.shape[-2:] == (own, own) else center_pad(images, patch_size)


def to_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[B, h, w, D] from row-major [B, h*w, D]."""
    return tokens.reshape(tokens.shape[0], height, width, tokens.shape[-1])


def resolve_layers(layers: Sequence[int], depth: int, model: str) -> list[int]:
    """Block numbers 0 … depth-1. Raises UsageError for one the model does not have."""
    if layers and not depth:
        raise UsageError(f"{model} offers no intermediate layers")
    resolved = [layer + depth if layer < 0 else layer for layer in layers]
    for asked, layer in zip(layers, resolved):
        if not 0 <= layer < depth:
            raise UsageError(f"{model} has blocks 0 to {depth - 1}, layer {asked} was asked for")
    return resolved
