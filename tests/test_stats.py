"""Intervals cover, paired tests hold their level, and both agree with scipy and statsmodels on small cases."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from benchmark.errors import UsageError
from benchmark.statistics.bootstrap import bootstrap_distribution, expanded_tails, interval
from benchmark.statistics.draws import bootstrap_counts
from benchmark.statistics.jackknife import influence, paired_error
from benchmark.statistics.multiple import holm, minimum_detectable_effect
from benchmark.statistics.paired import mcnemar, paired
from benchmark.statistics.statistic import Statistic, parse_statistic

MEAN = Statistic("mean", ("a",))
RATIO = Statistic("ratio", ("a", "b"))
MIOU = Statistic("miou", ("intersection", "union"), scale=100.0)
CLASS_IOU = np.linspace(0.3, 0.9, 8)
FREQUENCY = np.linspace(0.1, 0.9, 8)
PINNED = [29.000000000000004, 18.0, 19.0, 14.0]  # sums of the first four resamples of 0 … 6


def mean_table(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"a": rng.normal(1.0, 2.0, 80)}


def ratio_table(rng: np.random.Generator) -> dict[str, np.ndarray]:
    n = rng.integers(1, 50, 120).astype(float)
    return {"a": n * rng.gamma(2, 0.5, 120), "b": n}


def miou_table(rng: np.random.Generator, images: int = 150, models: int = 1) -> list[dict[str, np.ndarray]]:
    """Models that share what is easy and hard about each image, and differ by chance alone."""
    union = rng.integers(0, 400, (images, 8)) * (rng.random((images, 8)) < FREQUENCY)
    ease = CLASS_IOU + rng.normal(0, 0.05, (images, 8))
    draws = [np.clip(ease + rng.normal(0, 0.08, ease.shape), 0, 1) for _ in range(models)]
    return [{"intersection": np.round(union * d), "union": union.astype(float)} for d in draws]


def seeds(n: int) -> list[np.random.Generator]:
    return [np.random.default_rng([77, i]) for i in range(n)]


@pytest.mark.parametrize(("name", "statistic"), [("mean", MEAN), ("ratio", RATIO), ("miou", MIOU)])
def test_intervals_cover_a_known_truth_95_times_in_100(name: str, statistic: Statistic) -> None:
    make = {"mean": mean_table, "ratio": ratio_table, "miou": lambda rng: miou_table(rng)[0]}[name]
    truth = 1.0 if name != "miou" else MIOU.of(miou_table(np.random.default_rng(0), 200_000)[0])
    bounds = np.array([interval(make(rng), statistic, 600, seed=i) for i, rng in enumerate(seeds(1000))])
    coverage = np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1]))
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize("name", ["miou", "hits", "rmse"])
def test_two_models_without_a_true_difference_are_told_apart_5_times_in_100(name: str) -> None:
    def pair(rng: np.random.Generator) -> tuple[list[dict[str, np.ndarray]], Statistic]:
        if name == "miou":
            return miou_table(rng, models=2), MIOU
        if name == "hits":
            chance = rng.random(200)
            return [{"a": (rng.random(200) < chance).astype(float)} for _ in "ab"], MEAN
        n, hard = rng.integers(1, 100, 80).astype(float), rng.gamma(2, 1, 80)
        return [{"a": n * hard * rng.gamma(5, 0.2, 80), "b": n} for _ in "ab"], Statistic("root_ratio", ("a", "b"))

    rejected = 0
    for i, rng in enumerate(seeds(200)):
        (a, b), statistic = pair(rng)
        rejected += paired(a, b, statistic, 400, seed=i).p <= 0.05
    assert rejected / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_a_real_difference_is_found_with_its_sign() -> None:
    a = miou_table(np.random.default_rng(1))[0]
    b = {**a, "intersection": np.round(a["intersection"] * 0.97)}
    result = paired(a, b, MIOU)
    assert result.delta < 0 and result.ci95[1] < 0 and result.p < 0.01
    assert result.delta == pytest.approx(MIOU.of(b) - MIOU.of(a))
    assert 0 < minimum_detectable_effect(result.error) < abs(result.delta)


def test_a_model_does_not_differ_from_itself() -> None:
    a = miou_table(np.random.default_rng(1))[0]
    result = paired(a, a, MIOU)
    assert (result.delta, result.ci95, result.p) == (0.0, (0.0, 0.0), 1.0)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_interval_is_scipys_on_the_same_resamples(method: str) -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(1, 9, 25).astype(float)
    table = {"a": n * rng.random(25), "b": n}
    values = bootstrap_distribution(table, RATIO, 999, seed=3)
    low, high = expanded_tails(0.95, 25)
    assert low + high == pytest.approx(1)
    reference = scipy_stats.bootstrap(
        (table["a"], table["b"]), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, n_resamples=0,
        confidence_level=high - low, method={"bca": "BCa"}.get(method, method),
        bootstrap_result=SimpleNamespace(bootstrap_distribution=values), vectorized=True,
    ).confidence_interval  # fmt: skip
    ours = interval(table, RATIO, 999, seed=3, method=method)  # type: ignore[arg-type]
    assert ours == pytest.approx((reference.low, reference.high), rel=1e-12)


def test_bootstrap_standard_error_is_the_textbook_one() -> None:
    a = np.random.default_rng(0).normal(size=400)
    spread = bootstrap_distribution({"a": a}, MEAN, 5000).std()
    assert spread == pytest.approx(a.std() / np.sqrt(400), rel=0.04)


def test_draws_of_a_seed_are_pinned() -> None:
    values = bootstrap_distribution({"a": np.arange(7.0)}, MEAN, 4, seed=0) * 7
    assert values.tolist() == PINNED


def test_clusters_are_resampled_together() -> None:
    rng = np.random.default_rng(0)
    scene = np.repeat(np.arange(60), 10)
    table = {"a": rng.normal(size=60)[scene] + 0.01 * rng.normal(size=600), "scene": scene}
    plain = np.diff(interval(table, MEAN))[0]
    together = np.diff(interval(table, Statistic("mean", ("a",), cluster="scene")))[0]
    assert together == pytest.approx(np.sqrt(10) * plain, rel=0.15)


def test_undefined_and_constant_metrics_have_undefined_and_point_intervals() -> None:
    assert np.isnan(interval({"a": np.full(5, np.nan)}, MEAN)).all()
    assert interval({"a": np.ones(5)}, MEAN) == (1.0, 1.0)
    assert np.isnan(paired({"a": np.full(5, np.nan)}, {"a": np.ones(5)}, MEAN).p)


HITS = Statistic("mean", ("a",), scale=100.0)


@pytest.mark.parametrize("hit", [0.0, 1.0])
@pytest.mark.parametrize("n", [12, 500])
def test_two_models_that_hit_everything_or_nothing_may_still_differ(n: int, hit: float) -> None:
    table = {"a": np.full(n, hit), "cluster": np.arange(n) // 2}
    share = 100 * scipy_stats.binomtest(0, n).proportion_ci(method="exact").high
    found = paired(table, table, HITS)
    assert found.ci95 == pytest.approx((-share, share)) and (found.delta, found.p) == (0.0, 1.0)
    assert minimum_detectable_effect(found.error) > share
    pairs = paired(table, table, Statistic("mean", ("a",), scale=100.0, cluster="cluster"))
    assert pairs.ci95[1] > share, "half as many clusters as samples rule out less"


@pytest.mark.parametrize("n", [1, 12, 500])
def test_no_hit_and_every_hit_have_the_exact_interval_of_a_share(n: int) -> None:
    exact = scipy_stats.binomtest(0, n).proportion_ci(method="exact")
    assert interval({"a": np.zeros(n)}, HITS) == pytest.approx((0.0, 100 * exact.high))
    assert interval({"a": np.ones(n)}, HITS) == pytest.approx((100 - 100 * exact.high, 100.0))


def test_no_hit_of_clusters_or_groups_counts_what_is_independent() -> None:
    hits, twelve = np.zeros(60), scipy_stats.binomtest(0, 12).proportion_ci(method="exact").high
    clustered = Statistic("mean", ("a",), scale=100.0, cluster="image")
    assert interval({"a": hits, "image": np.arange(60) % 12}, clustered)[1] == pytest.approx(100 * twelve)
    grouped = Statistic("group_mean", ("a",), scale=100.0, group="domain")
    even = interval({"a": hits, "domain": np.arange(60) % 3}, grouped)[1]
    uneven = interval({"a": hits, "domain": np.minimum(np.arange(60) // 5, 2)}, grouped)[1]
    assert even == pytest.approx(interval({"a": hits}, HITS)[1])
    assert uneven == pytest.approx(100 - 100 * 0.025 ** (0.42 / 9))  # 1/5 + 1/5 + 1/50 = 0.42
    assert interval({"a": np.zeros(9)}, MEAN) == (0.0, 0.0)  # an error of 0 m is no share


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 9), (10, 10), (1, 30), (0, 5)])
def test_exact_mcnemar_is_statsmodels(only_a: int, only_b: int) -> None:
    a = np.array([1] * only_a + [0] * only_b + [1] * 20 + [0] * 7)
    b = np.array([0] * only_a + [1] * only_b + [1] * 20 + [0] * 7)
    reference = statsmodels_mcnemar([[20, only_a], [only_b, 7]], exact=True).pvalue
    assert mcnemar(a, b, mid_p=False) == pytest.approx(reference, rel=1e-12)
    assert mcnemar(a, b) <= reference + 1e-12
    assert paired({"a": a}, {"a": b}, MEAN, 50).method.startswith("McNemar")


def test_holm_is_statsmodels_and_leaves_nan_out() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    with_gap = holm([0.01, np.nan, 0.04])
    assert with_gap[0] == 0.02 and np.isnan(with_gap[1]) and with_gap[2] == 0.04
    assert holm([]).tolist() == []


def test_minimum_detectable_effect_is_2_8_standard_errors_and_more_in_a_table() -> None:
    assert minimum_detectable_effect(3.0) == pytest.approx(2.8016 * 3, rel=1e-4)
    assert minimum_detectable_effect(3.0, tests=9) == pytest.approx((2.7729 + 0.8416) * 3, rel=1e-3)  # z(1 - 0.05/18)


def test_the_minimum_detectable_effect_of_nine_tests_is_found_four_times_out_of_five() -> None:
    """By Holm's first step, which a lone difference among nine must pass; without `tests=9` it is found by half."""
    n, found = 100, 0
    true = minimum_detectable_effect(1 / np.sqrt(n), tests=9)
    for i, rng in enumerate(seeds(200)):
        a = rng.normal(0, 3, n)
        found += 9 * paired({"a": a}, {"a": a + rng.normal(true, 1, n)}, MEAN, 1000, seed=i).p < 0.05
    assert 0.7 <= found / 200 <= 0.9


