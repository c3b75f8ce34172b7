"""The DPT head as TIPS has it: four layers of a ViT, each with its CLS, fused into one map eight times the patch grid.

Readout "project": every patch is concatenated with the (first) CLS and mapped back to D by a linear layer and GELU
(tanh). The four maps are brought to ×4, ×2, ×1 and ×½ of the grid at widths D/8, D/4, D/2 and D, then to `channels`,
and fused from the coarsest up, each fusion doubling the size with corners aligned. No ReLU on the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = 256
SCALE = 8  # output cells per patch
Layer = tuple[torch.Tensor, torch.Tensor]  # CLS [B, D], patches [B, D, h, w]


def quarters(depth: int) -> tuple[int, ...]:
    """The four blocks at the ends of the quarters of `depth` (at least 4): TIPS' and DINOv2's choice for every size.

    12 → 2 5 8 11, 24 → 5 11 17 23, 27 → 6 13 20 26, 40 → 9 19 29 39.
    """
    return tuple(math.ceil(i * depth / 4) - 1 for i in (1, 2, 3, 4))


class DPT(nn.Module):
    """Four (CLS [B, D], patches [B, D, h, w]) -> [B, out, 8h', 8w'], where h' is h rounded up to an even number."""

    def __init__(self, width: int, out: int, channels: int = CHANNELS) -> None:
        super().__init__()
        widths = (max(1, width // 8), max(1, width // 4), max(1, width // 2), width)
        self.readout = nn.ModuleList(nn.Linear(2 * width, width) for _ in widths)
        self.narrow = nn.ModuleList(nn.Conv2d(width, w, 1) for w in widths)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.align = nn.ModuleList(nn.Conv2d(w, channels, 3, padding=1, bias=False) for w in widths)
        self.fusion = nn.ModuleList(Fusion(channels, skip=i > 0) for i in range(4))  # coarsest first
        self.project = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels, out)

    def forward(self, layers: Sequence[Layer]) -> torch.Tensor:
        maps = [self.reassemble(i, cls, patches) for i, (cls, patches) in enumerate(layers)]
        maps = [align(x) for align, x in zip(self.align, maps)]  # [B, channels, …]
        x = self.fusion[0](maps[3])
        for i in (1, 2, 3):
            x = self.fusion[i](x, maps[3 - i])
        x = self.project(x).permute(0, 2, 3, 1)  # [B, 8h', 8w', channels]
        return cast(torch.Tensor, self.head(x).permute(0, 3, 1, 2))

    def reassemble(self, i: int, cls: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Layer i's map at its own scale and width."""
        batch, width, height, columns = patches.shape
        tokens = patches.flatten(2).transpose(1, 2)  # [B, h*w, D]
        both = torch.cat([tokens, cls[:, None].expand_as(tokens)], -1)  # [B, h*w, 2D]
        mixed = F.gelu(self.readout[i](both), approximate="tanh")
        grid = mixed.transpose(1, 2).reshape(batch, width, height, columns)
        return cast(torch.Tensor, self.resize[i](self.narrow[i](grid)))


class Fusion(nn.Module):
    """Adds a refined skip map, refines the sum, doubles its size (corners aligned), mixes channels."""

    def __init__(self, channels: int, skip: bool) -> None:
        super().__init__()
        self.skip = Residual(channels) if skip else None
        self.main = Residual(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        if self.skip is not None and skip is not None:
            if skip.shape[2:] != x.shape[2:]:  # an odd grid was rounded up when it was halved
                skip = F.interpolate(skip, x.shape[2:], mode="bilinear", align_corners=False)
            x = x + self.skip(skip)
        x = F.interpolate(self.main(x), scale_factor=2, mode="bilinear", align_corners=True)
        return cast(torch.Tensor, self.out(x))


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3 × 3, without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + cast(torch.Tensor, self.second(F.relu(self.first(F.relu(x)))))
