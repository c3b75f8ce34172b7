"""L-BFGS with a preconditioner, for smooth convex losses: deterministic, full batch.

Nocedal and Wright, Numerical Optimization, algorithm 7.5, with H0 = γ · preconditioner. The loss is convex, so the
curvature sᵀy is never negative and a backtracking (Armijo) search suffices; steps of length 1 are nearly always taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from benchmark.system.late import torch

PAIRS = 20  # steps that are remembered, or those that fit into:
PAIRS_BYTES = 2 << 30

Objective: TypeAlias = "Callable[[torch.Tensor], tuple[float, torch.Tensor]]"
Preconditioner: TypeAlias = "Callable[..., Sequence[torch.Tensor]]"  # of one gradient or several at once, for each


@dataclass(frozen=True)
class Minimum:
    """Where the search ended. `gradient` is its norm in the metric of the preconditioner."""

    x: torch.Tensor
    value: float
    gradient: float
    iterations: int
    evaluations: int


def minimise(
    objective: Objective,
    x: torch.Tensor,
    precondition: Preconditioner,
    tolerance: float,
    max_iterations: int = 200,
    memory: int = 20,
    noise: float = 0.0,
) -> Minimum:
    """The minimum of `objective` (value and gradient) from `x`, all in float64.

    Stops when the quadratic model promises less than `tolerance` × |value| of further decrease: ½ gᵀH g.
    `noise` is the relative rounding of the value; a step that raises it by less is taken on the gradient's word, which
    keeps more digits than a float32 loss.
    """
    value, grad = objective(x)
    evaluations = 1
    pairs: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    for iteration in range(max_iterations):
        direction = -_two_loop(grad, pairs, precondition)
        slope = float((direction * grad).sum())
        if -0.5 * slope <= tolerance * abs(value):
            return Minimum(x, value, (-slope) ** 0.5, iteration, evaluations)
        step = 1.0
        for _ in range(30):
            candidate = x + step * direction
            new_value, new_grad = objective(candidate)
            evaluations += 1
            if new_value <= value + 1e-4 * step * slope + noise * abs(value):
                break
            # The parabola through both values and the slope has its lowest point here.
            parabola = -slope * step**2 / (2 * (new_value - value - slope * step))
            step = min(max(parabola, 0.1 * step), 0.5 * step)
        else:  # no decrease is left above rounding
            return Minimum(x, value, (-slope) ** 0.5, iteration, evaluations)
        s, y = candidate - x, new_grad - grad
        curvature = float((s * y).sum())
        if curvature > 1e-14 * float(s.norm() * y.norm()):
            pairs = [*pairs, (s, y, curvature)][-memory:]
        x, value, grad = candidate, new_value, new_grad
    return Minimum(x, value, float((grad * precondition(grad)[0]).sum()) ** 0.5, max_iterations, evaluations)


def _two_loop(
    grad: torch.Tensor,
    pairs: list[tuple[torch.Tensor, torch.Tensor, float]],
    precondition: Preconditioner,
) -> torch.Tensor:
    q = grad.clone()
    weights = []
    for s, y, curvature in reversed(pairs):
        a = float((s * q).sum()) / curvature
        weights.append(a)
        q -= a * y
    if not pairs:
        return precondition(q)[0]
    _, y, curvature = pairs[-1]
    r, along = precondition(q, y)
    r *= curvature / float((y * along).sum())
    for (s, y, curvature), a in zip(pairs, reversed(weights)):
        r += s * (a - float((y * r).sum()) / curvature)
    return r


def steps_kept(parameters: int) -> int:
    """Steps that are remembered, each twice so many bytes as the `parameters` in float64."""
    return max(3, min(PAIRS, PAIRS_BYTES // (2 * parameters)))