def test_tables_of_other_samples_are_refused() -> None:
    with pytest.raises(UsageError, match="3 and 2 hits: a paired test needs the same samples"):
        mcnemar(np.ones(3), np.ones(2))
    with pytest.raises(UsageError, match="tables of 3 and 4 samples cannot be paired"):
        paired({"a": np.ones(3)}, {"a": np.ones(4)}, MEAN)
    grouped = Statistic("mean", ("a",), cluster="scene")
    with pytest.raises(UsageError, match="column 'scene' differs"):
        paired({"a": np.ones(2), "scene": [0, 1]}, {"a": np.ones(2), "scene": [0, 2]}, grouped)
    with pytest.raises(UsageError, match="clustered by column 'scene'"):
        interval({"a": np.ones(2)}, grouped)


def test_the_counts_of_a_resample_take_little_more_memory_than_they_are():
    first = next(bootstrap_counts(2000, 2000, 0))
    tracemalloc.start()
    block = next(bootstrap_counts(2000, 2000, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(block, first) and (block.sum(1) == 2000).all()
    assert peak < 1.3 * block.nbytes  # 4.5 × where the whole block is drawn at once


@pytest.mark.parametrize("kind", ["mean", "ratio", "root_ratio", "miou", "group_mean"])
def test_an_influence_is_the_change_of_the_metric_with_a_samples_weight(kind) -> None:
    """By the difference between a weight of 1.0001 and one of 0.9999."""
    rng = np.random.default_rng(0)
    union = rng.integers(1, 9, (12, 3)).astype(float) * [1, 1, 0]  # the last class never occurs
    samples = {"a": rng.random(12), "b": rng.uniform(1, 5, 12), "i": union * rng.random((12, 3)), "u": union,
               "g": np.arange(12) % 3}  # fmt: skip
    columns = {"mean": ("a",), "group_mean": ("a",), "miou": ("i", "u")}.get(kind, ("a", "b"))
    statistic = Statistic(kind, columns, 100.0, group="g" if kind == "group_mean" else None)
    matrix, found = statistic.matrix(samples), influence(samples, statistic)
    for row in range(12):
        up, down = (statistic.value(matrix.sum(0) + sign * 1e-4 * matrix[row])[0] for sign in (1, -1))
        assert found[row] == pytest.approx((up - down) / 2e-4, rel=1e-5, abs=1e-7)
    assert abs(found.sum()) < 1e-6
    together = influence({**samples, "c": np.arange(12) // 4}, replace(statistic, cluster="c"))
    assert together.reshape(3, 4)[:, 0] == pytest.approx(found.reshape(3, 4).sum(1)) and not together[1:4].any()
    assert paired_error(np.array([1.0, 2.0]), np.array([4.0, -2.0])) == 5.0


def test_a_pooled_median_is_resampled_in_parts(monkeypatch) -> None:
    table = {"bins": np.random.default_rng(0).integers(0, 5, (20, 6))}
    median = Statistic("quantile", ("bins",), width=0.5)
    whole = bootstrap_distribution(table, median, 50)
    assert len(whole) == 50 and len(set(whole.tolist())) > 9
    monkeypatch.setattr("benchmark.statistics.bootstrap._SUMS_BYTES", 8 * 6 * 7)
    assert np.array_equal(bootstrap_distribution(table, median, 50), whole)


def test_what_is_no_statistic_is_refused() -> None:
    facts = {"kind": "miou", "columns": ["i", "u"], "classes": [0, 2]}
    assert parse_statistic(facts) == Statistic("miou", ("i", "u"), classes=(0, 2))
    wrongs: list[dict[str, object]] = [{"kind": "median"}, {"columns": []}, {"columns": [1]}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="kind .* of columns"):
            parse_statistic({**facts, **wrong})
    with pytest.raises(TypeError):
        parse_statistic({**facts, "colour": 1})


def test_a_metric_of_nothing_has_no_difference_and_one_resample_no_error() -> None:
    a, b = {"a": np.arange(9.0)}, {"a": np.arange(9.0) + np.arange(9) % 2}
    one, two = (paired(a, b, MEAN, resamples) for resamples in (1, 2))
    assert np.isnan(one.error) and two.error > 0 and one.delta == pytest.approx(4 / 9)
    assert one.ci95[0] == one.ci95[1] and one.units == 9
    with pytest.raises(UsageError, match="tables without samples"):
        paired({"a": np.zeros(0)}, {"a": np.zeros(0)}, MEAN)
