"""Learning rate and first momentum of each step, as the reference codes have them.

cosine: mmcv's CosineAnnealing with its linear warm-up, DINOv2. quarter_cosine: Probe3D's. one_cycle: DINOv3's
WarmupOneCycleLR, whose warm-up adds a thousandth of the rate. Momentum `one_cycle` is mmcv's OneCycle hook, which
DINOv2's depth configuration switches on; `rising` is DINOv3's, zero while the rate warms up.
"""

from __future__ import annotations

import math

from tasks.training.fields import TrainedHead

LOW, HIGH, TURN = 0.85, 0.95, 0.3  # mmcv's defaults: β₁ falls from HIGH to LOW in the first TURN of the steps
DIVISOR, LAST_DIVISOR = 25.0, 1000.0  # DINOv3


def learning_rate(p: TrainedHead, step: int) -> float:
    """The rate of step `step`, counted from 0."""
    return p.learning_rate * _FACTORS[p.schedule](p, step)


def first_momentum(p: TrainedHead, step: int) -> float:
    """β₁ of step `step`."""
    if p.momentum == "fixed":
        return p.beta1
    if p.momentum == "rising":
        if step < p.warmup_steps:
            return 0.0
        return _half_cosine(LOW, HIGH, (step - p.warmup_steps) / max(1, p.steps - p.warmup_steps))
    turn = TURN * p.steps - 1
    if step <= turn:
        return _half_cosine(HIGH, LOW, step / max(turn, 1e-12))
    return _half_cosine(LOW, HIGH, (step - turn) / max(p.steps - 1 - turn, 1e-12))


def _cosine(p: TrainedHead, step: int) -> float:
    regular = _half_cosine(1.0, p.final_ratio, step / p.steps)
    if step >= p.warmup_steps:
        return regular
    return regular * (1 - (1 - step / p.warmup_steps) * (1 - p.warmup_ratio))


def _quarter_cosine(p: TrainedHead, step: int) -> float:
    if step <= p.warmup_steps:
        return p.warmup_ratio + (1 - p.warmup_ratio) * (step / p.warmup_steps if p.warmup_steps else 1.0)
    share = min(1.0, (step - p.warmup_steps) / max(1, p.steps - p.warmup_steps))
    return p.final_ratio + (1 - p.final_ratio) * math.cos(0.5 * math.pi * share)


def _one_cycle(p: TrainedHead, step: int) -> float:
    if step < p.warmup_steps:
        return 1 / LAST_DIVISOR + _half_cosine(1.0, 0.0, step / p.steps) * step / p.warmup_steps
    return _half_cosine(1.0, 1 / DIVISOR / LAST_DIVISOR, (step + 1) / p.steps)


def _constant(p: TrainedHead, step: int) -> float:
    return 1.0


_FACTORS = {"cosine": _cosine, "quarter_cosine": _quarter_cosine, "one_cycle": _one_cycle, "constant": _constant}


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
