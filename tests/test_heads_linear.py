"""Convex and iterative heads: agreement with scikit-learn, selection on held-out rows, bad input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from benchmark.errors import DataError, EncoderError
from benchmark.heads import curvature, logistic
from benchmark.heads.linear_sweep import fit_linear_sweep
from benchmark.heads.logistic import fit_best, fit_logistic
from benchmark.heads.ridge import PENALTIES, RidgeAccumulator
from benchmark.heads.rows import Rows, fit_scaler
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from tasks.dense import held_out_folds, held_out_images, probe_needs, training_pixels


def blobs(n: int, classes: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Badly scaled, off-centre features with noisy linear classes."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, dim))
    y = (z @ rng.normal(size=(dim, classes)) + rng.gumbel(size=(n, classes))).argmax(1)
    return (z * rng.uniform(0.1, 20, dim) + 10 * rng.normal(size=dim)).astype(np.float32), y


@pytest.mark.parametrize(("classes", "dim", "n", "penalty"), [(3, 5, 300, 1e-2), (7, 20, 900, 1e-3), (2, 4, 100, 1e-3)])
def test_logistic_probabilities_equal_scikit_learns(classes: int, dim: int, n: int, penalty: float) -> None:
    x, y = blobs(n, classes, dim)
    z = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    # For two classes scikit-learn penalises one vector where the multinomial model has two of half its length.
    strength = (2 if classes == 2 else 1) / (n * penalty)
    reference = LogisticRegression(C=strength, tol=1e-9, max_iter=5000).fit(z, y).predict_proba(z)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-10)):
        head = fit_logistic(x, y, classes, [penalty], dtype=dtype, tolerance=tolerance)
        ours = torch.softmax(head.logits(torch.tensor(x)).double(), 1).numpy()
        assert np.abs(ours - reference).max() < 1e-4


def test_logistic_never_predicts_a_class_without_rows_and_stays_finite() -> None:
    x, y = blobs(400, 4, 6)
    head = fit_logistic(x, np.where(y == 2, 5, y), 8, [1e-3])
    assert head.weight.shape == (8, 6) and torch.isfinite(head.logits(torch.tensor(x))).all()
    assert set(head.logits(torch.tensor(x)).argmax(1).tolist()) <= {0, 1, 3, 5}


def test_logistic_chooses_a_stronger_penalty_when_features_are_noise() -> None:
    x, y = blobs(600, 3, 10)
    hold = np.arange(600) % 4 == 0
    real = fit_logistic(x, y, 3, holdout=hold)
    noise = fit_logistic(np.random.default_rng(1).normal(size=(600, 100)).astype(np.float32), y, 3, holdout=hold)
    assert noise.penalty > real.penalty
    assert real.history[-1]["refit"] == 1


def test_the_penalty_is_chosen_by_the_metric_asked_for_and_keeps_its_c_for_all_rows() -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(6, 4000, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])  # mIoU minds the rare classes
    x = (rng.normal(size=(6, 40))[y] + 4 * rng.normal(size=(4000, 40))).astype(np.float32)
    hold = np.arange(4000) % 5 == 0
    for criterion, sign in (("cross-entropy", 1), ("accuracy", -1), ("mIoU", -1)):
        head = fit_logistic(x, y, 6, holdout=hold, criterion=criterion, selection_rows=2000)
        tried = [h for h in head.history if "holdout_loss" in h]
        name = "holdout_loss" if criterion == "cross-entropy" else f"holdout_{criterion}"
        best = min(tried, key=lambda h: sign * h[name])
        rows = np.sort(np.random.default_rng(0).permutation(4000)[:2000])
        assert head.penalty == pytest.approx(best["penalty"] * np.sum(~hold[rows]) / 4000)
    chosen = {c: fit_logistic(x, y, 6, holdout=hold, criterion=c).penalty for c in ("cross-entropy", "mIoU")}
    assert chosen["mIoU"] < chosen["cross-entropy"]


def test_folds_are_judged_together_and_give_their_c_to_all_rows() -> None:
    from sklearn.metrics import jaccard_score

    x, y = blobs(900, 4, 6)
    x += 3 * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    fold = np.arange(900) % 4 - 1  # a quarter always trains
    head = fit_logistic(x, y, 4, [1e-1, 1e-2], holdout=fold, criterion="mIoU", tolerance=1e-9)
    for tried in head.history[:-1]:
        guess = np.full(900, -1)
        for k in range(3):
            rest = fit_logistic(x[fold != k], y[fold != k], 4, [tried["penalty"]], tolerance=1e-9)
            guess[fold == k] = rest.logits(torch.tensor(x[fold == k])).argmax(1).numpy()
        judged = fold >= 0
        assert tried["holdout_mIoU"] == pytest.approx(
            100 * jaccard_score(y[judged], guess[judged], average="macro"), abs=0.5
        )
    best = max(head.history[:-1], key=lambda h: h["holdout_mIoU"])
    assert head.penalty == pytest.approx(best["penalty"] * 3 / 4)


def test_fewer_rows_than_features_have_the_same_minimum() -> None:
    """The preconditioner then knows only the directions that occur."""
    x, y = blobs(60, 3, 200)
    z = (x - x.mean(0, dtype=np.float64)) / x.std(0, dtype=np.float64)
    for penalty in (1.0, 1e-2):
        head = fit_logistic(x, y, 3, [penalty], dtype=torch.float64, tolerance=1e-12)
        reference = LogisticRegression(C=1 / (60 * penalty), tol=1e-9, max_iter=5000).fit(z, y).predict_proba(z)
        ours = torch.softmax(head.logits(torch.tensor(x)).double(), 1).numpy()
        assert np.abs(ours - reference).max() < 1e-3


def test_source_and_penalty_are_chosen_together() -> None:
    x, y = blobs(400, 3, 8)
    noise = np.random.default_rng(1).normal(size=(400, 8)).astype(np.float32)
    hold = np.arange(400) % 4 == 0
    name, head = fit_best({"noise": noise, "x": x, "again": x}, y, 3, holdout=hold, criterion="accuracy")
    alone = fit_logistic(x, y, 3, holdout=hold, criterion="accuracy")
    assert name == "x" and torch.equal(head.weight, alone.weight) and head.penalty == alone.penalty
    with pytest.raises(DataError, match="no held-out"):
        fit_best({"noise": noise, "x": x}, y, 3, [1e-2])


def test_the_path_goes_on_while_the_loss_falls_though_hits_stay_the_same() -> None:
    """A rare class is not predicted under any strong penalty: the hits of the common one alone would end the search."""
    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.03).astype(int)
    x = rng.normal(size=(2000, 3)).astype(np.float32)
    x[:, 0] = 4 * y + 0.5 * x[:, 0]
    head = fit_logistic(x, y, 2, [1e4, 1e3, 1e2, 1e1, 1e-3], holdout=np.arange(2000) % 4 == 0, criterion="accuracy")
    hits = [h["holdout_accuracy"] for h in head.history if "holdout_accuracy" in h]
    assert hits[0] == hits[1] == hits[2] and max(hits) > hits[0] + 1 and head.penalty < 1


def test_many_classes_stay_within_the_bytes_that_are_planned(monkeypatch) -> None:
    """Blocks and remembered steps shrink with the classes; the answer is the same."""
    x, y = blobs(3000, 50, 6)
    whole = fit_logistic(x, y, 50, [1e-3])
    assert logistic.held_bytes(1_281_167, 1536, 1000) < 2.5 * 2**30
    assert logistic.held_bytes(100_000, 4096, 20_000) < 12 * 2**30
    # float32 blocks, and the rows twice
    assert curvature.block_bytes(100, 9, 5) == 4 * (5 * 10 * 10 + 2 * 100 * 10)
    sizes: list[int] = []
    softmax = torch.log_softmax
    monkeypatch.setattr(torch, "log_softmax", lambda t, dim: (sizes.append(len(t)), softmax(t, dim))[1])
    monkeypatch.setattr(logistic, "_LOGITS", 500 * 50)
    monkeypatch.setattr("benchmark.heads.lbfgs.PAIRS_BYTES", 4 * 2 * 8 * 50 * 7)
    small = fit_logistic(x, y, 50, [1e-3], keep_bytes=0)
    assert max(sizes) == 500 and (small.weight - whole.weight).abs().max() < 1e-2 * whole.weight.abs().max()


def test_folds_of_images_reach_the_number_asked_for() -> None:
    for n, judged, folds in ((4000, 200, 1), (300, 200, 7), (300, 1, 1), (35, 200, 9), (2, 200, 2)):
        found = held_out_folds(n, 0.1, judged, 3)
        assert found.max() == folds - 1 and (found >= 0).sum() >= min(n, judged)
        assert (found == 0).sum() == max(1, round(0.1 * n))
        assert ((found == 0) == held_out_images(n, 0.1, 3)).all()
    assert (held_out_folds(1, 0.1, 200, 0) == -1).all()


def test_one_training_picture_is_too_few_to_choose_by() -> None:
    one: Any = SimpleNamespace(data={"train": None}, features=lambda need: torch.zeros(1, 4, 2))
    protocol: Any = SimpleNamespace(penalties=(1.0, 0.1))
    tap: Any = SimpleNamespace(tap=None)
    with pytest.raises(DataError, match="1 training picture: penalties are chosen on a held-out one"):
        training_pixels(one, {"train/pixels": tap}, protocol, lambda v, _: v > 0)


def test_small_sets_are_sampled_more_closely():
    probe = load_protocol("depth", load_task("depth").schemas, protocol_file("depth"), "fast").values
    assert [probe.pixels(n) for n in (4000, 2000, 1999, 300, 250, 2, 1, 0)] == [64, 64, 65, 427, 512, 512, 512, 512]
    data = {"train": SimpleNamespace(images=range(300)), "test": SimpleNamespace(images=range(7))}
    assert [need.tap.count for need in probe_needs(probe, data).values() if need.tap.name == "pixels"] == [427]


def test_held_out_mean_iou_is_scikit_learns() -> None:
    from sklearn.metrics import jaccard_score

    x, y = blobs(900, 4, 6)
    x += 3 * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    hold = np.arange(900) % 3 == 0
    tried = fit_logistic(x, y, 4, [1e-2, 1e-3], holdout=hold, criterion="mIoU", tolerance=1e-9).history[0]
    trained = fit_logistic(x[~hold], y[~hold], 4, [1e-2], tolerance=1e-9)
    guess = trained.logits(torch.tensor(x[hold])).argmax(1).numpy()
    assert tried["holdout_mIoU"] == pytest.approx(100 * jaccard_score(y[hold], guess, average="macro"), abs=0.5)
    assert tried["holdout_accuracy"] == pytest.approx(100 * np.mean(guess == y[hold]), abs=0.5)


def test_logistic_does_not_depend_on_where_its_rows_are_kept() -> None:
    x, y = blobs(500, 3, 8)
    kept = fit_logistic(x, y, 3, [1e-3])
    streamed = fit_logistic(torch.tensor(x), y, 3, [1e-3], keep_bytes=0)
    torch.testing.assert_close(kept.weight, streamed.weight)


def test_logistic_copes_with_constant_and_duplicate_features() -> None:
    x, y = blobs(300, 3, 4)
    x = np.concatenate([x, x[:, :2], np.full((300, 1), 7, np.float32)], 1)
    head = fit_logistic(x, y, 3, [1e-4])
    assert torch.isfinite(head.weight).all()
    assert (head.logits(torch.tensor(x)).argmax(1).numpy() == y).mean() > 0.6


def correlated(n: int, classes: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose spectrum decays, as a ViT's does; classes of shares 1, 1/2, 1/3 …"""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, classes + 1)
    y = rng.choice(classes, n, p=share / share.sum())
    latent = rng.normal(size=(n, dim)) + 0.35 * rng.normal(size=(classes, dim))[y]
    return (latent @ (rng.normal(size=(dim, dim)) / np.sqrt(np.arange(1, dim + 1))[:, None])).astype(np.float32), y


