"""Depth and normals: hand-computed errors, valid pixels, and predictions that must never become a score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmark.errors import DataError, EncoderError
from benchmark.metrics.geometry import angular_errors, depth_errors, has_depth, has_normal, normal_errors
from tasks.normals import normal_measurements
from tasks.trained_depth import depth_measurements


def stack(rows: list[dict]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_depth_errors_of_a_hand_computed_image() -> None:
    row = depth_errors(np.array([[1.0, 2.0], [6.0, 9.0]]), np.array([[1.0, 4.0], [5.0, 0.0]]))
    assert (row["sse"], row["n"], row["d1_hits"], row["d2_hits"], row["d3_hits"]) == (5.0, 3.0, 2.0, 2.0, 2.0)
    assert row["abs_rel_sum"] == pytest.approx(0.5 + 0.2)
    assert row["rmse"] == pytest.approx(math.sqrt(5 / 3))


def test_depth_is_averaged_over_images_and_its_pooled_rmse_over_pixels() -> None:
    rows = [
        depth_errors(np.array([[3.0]]), np.array([[1.0]])),
        depth_errors(np.array([[1.0, 1.0, 1.0]]), np.array([[1.0, 1.0, 1.0]])),
        depth_errors(np.array([[5.0]]), np.array([[0.0]])),  # no valid pixel: in neither average
    ]
    values = {m.name: m.statistic.of(stack(rows)) for m in depth_measurements()}
    assert values["RMSE"] == pytest.approx((2 + 0) / 2)
    assert values["RMSE pooled"] == pytest.approx(math.sqrt(4 / 4))
    assert values["abs-rel"] == pytest.approx((2 + 0) / 2)  # over all pixels it would be 2 / 4
    assert values["δ1"] == pytest.approx(50.0)  # over all pixels 75


def test_depth_range_limits_are_exclusive_and_invalid_targets_left_out() -> None:
    target = np.array([[np.nan, np.inf, -1.0, 0.0, 10.0, 9.99]])
    assert depth_errors(np.ones((1, 6)), target, 1e-3, 10.0)["n"] == 1


def test_depth_predictions_at_or_below_zero_hit_no_threshold() -> None:
    row = depth_errors(np.array([[0.0, -1.0]]), np.array([[1.0, 1.0]]))
    assert row["d3_hits"] == 0 and row["sse"] == 5


def test_depth_clamp_limits_predictions() -> None:
    assert depth_errors(np.array([[50.0]]), np.array([[9.0]]), 1e-3, 10.0, clamp=True)["sse"] == 1


def test_nan_predictions_are_an_error_only_where_they_would_be_scored() -> None:
    with pytest.raises(EncoderError, match="1 of 1 valid depth"):
        depth_errors(np.array([[np.nan]]), np.array([[1.0]]))
    assert depth_errors(np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]]))["n"] == 1
    with pytest.raises(EncoderError, match="normal predictions"):
        normal_errors(np.full((1, 1, 3), np.nan), np.ones((1, 1, 3)))


def test_maps_of_different_size_are_refused() -> None:
    with pytest.raises(DataError, match="depth prediction is"):
        depth_errors(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(DataError, match=r"expected twice \[H, W, 3\]"):
        normal_errors(np.ones((3, 2, 2)), np.ones((3, 2, 2)))


def test_angles_are_exact_near_0_and_180_degrees_and_scale_free() -> None:
    tiny = 1e-7
    a = torch.tensor([[1.0, 0.0, 0.0]] * 4).double()
    b = torch.tensor([[5.0, 0, 0], [1.0, tiny, 0], [-1.0, tiny, 0], [0, 0, 0]]).double()
    expected = [0.0, math.degrees(tiny), 180 - math.degrees(tiny), 90.0]
    assert angular_errors(a, b).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_normal_errors_of_known_rotations() -> None:
    angles = np.radians([0.0, 10.0, 20.0, 29.0, 60.0])
    pred = np.stack([np.sin(angles), np.zeros(5), np.cos(angles)], -1)[None]
    target = np.tile([0.0, 0.0, 1.0], (1, 6, 1))
    target[0, 5] = 0
    row = normal_errors(np.concatenate([pred, np.full((1, 1, 3), np.nan)], 1), target)
    assert row["n"] == 5 and (row["hits_11"], row["hits_22"], row["hits_30"]) == (2, 3, 4)
    assert row["mean_angle"] == pytest.approx(119 / 5)
    assert row["angular_rmse"] == pytest.approx(math.sqrt((100 + 400 + 841 + 3600) / 5))
    assert row["median_angle"] == pytest.approx(20)


def test_pooled_median_from_histograms_is_within_a_bin_of_the_true_one() -> None:
    rng = np.random.default_rng(0)
    rows, angles = [], []
    for _ in range(5):
        pred, target = rng.normal(size=(2, 20, 20, 3))
        target /= np.linalg.norm(target, axis=-1, keepdims=True)
        rows.append(normal_errors(pred, target))
        angles.append(angular_errors(torch.tensor(pred), torch.tensor(target)).numpy().ravel())
    values = {m.name: m.statistic.of(stack(rows)) for m in normal_measurements()}
    assert values["median angle"] == pytest.approx(np.median(angles), abs=0.1)
    pooled = math.sqrt(np.mean(np.square(angles)))
    assert values["angular RMSE pooled"] == pytest.approx(pooled)


def test_probes_are_trained_on_the_pixels_that_count() -> None:
    depth = np.array([0.0, 0.1, 0.2, 9.9, 10.0, np.inf, -np.inf, np.nan])
    assert has_depth(depth, 0.1, 10.0).tolist() == [False, False, True, True, False, False, False, False]
    counted = [depth_errors(np.full((1, 1), 1.0), np.full((1, 1), d), 0.1, 10.0)["n"] == 1 for d in depth]
    assert counted == has_depth(depth, 0.1, 10.0).tolist()
    normals = np.array([[0, 0, 0], [0, 0, -1.0], [1.0, 0, 0], [np.nan, 0, 1], [0, np.inf, 0]])
    assert has_normal(normals).tolist() == [False, True, True, False, False]
    assert has_normal(normals[:2].reshape(2, 1, 3)).tolist() == [[False], [True]]
    counted = [normal_errors(np.ones((1, 1, 3)), v.reshape(1, 1, 3))["n"] == 1 for v in normals]
    assert counted == has_normal(normals).tolist()
