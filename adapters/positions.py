"""A table of learned positions for pictures of another size than the model's own, as its authors resample it.

The authors' rules differ where libraries have one for all: timm and open_clip take a bicubic filter that widens where
the grid shrinks. Each family's rule is data (positions.toml), with the file of its authors' code that it stands in.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError


@dataclass(frozen=True)
class Rule:
    """How a table is resampled: `mode` of torch's interpolate, by the scale (n + offset) / side where one is added.

    `antialias`: the filter widens where the grid shrinks. `align`: corners stay corners. `rotary`: rotary positions too
    keep the range of the model's own ("stretched"), or count patches whatever the size ("counted").
    """

    mode: str
    offset: float = 0.0
    antialias: bool = False
    align: bool = False
    rotary: str = "stretched"
    source: str = ""

    def resample(self, table: torch.Tensor, grid: Sequence[int], prefix: int = 1) -> torch.Tensor:
        """[1, prefix + h * w, D] of a square table [1, prefix + n * n, D]; what stands before the patches is kept."""
        side = math.isqrt(table.shape[1] - prefix)
        if tuple(grid) == (side, side):
            return table
        square = table[:, prefix:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        to: dict[str, Any] = {"size": tuple(grid)}
        if self.offset:
            to = {"scale_factor": [(n + self.offset) / side for n in grid]}
        found = F.interpolate(square, mode=self.mode, align_corners=self.align or None, antialias=self.antialias, **to)
        return torch.cat([table[:, :prefix], found.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], dim=1)

    def turn(self, model: Any) -> None:
        """Has the rotary positions of a ViT of timm follow the rule."""
        if self.rotary == "counted":
            model.rope.ref_feat_shape = None

    def table_of(self, model: Any, own: torch.Tensor) -> nn.Parameter:
        """The checkpoint's `own` table for the grid that a ViT of timm is set to."""
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        return nn.Parameter(self.resample(own, model.patch_embed.grid_size, prefix), requires_grad=False)


@cache
def rules() -> Mapping[str, Rule]:
    """Family -> its authors' rule."""
    path = Path(__file__).with_suffix(".toml")
    return {name: Rule(**row) for name, row in tomllib.loads(path.read_text(encoding="utf-8")).items()}


def chosen(spec: ModelSpec, library: str, family: str = "") -> Rule | None:
    """The authors' rule of a `family` (by default the row's); None where there is none, or --positions says `library`.

    Raises UsageError for any other word.
    """
    rule = rules().get(family or str(spec.row.get("family")))
    word = spec.options.get("positions", "authors")
    if rule is None or word == library:
        return None
    if word != "authors":
        raise UsageError(f"--positions {word}: {spec.name} takes authors or {library}")
    return rule


class Positions:
    """The table of a ViT of timm, which follows the picture by `rule` and always starts from the checkpoint's own."""

    def __init__(self, model: Any, rule: Rule) -> None:
        self.model, self.rule, self.own = model, rule, model.pos_embed
        rule.turn(model)

    def set(self, grid: tuple[int, int]) -> None:
        """The table for `grid` (rows, columns) stands in the model, which then has nothing to resample."""
        if grid != tuple(self.model.patch_embed.grid_size):
            self.model.patch_embed.grid_size = grid
            self.model.pos_embed = self.rule.table_of(self.model, self.own)
