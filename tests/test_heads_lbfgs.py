"""The search of `benchmark.heads.lbfgs` step by step, on objectives whose every step can be worked out by hand."""

import torch

from benchmark.heads.lbfgs import minimise


def test_a_step_that_raises_the_value_is_shortened_to_the_lowest_point_of_the_parabola():
    """1 + ½ · 2.2 x² from 1: the whole step lands at −1.2 (2.584, above 2.1); the parabola's lowest point is 0."""
    at = []

    def objective(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        at.append(float(x))
        return 1 + 1.1 * float(x) ** 2, 2.2 * x

    found = minimise(objective, torch.ones(1, dtype=torch.float64), lambda *g: g, tolerance=1e-12)
    assert at[:2] == [1.0, -1.2000000000000002] and abs(at[2]) < 1e-15
    assert (found.iterations, found.evaluations) == (1, 3) and found.value == 1


def test_a_step_that_leaves_the_gradient_as_it_was_tells_nothing_of_curvature():
    """Of a linear objective: each of the steps is the gradient's own."""
    slope = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = minimise(lambda x: (float(slope @ x) + 100, slope), torch.zeros(2, dtype=torch.float64), lambda *g: g,
                     tolerance=1e-12, max_iterations=3)  # fmt: skip
    assert found.iterations == 3 and found.value == 100 - 3 * 25 and found.x.tolist() == [-9.0, -12.0]
