"""The parts of the heads that can be worked out by hand or with another library: curvature, rows, bytes, files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn.linear_model import Ridge
from small import SmallEncoder

from benchmark.contracts import KeptHead
from benchmark.errors import DataError, EncoderError, UsageError
from benchmark.heads import curvature, linear_sweep
from benchmark.heads import rows as rows_module
from benchmark.heads.curvature import block_preconditioner, spectrum
from benchmark.heads.kept import encoder_facts, head_file, read_head, refuse_another
from benchmark.heads.linear_sweep import fit_linear_sweep
from benchmark.heads.logistic import fit_logistic, held_bytes
from benchmark.heads.ridge import RidgeAccumulator
from benchmark.heads.rows import FewRows, Rows, Scaler, class_indices, fit_scaler, folds_of
from benchmark.heads.schedule import batches


def labelled(n: int, width: int, classes: int, **how: Any) -> tuple[Rows, np.ndarray]:
    """Rows of drawn features far from zero, and the same standardised by numpy [n, width]."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(n, width)) * rng.uniform(0.5, 4, width) + 20).astype(np.float32)
    y = torch.from_numpy(rng.integers(0, classes, n))
    all_rows = np.arange(n)
    kept = {"keep": 0, "block": 30, **how}
    data = Rows(x, y, all_rows, fit_scaler(x, all_rows, "cpu"), "cpu", torch.float64, **kept)
    return data, (x - x.mean(0, dtype=float)) / x.std(0, dtype=float)


