"""Chance levels: what the best answer that sees no picture gets, against brute force."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from benchmark.contracts import Measurement, Outcome
from benchmark.metrics.classification import blind_hits
from benchmark.metrics.positives import chance_precision, chance_recall
from benchmark.metrics.segmentation import blind_areas, confusion_areas, mean_accuracy, miou, pixel_accuracy
from benchmark.rows.row import metrics_of
from benchmark.statistics.statistic import Statistic


@pytest.mark.parametrize(("right", "items", "k"), [(1, 5, 1), (2, 6, 3), (3, 4, 1), (5, 5, 1), (0, 4, 2), (1, 3, 10)])
def test_recall_of_a_random_order(right, items, k):
    drawn = list(combinations(range(items), min(k, items)))
    expected = np.mean([min(order) < right for order in drawn])
    assert chance_recall(np.array([right]), np.array([items]), k)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("right", "items"), [(1, 1), (1, 4), (2, 5), (4, 4)])
def test_average_precision_of_a_random_order(right, items):
    def precision(order):
        places = sorted(place for place, item in enumerate(order, 1) if item < right)
        return np.mean([n / place for n, place in enumerate(places, 1)])

    expected = np.mean([precision(order) for order in permutations(range(items))])
    assert chance_precision(np.array([right]), np.array([items]))[0] == pytest.approx(expected)


def test_without_a_right_answer_there_is_no_chance():
    assert np.isnan(chance_precision(np.array([0, 0]), np.array([3, 0]))).all()


def test_hits_of_a_uniform_guess_and_of_the_commonest_labels():
    labels = np.array([2, 2, 2, 0, 1])
    uniform, common = blind_hits(labels, 4)
    assert uniform.mean() == 0.25 and common.tolist() == [1, 1, 1, 0, 0]
    uniform, common = blind_hits(labels, 4, k=5)
    assert uniform.mean() == 1 and common.mean() == 1


def test_areas_of_a_uniform_guess_are_what_random_maps_have_on_average():
    rng = np.random.default_rng(0)
    target = rng.choice(3, size=(40, 50), p=[0.7, 0.3, 0.0])
    draws = [confusion_areas(rng.integers(0, 3, target.shape), target, 3) for _ in range(200)]
    uniform, constant = blind_areas(draws[0].target_area[None])
    for name in ("intersection", "union"):
        assert uniform[name][0] == pytest.approx(np.mean([getattr(d, name) for d in draws], 0), abs=8)
    always = confusion_areas(np.zeros_like(target), target, 3).columns()
    assert {k: constant[k][0].tolist() for k in constant} == {k: np.asarray(always[k]).tolist() for k in constant}


def test_the_better_of_two_blind_answers_is_the_chance_level():
    area = np.array([[60, 20, 20], [0, 50, 50]])
    samples = {
        "intersection": area,
        "union": area,
        "target_area": area,
        "correct": area.sum(1),
        "labelled": area.sum(1),
    }
    measured = [
        Measurement("mIoU", miou(), True, "%"),
        Measurement("mAcc", mean_accuracy(), True, "%"),
        Measurement("aAcc", pixel_accuracy(), True, "%"),
        Measurement("RMSE", Statistic("mean", ("rmse",)), False, "m"),
        Measurement("other", Statistic("mean", ("other",)), False, "m"),
    ]
    samples |= {"labelled": area.sum(1), "rmse": np.zeros(2), "other": np.zeros(2)}
    blind = [*blind_areas(area), {"rmse": np.array([1.0, 2.0])}, {"rmse": np.array([1.0, 1.0])}]
    metrics = metrics_of(Outcome(samples, measured, "mIoU", 2, blind=blind), seed=0)
    uniform = (20 / (60 + 200 / 3 - 20) + 2 * (70 / 3) / (70 + 200 / 3 - 70 / 3)) / 3
    assert metrics["mIoU"].chance == pytest.approx(100 * uniform)
    assert metrics["mAcc"].chance == pytest.approx(100 / 3)
    assert metrics["aAcc"].chance == 35
    assert metrics["RMSE"].chance == 1
    assert "chance" not in metrics["other"].json()
