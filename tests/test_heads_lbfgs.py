"""The search of `benchmark.heads.lbfgs` step by step, on objectives whose every step can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.heads.lbfgs import _two_loop, minimise, steps_kept

NOWHERE = torch.zeros(1, dtype=torch.float64)


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


def test_a_shorter_step_is_a_tenth_of_the_last_at_least_and_half_of_it_at_most():
    """The parabola of 99 at one has its lowest point at 1/200; that of a value just too high, beyond the middle."""
    at, values = [], {0.0: 0.0, 1.0: 99.0, 0.1: -0.9e-5, 0.05: -1.0}

    def objective(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        at.append(round(float(x), 12))
        return values[at[-1]], torch.full_like(x, 0.0 if at[-1] == 0.05 else -1.0)

    found = minimise(objective, NOWHERE, lambda *g: g, tolerance=1e-12)
    assert at == [0.0, 1.0, 0.1, 0.05] and (found.iterations, found.evaluations, found.value) == (1, 4, -1.0)


def test_without_any_decrease_the_search_ends_where_it_began_after_thirty_steps():
    def objective(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        return 2.0 - float(x == 0), torch.full_like(x, -1.0)

    found = minimise(objective, NOWHERE, lambda *g: g, tolerance=1e-12)
    assert (float(found.x), found.value, found.gradient) == (0.0, 1.0, 1.0)
    assert (found.iterations, found.evaluations) == (0, 31)


def test_a_step_that_raises_the_value_by_less_than_its_noise_is_taken():
    def objective(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        return 100.0 + 0.005 * float(x > 0), torch.full_like(x, -float(x == 0))

    taken = minimise(objective, NOWHERE, lambda *g: g, tolerance=1e-12, noise=1e-4)
    assert (float(taken.x), taken.iterations, taken.evaluations) == (1.0, 1, 2)
    assert float(minimise(objective, NOWHERE, lambda *g: g, tolerance=1e-12).x) == 0.0


@pytest.mark.parametrize(("tolerance", "iterations"), [(0.25, 0), (0.2499, 1)])
def test_the_search_ends_where_half_the_slope_is_no_more_than_the_tolerance(tolerance: float, iterations: int):
    """Gradient (3, 4) by twice itself: a slope of −50, so 25 of the value of 100 are promised."""
    gradient = torch.tensor([3.0, 4.0], dtype=torch.float64)

    def objective(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        return 100.0 + float(gradient @ x), gradient

    found = minimise(objective, torch.zeros(2).double(), lambda *g: [2 * one for one in g], tolerance, max_iterations=1)
    assert found.iterations == iterations and found.gradient == pytest.approx(50**0.5)
    assert found.value == 100 - 50 * iterations


def test_a_direction_is_that_of_bfgs_updates_written_out():
    """H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ, from the preconditioner times sᵀy / yᵀPy of the last step."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(5, 5))
    curvature, preconditioner = spread @ spread.T + np.eye(5), np.diag(rng.uniform(0.5, 2, 5))
    steps = rng.normal(size=(3, 5))
    last = curvature @ steps[-1]
    inverse = preconditioner * (steps[-1] @ last) / (last @ preconditioner @ last)
    pairs = []
    for s in steps:
        y = curvature @ s
        turn = np.eye(5) - np.outer(s, y) / (s @ y)
        inverse = turn @ inverse @ turn.T + np.outer(s, s) / (s @ y)
        pairs.append((torch.from_numpy(s), torch.from_numpy(y), float(s @ y)))
    gradient, by = rng.normal(size=5), torch.from_numpy(preconditioner)
    found = _two_loop(torch.from_numpy(gradient), pairs, lambda *g: [by @ one for one in g])
    np.testing.assert_allclose(found, inverse @ gradient, rtol=1e-10)


def test_twenty_steps_are_remembered_or_those_that_fit_into_two_gibibytes_and_three_at_least():
    assert [steps_kept(2**n) for n in (3, 25, 26, 27, 28, 29, 40)] == [20, 20, 16, 8, 4, 3, 3]
    assert steps_kept(2**27 + 1) == 7