def test_the_curvature_of_each_class_saves_most_passes_over_the_rows(monkeypatch) -> None:
    x, y = correlated(10_000, 20, 64)
    hold = np.arange(len(x)) % 5 == 0
    quick = fit_logistic(x, y, 20, holdout=hold, tolerance=1e-7)
    monkeypatch.setattr(curvature, "ROOM", 0)  # as for blocks that are too large: the curvature at chance
    slow = fit_logistic(x, y, 20, holdout=hold, tolerance=1e-7)
    passes = [sum(record["iterations"] for record in head.history) for head in (quick, slow)]
    assert 2 * passes[0] < passes[1]
    assert quick.penalty == slow.penalty
    assert quick.history[-1]["train_loss"] == pytest.approx(slow.history[-1]["train_loss"], rel=1e-5)


def test_the_spectrum_is_that_of_the_products_of_all_rows_whatever_the_blocks() -> None:
    x, y = correlated(1000, 4, 24)
    rows, labels = np.arange(1000), torch.from_numpy(y)
    scaler = fit_scaler(x, rows, "cpu")
    values, vectors = curvature.spectrum(Rows(x, labels, rows, scaler, "cpu", torch.float64, 0, block=300))
    z = (x - x.mean(0, dtype=float)) / x.std(0, dtype=float)
    np.testing.assert_allclose((vectors * values) @ vectors.T, z.T @ z / 1000, atol=1e-9)


