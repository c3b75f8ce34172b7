"""Depth from scores over bins: made positive, divided by their sum, averaged over the bins' depths (AdaBins)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


def depth_of_scores(scores: torch.Tensor, low: float, high: float, floor: float) -> torch.Tensor:
    """[B, 1, H, W] metres of scores [B, bins, H, W]; bins are spaced evenly from `low` to `high`, ends included.

    `floor` is added after the ReLU: 0.1 in DINOv2 and Probe3D, 0.001 in TIPS' released head.
    """
    share = F.relu(scores) + floor
    centres = torch.linspace(low, high, scores.shape[1], device=scores.device, dtype=scores.dtype)
    return torch.einsum("bnhw,n->bhw", share, centres)[:, None] / share.sum(1, keepdim=True)


class LinearDense(nn.Module):
    """A 1 × 1 convolution on up-sampled tokens: (CLS [B, D], patches [B, D, h, w]) -> [B, out, up·h, up·w].

    `with_cls` concatenates the CLS to every patch; `batch_norm` normalises the features first (DINOv3).
    """

    def __init__(self, width: int, out: int, up: int, with_cls: bool, batch_norm: bool) -> None:
        super().__init__()
        self.up, self.with_cls = up, with_cls
        width *= 2 if with_cls else 1
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.head = nn.Conv2d(width, out, 1)

    def forward(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        cls, x = layers[-1]
        if self.with_cls:
            x = torch.cat([x, cls[:, :, None, None].expand_as(x)], 1)
        if isinstance(self.norm, nn.Identity):  # a 1 × 1 convolution commutes with bilinear up-sampling: fewer channels
            return self.raised(self.head(x))
        return cast(torch.Tensor, self.head(self.norm(self.raised(x))))

    def raised(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, up·h, up·w] of [B, C, h, w]."""
        if self.up == 1:
            return x
        return F.interpolate(x, scale_factor=self.up, mode="bilinear", align_corners=False)
