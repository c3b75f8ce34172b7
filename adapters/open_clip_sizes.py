"""Pictures of any size through open_clip's towers, which the library builds for one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from adapters.positions import Rule


class AnySize:
    """A tower whose position table follows the picture, always resampled from the checkpoint's own.

    By its authors' `rule` where there is one; else a timm tower by its `set_input_size`, which open_clip calls for
    `force_image_size`, and open_clip's own ViT by the same antialiased bicubic as the library's loader. The loader
    leaves a table as it is where the new grid has as many places (7 x 28 for 14 x 14); here it is resampled.
    """

    def __init__(self, visual: Any, size: int, rule: Rule | None) -> None:
        self.visual, self.native, self.rule = visual, (size, size), rule
        self.now = self.native
        trunk = getattr(visual, "trunk", None)
        self.of_timm = trunk is not None
        self.holder: Any = visual if trunk is None else trunk
        self.table: Any = getattr(self.holder, "pos_embed" if self.of_timm else "positional_embedding", None)
        if self.rule and self.of_timm:
            self.rule.turn(self.holder)

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Whose resampling of a table of positions it is, for the card; nothing for a tower without one."""
        whose = "authors" if self.rule else "timm" if self.of_timm else "open_clip"
        return () if self.table is None else (("positions", whose),)

    def set(self, size: tuple[int, int]) -> None:
        """Make the tower take pictures of `size` (height, width). Raises what the tower raises."""
        if size == self.now:
            return
        if not self.of_timm:
            if self.table is not None and hasattr(self.visual, "grid_size"):  # a ResNet's pool has another: it refuses
                self.visual.positional_embedding = nn.Parameter(self.resampled(size), requires_grad=False)
        elif hasattr(self.holder, "set_input_size"):
            self.holder.set_input_size(self.native)
            if self.table is not None:
                self.holder.pos_embed = self.table
            self.holder.set_input_size(size)
            if self.rule:
                self.holder.pos_embed = self.rule.table_of(self.holder, self.table)
        self.now = size

    def resampled(self, size: tuple[int, int]) -> torch.Tensor:
        """open_clip's own table [1+h*w, D] for pictures of `size`."""
        table: torch.Tensor = self.table
        if size == self.native:
            return table
        old = self.visual.grid_size
        new = tuple(side // patch for side, patch in zip(size, self.visual.patch_size))
        places = table[1:].float().reshape(1, *old, -1).permute(0, 3, 1, 2)
        places = F.interpolate(places, size=new, mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([table[:1], places.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)])
