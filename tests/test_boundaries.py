"""What lies exactly on a limit, and the one sign, number or name that no other test would miss.

Each of these was once changed in the code without any test noticing; `tests/mutants.py` looks for more.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from benchmark.compare.compare import UnitComparison, verdict
from benchmark.compare.published import PublishedGap
from benchmark.errors import DataError, EncoderError
from benchmark.heads import logistic
from benchmark.heads.logistic import ABSENT, fit_logistic
from benchmark.heads.rows import Scaler
from benchmark.metrics import geometry
from benchmark.metrics.classification import blind_hits, label_ranks
from benchmark.metrics.geometry import depth_errors, normal_errors, scale_and_shift
from benchmark.metrics.positives import chance_precision, chance_recall
from benchmark.metrics.retrieval import recall_hits
from benchmark.metrics.segmentation import blind_areas
from benchmark.statistics.bootstrap import expanded_tails, interval
from benchmark.statistics.draws import bootstrap_counts, swaps
from benchmark.statistics.multiple import holm, minimum_detectable_effect
from benchmark.statistics.paired import mcnemar, paired
from benchmark.statistics.statistic import Statistic

MEAN = Statistic("mean", ("a",))


# ----------------------------------------------------------------------------------------------------------- metrics


def test_a_prediction_of_zero_is_90_degrees_from_everything() -> None:
    target = np.tile([0.0, 0.0, 1.0], (2, 2, 1))
    row = normal_errors(np.zeros((2, 2, 3)), target)
    assert (row["mean_angle"], row["median_angle"], row["n"]) == (90.0, 90.0, 4.0)
    assert (row["hits_11"], row["hits_22"], row["hits_30"]) == (0, 0, 0)
    both = normal_errors(np.zeros((2, 2, 3)), np.zeros((2, 2, 3)), zeros_count=True)
    assert (both["mean_angle"], both["n"]) == (90.0, 4.0)


def test_an_angle_on_a_threshold_is_no_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = torch.tensor([11.25, 22.5, 30.0, 180.0]).double()
    monkeypatch.setattr(geometry, "angular_errors", lambda a, b: angles)
    row = normal_errors(np.ones((1, 4, 3)), np.ones((1, 4, 3)))
    assert (row["hits_11"], row["hits_22"], row["hits_30"]) == (0, 1, 2)
    counts = np.asarray(row["angles"])
    assert counts.sum() == 4 and counts[1799] == 1 and len(counts) == 1800
    assert row["sum_angle"] == angles.sum() and row["sum_sq_angle"] == (angles**2).sum()


def test_a_ratio_on_a_threshold_and_a_depth_on_a_limit_do_not_count() -> None:
    target = np.array([[4.0, 4.0, 16.0, 64.0]])
    pred = np.array([[5.0, 3.2, 25.0, 125.0]])  # 1.25, 1.25 (from below), 1.25², 1.25³
    row = depth_errors(pred, target)
    assert (row["d1_hits"], row["d2_hits"], row["d3_hits"], row["d1"]) == (0, 2, 3, 0.0)
    assert depth_errors(pred, target, min_depth=4.0, max_depth=64.0)["n"] == 1
    assert depth_errors(pred, target, min_depth=3.9, max_depth=64.1)["n"] == 4
    low = depth_errors(np.array([[0.0, 9.0]]), np.array([[2.0, 2.0]]), 1.0, 4.0, clamp=True)
    assert low["sse"] == 1.0 + 4.0 and low["abs_rel_sum"] == pytest.approx(0.5 + 1.0)
    empty = depth_errors(np.ones((1, 1)), np.zeros((1, 1)))
    assert all(math.isnan(empty[name]) for name in ("rmse", "abs_rel", "d1")) and empty["n"] == 0


def test_scale_and_shift_of_a_constant_only_shifts_and_leaves_out_the_limits() -> None:
    target = np.array([[1.0, 3.0, 10.0, np.inf, 0.5]])
    assert scale_and_shift(np.full((1, 5), 7.0), target, 0.5, 10.0).tolist() == [[2.0] * 5]
    aligned = scale_and_shift(np.array([[2.0, 8.0, 9.0, 9.0, 9.0]]), target, 0.5, 10.0)
    assert aligned[0, :3] == pytest.approx([1.0, 3.0, 1 + 7 / 3])
    untouched = np.array([[2.0]])
    assert scale_and_shift(untouched, np.array([[0.0]]), 0.5, 10.0) is untouched


def test_rank_k_is_not_among_the_k_best() -> None:
    assert recall_hits(np.array([0, 1, 4, 5]), 1).tolist() == [1, 0, 0, 0]
    assert recall_hits(np.array([0, 1, 4, 5]), 5).tolist() == [1, 1, 1, 0]
    ranks = label_ranks(torch.tensor([[3.0, 2.0, 1.0]]).repeat(3, 1), np.array([0, 1, 2]))
    assert [recall_hits(ranks, k).tolist() for k in (1, 2)] == [[1, 0, 0], [1, 1, 0]]


def test_refused_scores_and_labels_are_named() -> None:
    scores = torch.zeros(4, 3)
    scores[1, 2] = scores[3, 0] = torch.nan
    with pytest.raises(EncoderError, match="scores of sample 1 hold NaN"):
        label_ranks(scores, np.zeros(4, int))
    for label in (3, 4, -1):
        with pytest.raises(DataError, match=f"label {label} is outside 0 … 2:"):
            label_ranks(torch.zeros(2, 3), np.array([0, label]))
    with pytest.raises(DataError, match="label 3 is outside 0 … 2:"):
        label_ranks(torch.zeros(7, 3), np.array([0, 1, 2, 3, 2, 1, 0]))  # more pictures than classes, and fewer
    assert label_ranks(torch.eye(5)[[4, 0]], np.array([4, 4])).tolist() == [0, 4]
    assert label_ranks(torch.eye(3), np.arange(3)).tolist() == [0, 0, 0]


def test_hits_of_answers_that_see_nothing() -> None:
    labels = np.array([2, 2, 0, 1, 2, 0])
    evenly, common = blind_hits(labels, 4)
    assert evenly.tolist() == [0.25] * 6 and common.tolist() == [1, 1, 0, 0, 1, 0]
    evenly, common = blind_hits(labels, 4, 2)
    assert evenly.tolist() == [0.5] * 6 and common.tolist() == [1, 1, 1, 0, 1, 1]
    assert blind_hits(labels, 4, 9)[0].tolist() == [1.0] * 6


def test_answers_that_see_nothing_have_the_areas_that_they_would_have() -> None:
    """Of 4 and 12 labelled pixels: a third of each class is right by chance, and all of the most frequent one."""
    evenly, most = blind_areas(np.array([[3, 1, 0], [2, 0, 10]]))
    np.testing.assert_allclose(evenly["intersection"], [[1, 1 / 3, 0], [2 / 3, 0, 10 / 3]])
    np.testing.assert_allclose(
        evenly["union"], [[3 + 4 / 3 - 1, 1 + 4 / 3 - 1 / 3, 4 / 3], [2 + 4 - 2 / 3, 4, 14 - 10 / 3]]
    )
    np.testing.assert_allclose(evenly["correct"], [4 / 3, 4])
    assert most["intersection"].tolist() == [[0, 0, 0], [0, 0, 10]] and most["correct"].tolist() == [0, 10]
    assert most["union"].tolist() == [[3, 1, 4], [2, 0, 12]]


def test_chance_is_what_a_random_order_gives() -> None:
    counts, items = np.array([1, 2, 3, 0]), np.array([10, 7, 3, 5])
    for k in (1, 2, 3):
        none = [math.comb(n - c, k) / math.comb(n, k) for c, n in zip(counts.tolist(), items.tolist())]
        assert chance_recall(counts, items, k) == pytest.approx([1 - p for p in none])
    orders = [[place for place, item in enumerate(order, 1) if item < 2] for order in itertools.permutations(range(5))]
    precision = np.mean([(1 / first + 2 / second) / 2 for first, second in orders])
    found = chance_precision(np.array([2, 0, 1]), np.array([5, 5, 1]))
    assert found[0] == pytest.approx(precision) and np.isnan(found[1]) and found[2] == 1.0


# -------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 9), (9, 3), (0, 1), (0, 5), (1, 2)])
def test_mid_p_is_the_exact_p_less_the_probability_of_what_was_seen(only_a: int, only_b: int) -> None:
    a = np.array([1] * only_a + [0] * only_b + [1, 0])
    b = np.array([0] * only_a + [1] * only_b + [1, 0])
    law, least = scipy_stats.binom(only_a + only_b, 0.5), min(only_a, only_b)
    assert mcnemar(a, b) == pytest.approx(2 * law.cdf(least) - law.pmf(least))
    assert mcnemar(a, b) < mcnemar(a, b, mid_p=False)


def test_as_many_of_either_is_no_difference() -> None:
    assert mcnemar(np.array([1, 0]), np.array([0, 1])) == 1.0 and mcnemar(np.ones(3), np.ones(3)) == 1.0


def test_hits_that_belong_together_are_not_counted_one_by_one() -> None:
    """Five captions of each picture: McNemar would take them for five independent ones."""
    owner, better = np.repeat(np.arange(12), 5), np.repeat(np.arange(12) % 3 == 0, 5)
    a = {"a": np.zeros(60), "image": owner}
    b = {"a": better.astype(float), "image": owner}
    together = paired(a, b, Statistic("mean", ("a",), cluster="image"))
    assert together.method == "paired randomisation" and together.units == 12
    alone = paired(a, b, MEAN)
    assert alone.method == "McNemar mid-p" and alone.units == 60 and alone.p < 1e-4 < 0.05 < together.p


def test_tails_are_widened_as_student_says() -> None:
    for n, level in ((2, 0.95), (10, 0.95), (10, 0.9), (1000, 0.95)):
        reach = math.sqrt(n / (n - 1)) * scipy_stats.t.ppf((1 + level) / 2, n - 1)
        low = scipy_stats.norm.cdf(-reach)
        assert expanded_tails(level, n) == pytest.approx([low, 1 - low], rel=1e-9)
    assert expanded_tails(0.95, 1).tolist() == [0.0, 1.0]
    values = {"a": np.arange(10.0)}
    low, high = interval(values, MEAN)
    assert low < 4.5 - 1.96 * np.std(values["a"]) / math.sqrt(10) and high > 4.5 + 1.96 * np.std(
        values["a"]
    ) / math.sqrt(10)


def test_a_quantile_lies_inside_its_bin() -> None:
    median = Statistic("quantile", ("bins",), width=0.5)
    assert median.of({"bins": [[0, 1, 3, 0]]}) == pytest.approx(
        (2 + 1 / 3) * 0.5
    )  # the second of four is 1/3 into its bin
    assert median.of({"bins": [[4, 0]]}) == pytest.approx(0.25) and math.isnan(median.of({"bins": [[0, 0]]}))
    assert Statistic("quantile", ("bins",), level=1.0).of({"bins": [[2, 2]]}) == 2.0
    lists = np.empty(2, object)
    lists[:] = [np.array([4.0, 0.0]), np.array([0.0, 4.0])]
    assert median.of({"bins": lists}) == pytest.approx(0.5)
    assert Statistic("ratio", ("a", "b")).of({"a": [1.0, 3.0], "b": [4.0, 4.0]}) == 0.5
    assert Statistic("root_ratio", ("a", "b"), 10.0).of({"a": [1.0, 1.0], "b": [4.0, 4.0]}) == 5.0


def test_draws_are_n_of_n_and_swaps_are_fair() -> None:
    (counts,) = bootstrap_counts(5, 300, 0)
    assert (counts.sum(1) == 5).all() and abs(counts.mean(0) - 1).max() < 0.15
    (chosen,) = swaps(70, 300, 0)
    assert chosen.shape == (300, 70) and set(np.unique(chosen)) == {0.0, 1.0} and abs(chosen.mean() - 0.5) < 0.02
    blocks = list(bootstrap_counts(1 << 20, 17, 0))
    assert [len(b) for b in blocks] == [8, 8, 1]
    assert not np.array_equal(counts, next(bootstrap_counts(5, 300, 1)))


def test_draws_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [next(iter(draw(70, 5, 3))) for draw in (bootstrap_counts, swaps)]
    words = np.random.PCG64(np.random.SeedSequence(3, spawn_key=(0xD15E, 2))).random_raw(10)  # two words of 64 for 70
    bits = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(5, 16), axis=1, bitorder="little")[:, :70]
    assert np.array_equal(whole[1], bits)
    monkeypatch.setattr("benchmark.statistics.draws.BLOCK_BYTES", 8 * 70 + 1)
    for drawn, draw in zip(whole, (bootstrap_counts, swaps)):
        parts = list(draw(70, 5, 3))
        assert [len(part) for part in parts] == [1] * 5 and np.array_equal(np.concatenate(parts), drawn)


def test_a_table_that_has_one_test_is_not_adjusted() -> None:
    assert holm([0.03]).tolist() == [0.03] and holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert minimum_detectable_effect(1.0, tests=0) == minimum_detectable_effect(1.0)
    assert minimum_detectable_effect(1.0, level=0.1, power=0.5) == pytest.approx(scipy_stats.norm.ppf(0.95))


# ----------------------------------------------------------------------------------------------------------- compare


def unit(**changes: object) -> UnitComparison:
    facts = {
        "unit": "depth/scenes", "protocol": "fast-1", "metric": "top-1", "metric_unit": "%", "higher_is_better": True,
        "n": 100, "independent": 100, "a": 50.0, "b": 55.0, "delta": 5.0, "ci95": (3.0, 7.0), "p": 0.01,
        "p_adjusted": 0.01, "method": "", "error": 1.0, "mde": 2.8, "tolerance": 0.0, "verdict": "no difference",
    }  # fmt: skip
    return UnitComparison(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "p", "said"),
    [
        ({}, 0.0499, "better"),
        ({"higher_is_better": False}, 0.0499, "worse"),
        ({"delta": -5.0, "ci95": (-7.0, -3.0)}, 0.0499, "worse"),
        ({"delta": -5.0, "ci95": (-7.0, -3.0), "higher_is_better": False}, 0.0499, "better"),
        ({}, 0.05, "undecided"),  # not significant, and the interval leaves 0 out
        ({"tolerance": 5.0}, 0.01, "no difference"),
        ({"tolerance": 4.99}, 0.01, "better"),
        ({"tolerance": 7.0}, 0.5, "no difference"),
        ({"tolerance": 6.99}, 0.5, "undecided"),
        ({"delta": 0.0, "ci95": (-2.0, 2.0)}, 0.5, "no difference"),
        ({"delta": 0.0, "ci95": (-2.01, 2.0)}, 0.5, "undecided"),
        ({"delta": 1.0, "ci95": (0.0, 2.0)}, 0.5, "no difference"),
        ({"delta": 1.0, "ci95": (0.01, 2.0)}, 0.5, "undecided"),
        ({"delta": -1.0, "ci95": (-2.0, 0.0)}, 0.5, "no difference"),
        ({"metric_unit": "m", "a": 2.0, "delta": 0.0, "ci95": (-0.1, 0.1)}, 0.5, "no difference"),  # 5 % of A
        ({"metric_unit": "m", "a": -2.0, "delta": 0.0, "ci95": (-0.1, 0.11)}, 0.5, "undecided"),
        ({"independent": 10}, 0.01, "better"),
        ({"independent": 9}, 0.01, "too little data"),
        ({}, math.nan, "too little data"),
    ],
)
def test_verdicts_on_their_limits(changes: dict, p: float, said: str) -> None:
    assert verdict(unit(**changes), p) == said


def test_a_published_number_on_the_end_of_an_interval_is_inside() -> None:
    def gap(published: float, partial: bool = False, stale: str = "") -> bool:
        return PublishedGap("u", "m", "%", 5.0, (4.0, 6.0), published, "", "", 10, partial, stale).inside

    assert gap(4.0) and gap(6.0) and not gap(3.99) and not gap(6.01)
    assert not gap(5.0, partial=True) and not gap(5.0, stale="old")


# ------------------------------------------------------------------------------------------------------------- heads


def test_a_class_without_rows_lies_far_below_every_other() -> None:
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    head = fit_logistic(x, (x[:, 0] > 0).long() * 2, 3, [0.1])
    assert head.bias[1] == ABSENT <= -1000 and not head.weight[1].any()
    assert head.logits(1000 * x)[:, 1].max() < head.logits(1000 * x)[:, [0, 2]].max(1).values.min()


@pytest.mark.parametrize(
    ("losses", "accuracy", "tried", "best"),
    [
        ([1.0, 1.1, 0.5, 0.6, 0.7, 0.1], [0.0] * 6, 5, 2),  # one that is worse does not end it, two in a row do
        ([0.5, 0.6, 0.7, 0.1, 0.1, 0.1], [0.0] * 6, 3, 0),
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [50.0] * 6, 6, 5),
        ([0.9, 0.8, 0.7, 0.8, 0.9, 0.4], [50.0, 60.0, 50.0, 50.0, 50.0, 70.0], 5, 1),  # the loss still fell once
        ([0.5, 0.5, 0.5, 0.1, 0.1, 0.1], [50.0] * 6, 3, 0),  # equal is no better: the stronger penalty stays
    ],
)
def test_the_path_of_penalties_ends_after_two_that_improve_nothing(
    losses: list, accuracy: list, tried: int, best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(zip(losses, accuracy))

    def judge(folds: object) -> dict[str, float]:
        loss, hits = next(left)
        return {"loss": loss, "accuracy": hits, "mIoU": 0.0}

    monkeypatch.setattr(logistic, "_judge", judge)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    penalties = [10.0, 1.0, 0.1, 0.01, 0.001, 0.0001]
    held = np.arange(40) % 4 == 0
    head = fit_logistic(x, (x[:, 0] > 0).long(), 2, penalties[::-1], held, criterion="accuracy")
    assert [record["penalty"] for record in head.history[:-1]] == penalties[:tried]
    assert head.penalty == pytest.approx(penalties[best] * 30 / 40)


@pytest.mark.parametrize(("folds", "rows"), [(1, 20), (2, 10)])
def test_a_choice_among_several_folds_takes_half_the_rows(
    folds: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    made = logistic._Fold.__init__

    def watched(self: Any, make: Any, train: np.ndarray, held: np.ndarray) -> None:
        sizes.append(len(train) + len(held))
        made(self, make, train, held)

    monkeypatch.setattr(logistic._Fold, "__init__", watched)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    held = np.where(np.arange(40) % 4 < folds, np.arange(40) % 4, -1)
    fit_logistic(x, (x[:, 0] > 0).long(), 2, [1.0, 0.1], held, selection_rows=20)
    assert sizes == [rows] * folds


def test_a_scaler_is_undone_exactly() -> None:
    scaler = Scaler(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 4.0]).double())
    weight, bias = scaler.fold(torch.tensor([[3.0, 1.0]]).double(), torch.tensor([7.0]).double())
    x = torch.tensor([[2.0, 5.0]]).double()
    assert float(x @ weight.T + bias) == pytest.approx(3 * (2 - 1) * 0.5 + 1 * (5 + 2) * 4 + 7)


# ------------------------------------------------------------------------------------------------------------- tasks
