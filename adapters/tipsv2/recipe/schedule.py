"""What changes with the step: learning rate, teacher temperature, weight of the self-supervised losses."""

from __future__ import annotations

import math

from adapters.tipsv2.recipe.config import HeadConfig, OptimConfig

RATES = {"adafactor": 3e-4, "adafactor-torch": 1e-2, "adamw": 5e-4}  # ours; docs/recipe.md has the sweep


def peak_rate(config: OptimConfig) -> float:
    """`optim.lr`, or the optimiser's own rate where it is 0."""
    return config.lr or RATES[config.name]


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear warm-up, then cosine, or flat with a linear descent at the end ("trapezoid": can be prolonged)."""
    peak, warm = peak_rate(config), max(config.warmup * steps, 1.0)
    if step + 1 < warm:
        return peak * (step + 1) / warm
    if config.schedule == "cosine":
        progress = (step - warm) / max(steps - warm, 1.0)
        shape = 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
    else:
        shape = min(1.0, (steps - step) / max(config.decay * steps, 1.0))
    return peak * (config.final_lr + (1 - config.final_lr) * shape)


def teacher_temperature(step: int, steps: int, config: HeadConfig) -> float:
    """From the warm-up temperature to the final one, linearly, then constant."""
    share = 1.0 if config.teacher_warmup <= 0 else min(step / (config.teacher_warmup * steps), 1.0)
    return config.teacher_warmup_temperature + share * (config.teacher_temperature - config.teacher_warmup_temperature)


def ramp(step: int, steps: int, share: float) -> float:
    """0 → 1 over the first `share` of the run; 1 throughout when `share` is 0."""
    return 1.0 if share <= 0 else min(step / (share * steps), 1.0)
