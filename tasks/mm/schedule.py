"""Learning-rate factors of the linear segmentation schedules: functions of the step, so resuming needs no state."""

from __future__ import annotations

import math

from tasks.mm.protocol import MmProbe


def factor(protocol: MmProbe, step: int) -> float:
    """Share of the learning rate at `step` (0 … steps-1)."""
    if protocol.schedule == "cosine":
        return _one_cycle(protocol, max(step - 1, 0))  # DINOv3's loop first moves its scheduler after the second step
    linear: float = (1 - step / protocol.steps) ** protocol.poly_power
    return linear * _rise(protocol, step)


def _rise(protocol: MmProbe, step: int) -> float:
    """Linear warm-up from warmup_ratio to 1."""
    if step >= protocol.warmup_steps:
        return 1.0
    return 1 - (1 - step / protocol.warmup_steps) * (1 - protocol.warmup_ratio)


def _one_cycle(protocol: MmProbe, step: int) -> float:
    """DINOv3's WarmupOneCycleLR: linear decay while warming up, then what is left of the whole run's half cosine."""
    if step < protocol.warmup_steps:
        return (1 - step / protocol.steps) * _rise(protocol, step)
    return 0.5 * (1 + math.cos(math.pi * (step + 1) / protocol.steps))
