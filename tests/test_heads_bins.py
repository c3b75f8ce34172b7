"""The depth head of bins: its formula, its choice of a rate, its schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.errors import DataError
from benchmark.heads import bins
from benchmark.heads.bins import BinsHead, fit_bins
from benchmark.heads.rows import fit_scaler
from tasks.dense import finer


def test_bins_predict_a_linear_depth_within_range_and_repeat_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 8)).astype(np.float32)
    depth = np.clip(4 + x @ rng.normal(size=8) * 0.4, 0.5, 9.5).astype(np.float32)
    depth[::10] = 0  # invalid
    held = np.arange(4000) % 5 == 0
    heads = [fit_bins(x, depth, held, 1e-3, 10, 32, learning_rates=(1e-3, 1e-2), steps=150, batch=512) for _ in "ab"]
    guess = heads[0].predict(torch.tensor(x)).numpy()
    assert guess.min() > 0 and guess.max() < 10
    valid = depth > 0
    assert np.sqrt(((guess - depth)[valid] ** 2).mean()) < 0.4 * depth[valid].std()
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert 0.01 < heads[0].history[1]["holdout_rmse"] < 0.4 * depth[valid].std()  # that of the better rate, in metres
    with pytest.raises(DataError, match="no depth lies between"):
        fit_bins(x, np.zeros(4000), None, 1e-3, 10)


def test_bins_expectation_is_dinov2s_formula() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    head = fit_bins(x, np.full(200, 2.0), None, 0.001, 10, 16, steps=3)
    scores = np.maximum(x @ head.weight.numpy().T + head.bias.numpy(), 0) + 0.1
    expected = (scores / scores.sum(1, keepdims=True)) @ np.linspace(0.001, 10, 16)
    np.testing.assert_allclose(head.predict(torch.tensor(x)).numpy(), expected, rtol=1e-5)


def test_a_rate_is_judged_on_rows_that_it_was_not_trained_on() -> None:
    """The second feature gives the depth away, but only of the rows held out."""
    held = np.arange(400) % 4 == 0
    depth = np.random.default_rng(0).uniform(2, 8, 400)
    x = np.stack([np.ones(400), np.where(held, depth, 5.0)], 1).astype(np.float32)
    blind = fit_bins(x, np.where(held, depth, 5.0), held, 1e-3, 10, 16, learning_rates=(1e-2, 3e-2), steps=100)
    assert min(record["holdout_rmse"] for record in blind.history[:2]) > 0.8 * depth[held].std()


@pytest.mark.parametrize(("steps", "warmup"), [(20, 2), (99, 9), (501, 50), (520, 50)])
def test_bins_warm_up_for_a_tenth_of_the_steps_and_fifty_at_most(monkeypatch, steps: int, warmup: int) -> None:
    asked, cosine = [], bins.cosine
    monkeypatch.setattr(
        bins, "cosine", lambda step, of, warmup: (asked.append((of, warmup)), cosine(step, of, warmup))[1]
    )
    fit_bins(np.ones((4, 2), np.float32), np.full(4, 2.0), None, 0.001, 10, 2, steps=steps)
    assert asked == [(steps, warmup)] * steps


def test_the_rate_rises_in_equal_parts_and_falls_by_half_a_cosine() -> None:
    found = [bins.cosine(step, 13, warmup=3) for step in range(14)]
    assert found[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1]) and found[8] == pytest.approx(0.5) and found[13] == 0
    assert found[5] == pytest.approx((1 + np.cos(0.2 * np.pi)) / 2) and bins.cosine(1, 4) == pytest.approx(0.8535534)


def test_bins_are_averaged_after_their_scores_are_interpolated() -> None:
    """A head fitted on interpolated features is scored as the same function; the grid's own expectation is another."""
    draw = torch.Generator().manual_seed(0)
    head = BinsHead(torch.randn(16, 5, generator=draw), torch.randn(16, generator=draw), 0.5, 10.0)
    grid = torch.randn(2, 3, 4, 5, generator=draw)
    metres = head.expectation(finer(head.scores(grid), 4))
    assert metres.shape == (2, 12, 16)
    torch.testing.assert_close(metres, head.predict(finer(grid, 4)), atol=1e-5, rtol=1e-5)
    assert float((metres - finer(head.predict(grid)[..., None], 4)[..., 0]).abs().max()) > 0.1
    assert finer(grid, 1) is grid