def test_a_path_of_penalties_ends_where_each_penalty_alone_does() -> None:
    x, y = correlated(3000, 6, 24)
    hold = np.arange(len(x)) % 5 == 0
    path = fit_logistic(x, y, 6, (1e-1, 1e-3, 1e-5), hold, tolerance=1e-8)
    for tried in path.history[:-1]:
        alone = fit_logistic(x[~hold], y[~hold], 6, [tried["penalty"]], tolerance=1e-8)
        assert tried["train_loss"] == pytest.approx(alone.history[-1]["train_loss"], rel=1e-5)


def test_logistic_refuses_bad_rows_and_labels() -> None:
    x, y = blobs(50, 3, 4)
    spoiled = x.copy()
    spoiled[17, 2] = np.nan
    with pytest.raises(EncoderError, match="feature row 17 holds NaN"):
        fit_logistic(spoiled, y, 3, [1e-3])
    with pytest.raises(DataError, match="label 2 is outside 0 … 1"):
        fit_logistic(x, y, 2, [1e-3])
    with pytest.raises(DataError, match="label -1 is outside 0 … 2"):
        fit_logistic(x, y - (y == 1) * 2, 3, [1e-3])
    with pytest.raises(DataError, match="no held-out training rows"):
        fit_logistic(x, y, 3)
    with pytest.raises(DataError, match="50 of 50 rows are held out"):
        fit_logistic(x, y, 3, holdout=np.ones(50, bool))


