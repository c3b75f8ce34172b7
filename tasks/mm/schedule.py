"""Learning-rate factors of the linear segmentation schedules: functions of the step, so resuming needs no state."""

from __future__ import annotations

import math

from tasks.mm.protocol import MmProbe


def factor(protocol: MmProbe, step: int) -> float:
    """Share of the learning rate at `step` (0 … steps-1), which runs from 0 to 1."""
    linear = 1 - step / protocol.steps
    if step < protocol.warmup_steps:
        rise = 1 - (1 - step / protocol.warmup_steps) * (1 - protocol.warmup_ratio)
        return rise * (linear**protocol.poly_power if protocol.schedule == "poly" else linear)
    if protocol.schedule == "poly":
        return linear**protocol.poly_power
    # DINOv3's WarmupOneCycleLR: linear decay while warming up, then the half cosine of the whole run from this step on.
    return 0.5 * (1 + math.cos(math.pi * (step + 1) / protocol.steps))
