"""What the tests of correspondence share: stored features in place of an encoder's, and what is scored of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from training_context import MemoryContext, preset

from benchmark.contracts import DatasetInfo, Outcome
from tasks.correspondence import PatchMatchesMethod
from tasks.patch_matches import PatchMatches, cells

GRID, PATCH, WIDTH = 7, 8, 6
SIDE = GRID * PATCH
INFO = DatasetInfo("scenes", "scenes", "Apache-2.0", "", "", "", ("correspondence",))


@dataclass
class Stored(MemoryContext):
    """A context with these features [N, h, w, D]."""

    tokens: Any = None
    card_: Any = field(default_factory=lambda: SimpleNamespace(name="none", image_size=SIDE, patch_size=PATCH, depth=4))

    @property
    def card(self) -> Any:
        return self.card_

    def features(self, need: str) -> torch.Tensor:
        return self.tokens


def fields(name: str, **changes: Any) -> PatchMatches:
    return preset("correspondence", name, **{"view_size": 0, "view_patches": 0, **changes})


def tokens(n: int, grid: int) -> torch.Tensor:
    """[n, grid, grid, WIDTH]: directions that turn with the place, in noise."""
    x, y = (np.pi * cells(grid, grid, "centre")).reshape(grid, grid, 2).transpose(2, 0, 1)
    noise = 0.2 * np.random.default_rng(0).standard_normal((n, grid, grid, WIDTH))
    noise[..., :4] += np.stack([np.cos(x), np.sin(x), np.cos(y), np.sin(y)], -1)
    return torch.from_numpy(noise).float()


def scored(found: Any) -> Outcome:
    return PatchMatchesMethod(found.protocol).run(found)


def value(outcome: Outcome, name: str) -> float:
    one = next(m for m in outcome.measurements if m.name == name)
    return float(one.statistic.of(outcome.samples))