# --------------------------------------------------------------------------------------------------------- curvature


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("doubtful", [4096, 25])
def test_a_step_is_the_gradient_by_the_inverse_of_its_classs_block(
    inverted: bool, doubtful: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Xᵀ diag(p (1 − p)) X / n and the penalty, none on the bias; rows but the most doubtful by their mean."""
    monkeypatch.setattr(curvature, "DOUBTFUL", doubtful)
    n, width, classes, penalty = 120, 4, 3, 0.2
    data, z = labelled(n, width, classes)
    data.inverted = inverted
    draw = torch.Generator().manual_seed(0)
    parameters, *gradients = torch.randn(3, classes, width + 1, generator=draw).double()
    x = np.concatenate([z, np.ones((n, 1))], 1)
    scores = np.exp(x @ parameters.numpy().T)
    chances = scores / scores.sum(1, keepdims=True)
    found = block_preconditioner(data, parameters, penalty)(*gradients)
    for c in range(classes):
        doubt = chances[:, c] * (1 - chances[:, c])
        one = np.argsort(-doubt)[:doubtful]
        block = (x[one].T * doubt[one]) @ x[one] / n + (doubt.sum() - doubt[one].sum()) / n * (x.T @ x) / n
        block += np.diag([penalty] * width + [0])
        for gradient, step in zip(gradients, found):
            np.testing.assert_allclose(step[c], np.linalg.solve(block, gradient[c]), rtol=2e-4, atol=1e-5)


def test_directions_without_variance_have_a_floor() -> None:
    """A feature that is nowhere, without a penalty: its step is long, and finite."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    x[:, 1] = 0
    scaler = Scaler(torch.zeros(3).double(), torch.ones(3).double())
    data = Rows(x, torch.arange(50) % 2, np.arange(50), scaler, "cpu", torch.float64, 0)
    (step,) = block_preconditioner(data, torch.zeros(2, 4).double(), 0.0)(torch.ones(2, 4).double())
    largest = 0.25 * max(1.0, *(x.astype(float) ** 2).mean(0))  # of the block's diagonal, the bias's among it
    np.testing.assert_allclose(step[:, 1], 1 / (1e-6 * largest), rtol=1e-3)


def test_the_first_rows_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 30 until there are 50: 60 rows, ones last."""
    monkeypatch.setattr(curvature, "SAMPLE", 50)
    data, z = labelled(200, 4, 3)
    x, doubt = curvature._with_doubt(data, torch.zeros(3, 5).double())
    np.testing.assert_allclose(x, np.concatenate([z[:60], np.ones((60, 1))], 1), atol=1e-9)
    np.testing.assert_allclose(doubt, np.full((60, 3), 2 / 9))
    few = [(torch.ones(4, 2), None)] * 5
    assert [len(list(curvature._first(few, n))) for n in (1, 4, 5, 8, 9, 20, 99)] == [1, 1, 2, 2, 3, 5, 5]  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [5, 40])
def test_the_spectrum_of_few_rows_has_the_directions_that_occur(n: int) -> None:
    data, z = labelled(n, 8, 2)
    values, vectors = spectrum(data)
    np.testing.assert_allclose((vectors * values) @ vectors.T, z.T @ z / n, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-6)
    assert len(values) == min(n - 1, 8) and values.min() > 0


def test_blocks_are_made_where_they_fit_into_a_gibibyte() -> None:
    assert curvature.fits(256, 1023) and not curvature.fits(257, 1023) and not curvature.fits(256, 1024)
    assert curvature.block_bytes(1, 1023, 256) == 2**30 + 4 * 2 * 1024 and curvature.block_bytes(1, 1023, 257) == 0
    most = curvature.block_bytes(32_768, 9, 5)
    assert curvature.block_bytes(99_999, 9, 5) == most == 4 * (5 * 100 + 2 * 32_768 * 10)


# ---------------------------------------------------------------------------------------------------------- logistic


def test_the_bytes_of_a_fit_are_those_of_rows_logits_steps_and_blocks() -> None:
    steps = 8 * 5 * 10 * (2 * 20 + 6)  # of five classes and nine features with a bias: 20 steps, two vectors each
    logits = 12 * 16_384 * 5
    assert held_bytes(1000, 9, 5) == 4 * 1000 * 9 + logits + steps + curvature.block_bytes(1000, 9, 5)
    rows = 2**30  # of more than a gibibyte of rows none is kept
    assert held_bytes(2**26, 9, 5) == rows + logits + steps + curvature.block_bytes(2**26, 9, 5)
    wide = 12 * 4096 * 4096 + 8 * 4096 * 2 * (2 * 20 + 6)  # 2²⁴ logits at a time
    assert held_bytes(10, 1, 4096) == 40 + wide + curvature.block_bytes(10, 1, 4096)


def test_the_loss_of_a_penalty_is_the_mean_of_its_folds() -> None:
    data, z = labelled(160, 3, 2)
    folds, x, y = np.arange(160) % 2, z.astype(np.float32), data.y
    head = fit_logistic(x, y, 2, [1.0, 0.1], folds, tolerance=1e-10)
    for tried in head.history[:2]:
        alone = [
            fit_logistic(x[folds != k], y[folds != k], 2, [tried["penalty"]], tolerance=1e-10).history[-1]["train_loss"]
            for k in (0, 1)
        ]
        assert tried["train_loss"] == pytest.approx(np.mean(alone), rel=1e-5)
    refit = head.history[2]
    assert refit["refit"] == 1 and refit["penalty"] == head.penalty and len(head.history) == 3
    w, b = head.weight.double() * torch.from_numpy(x.std(0, dtype=float)), head.logits(torch.from_numpy(x))
    loss = torch.nn.functional.cross_entropy(b.double(), y) + 0.5 * head.penalty * (w**2).sum()
    assert refit["train_loss"] == pytest.approx(float(loss), rel=1e-5)


# -------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("standardize", [False, True])
def test_a_scaler_is_the_mean_and_deviation_of_its_rows_however_they_are_read(
    standardize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "READ", 7)
    x = (np.random.default_rng(0).normal(size=(90, 3)) * [1, 5, 0.1] + 40).astype(np.float32)
    x[:, 2] = 1e6  # constant: it keeps its scale
    rows = np.flatnonzero(np.arange(90) % 3 != 1)
    scaler = fit_scaler(x, rows, "cpu", standardize, block=20)
    some = x[rows].astype(float)
    mean, deviation = (some.mean(0), [*some.std(0)[:2], 1]) if standardize else (np.zeros(3), np.ones(3))
    np.testing.assert_allclose(scaler.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(1 / scaler.inverse, deviation, rtol=1e-9)
    x[rows[45], 1] = np.inf
    with pytest.raises(EncoderError, match=f"feature row {rows[45]} holds NaN or infinity"):
        fit_scaler(x, rows, "cpu", block=20)
    with pytest.raises(EncoderError, match="no training rows"):
        fit_scaler(x, rows[:0], "cpu")


def test_a_feature_that_hardly_varies_is_told_from_one_that_does_not() -> None:
    """By its share of the mean square: a millionth of the value is a deviation, less is rounding."""
    base = np.tile([1.0, -1.0], 50)[:, None]
    x = torch.from_numpy(base * [0.9e-6, 1.2e-6] + 1)
    wide: Any = type("Wide", (), {"__getitem__": lambda _, at: x[at], "shape": x.shape})()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "rows_of", lambda source, at, device: source[at])  # not cut to float32
        inverse = fit_scaler(wide, np.arange(100), "cpu").inverse
    assert inverse[0] == 1 and inverse[1] == pytest.approx(1 / 1.2e-6, rel=1e-3)


def test_few_rows_are_asked_for_by_their_numbers_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "BLOCK", 2)
    x = torch.arange(40.0).view(10, 4)
    few = FewRows(x, np.array([1, 4, 6, 7, 9]), "cpu")
    assert few[np.array([4, 9])].tolist() == x[[4, 9]].tolist() and few[np.array([1])].tolist() == x[[1]].tolist()
    assert few.values.tolist() == x[[1, 4, 6, 7, 9]].tolist()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("spare", [0, -1])
def test_rows_are_kept_where_they_fit_and_in_half_where_nothing_is_rounded(exact: bool, spare: int) -> None:
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    x = x.astype(np.float16).astype(np.float32) if exact else x
    rows, y = np.arange(0, 100, 2), torch.arange(100)
    scaler = fit_scaler(x, rows, "cpu")
    data = Rows(x, y, rows, scaler, "cpu", torch.float32, keep=50 * 3 * 4 + spare, block=16)
    kept = spare == 0
    assert len(data.narrow) == (50 if kept and exact else 0) and len(data.stored) == (4 if kept and not exact else 0)
    assert len(data) == 50
    for _ in range(2):
        blocks = [(part.clone(), labels) for part, labels in data]
        assert [len(part) for part, _ in blocks] == [16, 16, 16, 2]
        assert torch.cat([labels for _, labels in blocks]).tolist() == rows.tolist()
        z = (x[rows] - x[rows].mean(0, dtype=float)) / x[rows].std(0, dtype=float)
        np.testing.assert_allclose(torch.cat([part for part, _ in blocks]), z, atol=1e-5)


def test_labels_and_folds_that_do_not_fit_are_named() -> None:
    assert class_indices(np.array([0, 2, 1]), [3, 3], 3).tolist() == [0, 2, 1]
    with pytest.raises(DataError, match="3 labels for 4 feature rows"):
        class_indices(np.zeros(3), [3, 4], 3)
    for wrong in (-1, -2, 3, 7):
        with pytest.raises(DataError, match=f"label {wrong} is outside 0 … 2:"):
            class_indices(np.array([0, 2, wrong]), [3], 3)
    assert folds_of(np.array([True, False])).tolist() == [0, -1] and folds_of(np.array([1, 0])).tolist() == [1, 0]
    for held, said in (([False] * 3, 0), ([True] * 3, 3), ([-1, -1], 0), ([1, 1], 2)):
        with pytest.raises(DataError, match=f"{said} of {len(held)} rows are held out"):
            folds_of(np.array(held))


# ------------------------------------------------------------------------------------------------- batches and sweep


def test_batches_are_shuffled_epochs_of_sorted_rows() -> None:
    rows = np.array([3, 5, 6, 8, 11, 12, 20])
    found, rng = list(batches(rows, 3, 7, 4)), np.random.default_rng(4)
    assert [len(batch) for batch in found] == [3, 3, 1, 3, 3, 1, 3]
    for epoch in (found[:3], found[3:6], found[6:]):
        order = rng.permutation(rows)
        assert [batch.tolist() for batch in epoch] == [
            sorted(order[i : i + 3].tolist()) for i in (0, 3, 6)[: len(epoch)]
        ]
    assert list(batches(rows, 3, 0, 4)) == [] and len(list(batches(rows, 99, 2, 4))) == 2


FEATURES = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
LABELS, HELD = np.random.default_rng(1).integers(0, 3, 60), np.arange(60) % 3 == 0


def swept(**how: Any) -> Any:
    given = {"learning_rates": [0.1], "steps": 7, "batch": 16, **how}
    return fit_linear_sweep({"x": FEATURES}, LABELS, 3, HELD, **given)


def test_a_curve_has_the_mean_losses_between_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [step for step, _ in swept(steps=400).curve] == list(range(2, 401, 2))
    every = swept().curve
    monkeypatch.setattr(linear_sweep, "_CURVE_POINTS", 3)
    assert [step for step, _ in every] == [1, 2, 3, 4, 5, 6, 7]
    assert swept().curve == [(k, pytest.approx((every[k - 2][1] + every[k - 1][1]) / 2)) for k in (2, 4, 6)]


def test_of_two_rates_that_hit_as_often_the_lower_is_taken() -> None:
    head = swept(learning_rates=[1e-9, 2e-10], weight_decays=(0.0, 0.1))
    assert (head.learning_rate, head.weight_decay) == (2e-10, 0.0)
    assert [row["learning_rate"] for row in head.table] == [2e-10, 2e-10, 1e-9, 1e-9]
    guess = head.logits(torch.from_numpy(FEATURES[HELD])).argmax(1).numpy()
    right = 100 * np.mean(guess == LABELS[HELD])
    assert [row["holdout_top1"] for row in head.table] == pytest.approx([right] * 4)


def test_a_sweep_of_what_does_not_fit_is_refused() -> None:
    x, held = np.zeros((4, 2), np.float32), np.array([True, False, True, False])
    how: dict[str, Any] = {"learning_rates": [0.1], "steps": 1}
    with pytest.raises(DataError, match="no feature source"):
        fit_linear_sweep({}, np.zeros(4, int), 2, held, **how)
    for labels, marks in ((np.zeros(3, int), held), (np.zeros(4, int), held[:3])):
        with pytest.raises(DataError, match=f"x: 4 feature rows, {len(labels)} labels, {len(marks)} held-out marks"):
            fit_linear_sweep({"x": x}, labels, 2, marks, **how)
    for marks in (np.zeros(4, bool), np.ones(4, bool)):
        with pytest.raises(DataError, match=f"{marks.sum()} of 4 rows are held out"):
            fit_linear_sweep({"x": x}, np.zeros(4, int), 2, marks, **how)
    for wrong in (2, -1):
        with pytest.raises(DataError, match=f"labels {min(wrong, 0)} … {max(wrong, 1)} do not fit 2 classes"):
            fit_linear_sweep({"x": x}, np.array([0, 1, wrong, 1]), 2, held, **how)


# ------------------------------------------------------------------------------------------------------------- ridge


def test_errors_of_several_outputs_count_by_their_variance() -> None:
    rng = np.random.default_rng(0)
    x, held = rng.normal(size=(300, 5)), np.arange(300) % 3 == 0
    y = x @ rng.normal(size=(5, 2)) * [1, 100] + rng.normal(size=(300, 2)) * [1, 50]
    fit = RidgeAccumulator(5, 2)
    fit.add(torch.from_numpy(x), torch.from_numpy(y), held)
    found = fit.solve([10.0, 1e-2, 0.3], standardize=False)
    for record in found.history:
        gap = Ridge(alpha=200 * record["penalty"]).fit(x[~held], y[~held]).predict(x[held]) - y[held]
        assert record["holdout_error"] == pytest.approx(((gap**2).mean(0) / y[~held].var(0)).sum(), rel=1e-8)
        assert record["holdout_rmse"] == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-8)
    assert found.penalty == min(found.history, key=lambda record: record["holdout_error"])["penalty"]
    plain = Ridge(alpha=300 * found.penalty).fit(x, y)
    np.testing.assert_allclose(found.predict(torch.from_numpy(x)), plain.predict(x), atol=1e-8)


def test_ridge_takes_one_output_and_names_rows_that_do_not_fit() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    flat, column = RidgeAccumulator(3, 1), RidgeAccumulator(3, 1)
    flat.add(x, x[:, 0])
    column.add(x, x[:, :1])
    flat.add(x[:0], x[:0, 0])
    assert torch.equal(flat.solve([0.1]).weight, column.solve([0.1]).weight)
    with pytest.raises(DataError, match=r"rows are \(20, 3\) and \(20, 2\), expected \[b, 3\], \[b, 1\]"):
        flat.add(x, x[:, :2])
    with pytest.raises(DataError, match="2 penalties but no held-out"):
        flat.solve([0.1, 1.0])
    with pytest.raises(EncoderError, match="ridge row 22 holds NaN"):
        flat.add(x[:4], torch.tensor([0.0, 1.0, torch.nan, torch.inf]))


# -------------------------------------------------------------------------------------------------------- kept heads


def test_what_a_head_is_good_for_has_its_keys_in_order() -> None:
    facts = encoder_facts(SmallEncoder())
    names = list(json.loads(facts["transform"]))
    assert names == sorted(names) and len(names) > 3
    assert facts.keys() == {"weights", "transform", "family", "backend", "code", "options"}


def test_a_head_comes_back_in_single_precision_with_all_that_it_says(tmp_path: Path) -> None:
    arrays = {"weight": torch.randn(2, 3).double(), "bias": torch.zeros(2), "steps": torch.tensor([7])}
    content = head_file(KeptHead("labels", arrays, {"names": ["é"]}), SmallEncoder(), {"model": "m"})
    (tmp_path / "head").write_bytes(content)
    head, meta = read_head(tmp_path / "head")
    assert head.kind == "labels" and head.use == {"names": ["é"]} and meta["format"] == "densebench head 2"
    assert [head.arrays[name].dtype for name in arrays] == [torch.float32, torch.float32, torch.int64]
    assert torch.equal(head.arrays["weight"], arrays["weight"].float())
    other = SmallEncoder(image_size=64)
    refuse_another(Path("x"), meta, SmallEncoder())
    with pytest.raises(UsageError, match="x: was trained on m, whose transform are"):
        refuse_another(Path("x"), meta, other)
    weights: Any = SimpleNamespace(card=SmallEncoder(width=7).card, transform=SmallEncoder().transform)
    with pytest.raises(UsageError) as said:
        refuse_another(Path("x"), meta, weights)
    assert f"are {meta['weights'][:12]}; those" in str(said.value)


def test_heads_of_the_first_format_are_read(tmp_path: Path) -> None:
    weight, bias = torch.ones(2, 3), torch.zeros(2)
    digest = hashlib.sha256(weight.numpy().tobytes() + bias.numpy().tobytes()).hexdigest()
    for sha256, sound in ((digest, True), (digest[::-1], False)):
        meta = {"format": "densebench head 1", "kind": "depth", "use": "{}", "sha256": sha256}
        (tmp_path / "head").write_bytes(save({"weight": weight, "bias": bias}, meta))
        if sound:
            assert read_head(tmp_path / "head")[0].kind == "depth"
        else:
            with pytest.raises(DataError, match="does not agree with its checksum"):
                read_head(tmp_path / "head")
