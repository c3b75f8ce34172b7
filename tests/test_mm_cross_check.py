"""`--cross-check`: mIoU by mmsegmentation's IoUMetric on the same predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from command import hurried

from benchmark.cli import main
from benchmark.errors import BenchError
from benchmark.metrics.segmentation import confusion_areas
from benchmark.rows.row import read_all
from tasks.dense import stack_rows
from tasks.mm.cross_check import IouCrossCheck


def samples(pairs, classes):
    return stack_rows([confusion_areas(p, t, classes).columns() for p, t in pairs])


@pytest.mark.parametrize("classes", [7, 300])
def test_agrees_on_random_maps_with_ignored_pixels(classes):
    rng = np.random.default_rng(0)
    check, pairs = IouCrossCheck(classes), []
    for _ in range(5):
        target = rng.integers(0, classes, (23, 31))
        target[rng.random(target.shape) < 0.2] = 255 if classes < 255 else -1
        pairs.append((torch.from_numpy(rng.integers(0, classes, (23, 31))), target))
        check.add(*pairs[-1])
    found = check.details(samples(pairs, classes))["cross_check"]
    assert found["difference"] <= 1e-9 and 0 < found["mIoU"] < 100


def test_a_difference_is_one_error_line():
    pairs = [(torch.zeros(4, 4, dtype=torch.long), np.eye(4, dtype=np.uint8))]
    check = IouCrossCheck(2)
    check.add(*pairs[0])
    wrong = samples(pairs, 2)
    wrong["intersection"] = wrong["intersection"] + 1
    with pytest.raises(BenchError, match="--cross-check: mIoU is .* IoUMetric gives"):
        check.details(wrong)


def test_flag_adds_it_to_the_row_and_makes_an_unchecked_row_again(tmp_path):
    words = ["run", "--model", "pixels", "--task", "linear_segmentation/scenes", "--limit", "20"]
    words += hurried("linear_segmentation")
    for extra in ([], ["--cross-check"], ["--cross-check"]):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--results", str(tmp_path), *extra])
        assert not stop.value.code
        (row,) = read_all(tmp_path)[0]
        assert ("cross_check" in row.data.details) == bool(extra)
    assert row.data.details["cross_check"]["mIoU"] == pytest.approx(row.main.value, abs=1e-6)


def test_zero_shot_segmentation_is_cross_checked_too(tmp_path):
    words = ["run", "--model", "random-vit", "--task", "zero_shot_segmentation/scenes", "--limit", "8", "--cross-check"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--no-check", "--results", str(tmp_path)])
    assert not stop.value.code
    (row,) = read_all(tmp_path)[0]
    assert row.data.details["cross_check"]["mIoU"] == pytest.approx(row.main.value, abs=1e-6)
