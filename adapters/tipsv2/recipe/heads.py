"""The projector in front of the self-supervised losses: MLP, unit-norm bottleneck, unit-norm prototypes."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from adapters.tipsv2.recipe.config import HeadConfig
from adapters.tipsv2.recipe.cosines import Cosines, cosines


class ProjectionHead(nn.Module):
    """Features [..., D] → cosine with each prototype [..., P]; temperatures are applied by the losses."""

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        widths = [width, *[config.hidden] * (config.layers - 1), config.bottleneck]
        steps: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            steps.append(nn.Linear(a, b))
            if i < len(widths) - 2:
                steps.append(nn.GELU())
        self.mlp = nn.Sequential(*steps)
        self.prototypes = nn.Parameter(torch.empty(config.prototypes, config.bottleneck))

    def initialise(self, generator: torch.Generator) -> None:
        """Fills all parameters from `generator`: normal prototypes, 1/√fan-in linear weights, zero biases."""
        nn.init.normal_(self.prototypes, generator=generator)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
                nn.init.zeros_(module.bias)

    def factors(self, features: torch.Tensor) -> Cosines:
        """What `forward` multiplies."""
        return Cosines(self._units(features), self)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # In bfloat16 training this product is bfloat16's; the losses' softmaxes are float32. With 4,096 prototypes,
        # student temperature 0.1 and teacher's 0.04 or 0.07 that moves the gradient by 0.4 to 1 %; rounding the
        # features alone moves it by 0.2 to 0.4 %. For 32,768 prototypes it is the largest product of a projector.
        return cosines(self._units(features), self.prototypes)  # [..., P]

    def _units(self, features: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.mlp(features), dim=-1)
