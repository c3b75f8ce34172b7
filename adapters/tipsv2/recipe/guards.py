"""Stops a run that has collapsed, with the reason, instead of letting it burn its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping

from adapters.tipsv2.recipe.config import RecipeConfig
from benchmark.errors import BenchError


class CollapseError(BenchError):
    """Training was stopped by a guard; the message says which quantity fell below which limit."""


class DivergenceError(BenchError):
    """The loss or its gradient is no longer a number."""


class Guards:
    """Looks at each logged step; `strikes` counts consecutive readings below a limit."""

    def __init__(self, config: RecipeConfig) -> None:
        self.config = config
        self.strikes: dict[str, int] = {}

    def check_finite(self, loss: float, norm: float, step: int, last_checkpoint: str) -> None:
        """Raises DivergenceError for a NaN or infinite loss or norm of the gradient, before it reaches the weights."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = f"the norm of the gradient is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        kept = f"The last good checkpoint is {last_checkpoint}" if last_checkpoint else "No checkpoint was written yet"
        raise DivergenceError(f"step {step}: {what}. {kept}. Lower optim.lr or raise optim.warmup")

    def check_health(self, terms: Mapping[str, float], step: int) -> None:
        """Raises CollapseError after `guard.patience` consecutive readings below a limit."""
        guard = self.config.guard
        if step < guard.after * self.config.train.steps:
            return
        floor = guard.min_entropy * math.log(self.config.head.prototypes)
        limits = {"entropy_cls": floor, "entropy_patch": floor, "feature_std": guard.min_feature_std}
        for name, limit in limits.items():
            if name not in terms:
                continue
            self.strikes[name] = self.strikes.get(name, 0) + 1 if terms[name] < limit else 0
            if self.strikes[name] >= guard.patience:
                raise CollapseError(
                    f"step {step}: {name} = {terms[name]:.3g} stayed below {limit:.3g} for {guard.patience} readings:"
                    " the features have collapsed. Raise head.teacher_temperature, lower optim.lr, or set"
                    ' head.balance = "sinkhorn"'
                )