def test_the_penalties_that_are_tried_are_powers_of_ten() -> None:
    np.testing.assert_allclose(np.log10(PENALTIES), np.arange(-6, 2), atol=1e-12)


@pytest.mark.parametrize("standardize", [False, True])
def test_ridge_equals_scikit_learns_for_any_blocks(standardize: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 12)) * rng.uniform(0.1, 30, 12) + 40
    y = x @ rng.normal(size=(12, 3)) + 5 * rng.normal(size=(500, 3))
    z = (x - x.mean(0)) / x.std(0) if standardize else x
    reference = Ridge(alpha=500 * 0.03).fit(z, y).predict(z)
    for step in (7, 500):
        fit = RidgeAccumulator(12, 3)
        for i in range(0, 500, step):
            fit.add(torch.tensor(x[i : i + step]), torch.tensor(y[i : i + step]))
        ours = fit.solve([0.03], standardize).predict(torch.tensor(x)).numpy()
        np.testing.assert_allclose(ours, reference, rtol=1e-8, atol=1e-8)


def test_ridge_held_out_error_from_gram_matrices_is_the_real_one() -> None:
    rng = np.random.default_rng(0)
    x, held = rng.normal(size=(300, 6)), np.arange(300) % 3 == 0
    y = x @ rng.normal(size=(6, 1)) + rng.normal(size=(300, 1))
    fit = RidgeAccumulator(6, 1)
    fit.add(torch.tensor(x), torch.tensor(y), held)
    for record in fit.solve([1e-3, 1e-1, 10.0], standardize=False).history:
        reference = Ridge(alpha=200 * record["penalty"]).fit(x[~held], y[~held])
        gap = reference.predict(x[held]).ravel() - y[held].ravel()
        assert record["holdout_rmse"] == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-8)