@pytest.mark.parametrize("loss", ["sig", "l2"])
def test_bins_are_trained_by_adamw_on_shuffled_epochs_of_standardised_rows(loss) -> None:
    """Step by step with torch's optimiser; AdaBins' loss √(var g + 0.15 mean² g) of log-ratios g, or squared metres."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(40, 3)) * [1, 3, 0.2] + 5).astype(np.float32)
    depth = rng.uniform(1, 9, 40).astype(np.float32)
    head = fit_bins(x, depth, None, 0.5, 10, 4, seed=3, learning_rates=(0.05,), steps=6, batch=16, loss=loss)
    z = torch.from_numpy((x - x.mean(0, dtype=float)) / x.std(0, dtype=float)).float()
    weight = (0.01 * torch.randn(4, 3, generator=torch.Generator().manual_seed(3))).requires_grad_()
    bias = torch.full((4,), 0.1, requires_grad=True)
    optimiser, order = torch.optim.AdamW([weight, bias], lr=0.05, weight_decay=0.01), np.random.default_rng(3)
    epochs = [order.permutation(40) for _ in range(2)]

    def metres(rows: np.ndarray) -> torch.Tensor:
        share = torch.relu(z[rows] @ weight.T + bias) + 0.1
        return (share * torch.linspace(0.5, 10, 4)).sum(1) / share.sum(1)

    for step in range(6):
        rows = epochs[step // 3][step % 3 * 16 :][:16]
        optimiser.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * step / 6)) / 2
        guess, truth = metres(rows), torch.from_numpy(depth[rows])
        gap = guess.log() - truth.log()
        error = (gap.var(correction=0) + 0.15 * gap.mean() ** 2).sqrt() if loss == "sig" else (guess - truth).pow(2)
        optimiser.zero_grad()
        error.mean().backward()
        optimiser.step()
    found = head.predict(torch.from_numpy(x))
    torch.testing.assert_close(found, metres(np.arange(40)).detach(), rtol=1e-3, atol=1e-3)


def test_a_rate_is_judged_by_the_rmse_of_all_its_rows(monkeypatch) -> None:
    monkeypatch.setattr(bins, "_PREDICT_ROWS", 7)
    x, depth = np.random.default_rng(0).normal(size=(2, 30, 1)).astype(np.float32)
    scaler, centres = fit_scaler(x, np.arange(30), "cpu"), torch.linspace(1, 3, 2)
    recipe = bins._Recipe(x, torch.from_numpy(depth[:, 0]), scaler, centres, "cpu", 1, 1, 0.0, "sig", 0)
    rows = np.arange(0, 30, 2)
    share = np.maximum((x[rows] - x.mean()) / x.std() * [[1.0, -2.0]] + [0.5, 1.0], 0) + 0.1
    expected = np.sqrt(np.mean((share @ [1, 3] / share.sum(1) - depth[rows, 0]) ** 2))
    assert recipe.rmse((torch.tensor([[1.0], [-2.0]]), torch.tensor([0.5, 1.0])), rows) == pytest.approx(
        expected, rel=1e-5
    )


def test_depths_on_the_limits_and_rates_that_cannot_be_judged_are_refused() -> None:
    x = np.ones((4, 2), np.float32)
    with pytest.raises(DataError, match="no depth lies between 0.5 and 10 m"):
        fit_bins(x, np.array([0.5, 10, np.nan, 0]), None, 0.5, 10)
    with pytest.raises(DataError, match="3 depths for 4 feature rows"):
        fit_bins(x, np.ones(3), None, 0.5, 10)
    for held, said in ((None, 0), (np.ones(4, bool), 3)):
        with pytest.raises(DataError, match=f"{said} of 3 valid rows are held out"):
            fit_bins(x, np.array([1, 2, 3, 11]), held, 0.5, 10, learning_rates=(0.1, 0.01), steps=1)