def test_ridge_refuses_nan_and_missing_rows() -> None:
    fit = RidgeAccumulator(2, 1)
    with pytest.raises(DataError, match="no training rows"):
        fit.solve([1.0])
    fit.add(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(EncoderError, match="ridge row 4 holds NaN"):
        fit.add(torch.tensor([[1.0, 1.0], [float("nan"), 1.0]]), torch.ones(2, 1))


def test_sweep_finds_the_useful_source_and_a_sound_rate() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 2000, 16)).astype(np.float32)
    y = (x @ rng.normal(size=(16, 5))).argmax(1)
    held = np.arange(2000) % 5 == 0
    sources, rates = {"noise": noise, "cls": x}, [1e-5, 1e-3, 1e-1]
    head = fit_linear_sweep(sources, y, 5, held, learning_rates=rates, steps=200, batch=256)
    assert head.source == "cls" and len(head.table) == 6
    assert (head.logits(torch.tensor(x)).argmax(1).numpy() == y).mean() > 0.85


def test_sweep_is_plain_sgd_for_each_of_its_heads() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)).astype(np.float32), rng.integers(0, 3, 64)
    held = np.arange(64) < 32
    swept = fit_linear_sweep({"x": x}, y, 3, held, learning_rates=[0.1], weight_decays=[0.01], steps=5, batch=32)
    layer = torch.nn.Linear(4, 3)
    torch.nn.init.zeros_(layer.bias)
    layer.weight.data = 0.01 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    weights: list[dict[str, Any]] = [{"params": [layer.weight], "weight_decay": 0.01}, {"params": [layer.bias]}]
    optimiser = torch.optim.SGD(weights, lr=0.1 * 32 / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5)
    for _ in range(5):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(layer(torch.tensor(x[32:])), torch.tensor(y[32:])).backward()
        optimiser.step()
        schedule.step()
    torch.testing.assert_close(swept.weight, layer.weight.data)
    torch.testing.assert_close(swept.bias, layer.bias.data)


def test_sweep_records_a_diverging_head_and_goes_on() -> None:
    x, y = blobs(400, 3, 6)
    held = np.arange(400) % 4 == 0
    head = fit_linear_sweep({"x": x}, y, 3, held, learning_rates=[1e-3, 1e38], steps=60, batch=64)
    assert head.learning_rate == 1e-3 and min(r["holdout_top1"] for r in head.table) == 0


def test_ridge_of_a_block_is_that_of_its_parts_joined() -> None:
    """Rows are copied a few at a time: held-out ones and those of training are still the moments of one array."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(20_000, 3, generator=generator) + 5, torch.randn(20_000, 2, generator=generator)
    held = torch.rand(20_000, generator=generator) < 0.3
    fit = RidgeAccumulator(3, 2)
    fit.add(x, y, held)
    z = torch.cat([x.double(), y.double()], 1)
    z -= z.mean(0)
    for moments, rows in ((fit._train, ~held), (fit._held, held)):
        assert moments.n == int(rows.sum()) and torch.equal(moments.sum, z[rows].sum(0))
        assert torch.equal(moments.product, torch.zeros(5, 5).double().addmm_(z[rows].T, z[rows]))
    x[9_000, 1] = torch.nan
    with pytest.raises(EncoderError, match="ridge row 29000 holds NaN"):
        fit.add(x, y, held)
