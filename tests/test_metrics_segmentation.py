"""Segmentation areas: hand-computed cases, what is ignored, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.contracts import ignored_label
from benchmark.errors import DataError
from benchmark.metrics.segmentation import confusion_areas, mean_accuracy, miou, per_class_iou, pixel_accuracy
from tasks.segmentation_scores import segmentation_details

TARGET = np.array([[0, 0, 1, 1], [0, 0, 1, 255]])
PRED = np.array([[0, 1, 1, 1], [0, 0, 0, 2]])


def test_areas_of_a_hand_counted_image() -> None:
    areas = confusion_areas(PRED, TARGET, 3)
    assert areas.intersection.tolist() == [3, 2, 0]
    assert areas.union.tolist() == [5, 4, 0]
    assert areas.target_area.tolist() == [4, 3, 0]


def test_summaries_of_a_hand_counted_image() -> None:
    samples = {name: np.asarray([value]) for name, value in confusion_areas(PRED, TARGET, 3).columns().items()}
    assert miou().of(samples) == pytest.approx(100 * (3 / 5 + 2 / 4) / 2)
    assert mean_accuracy().of(samples) == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)
    assert pixel_accuracy().of(samples) == pytest.approx(100 * 5 / 7)
    iou = per_class_iou(samples["intersection"], samples["union"])
    assert iou[:2] == pytest.approx([60, 50]) and np.isnan(iou[2])


def test_ignored_pixels_change_nothing_whatever_is_predicted_there() -> None:
    other = np.where(TARGET == 255, 0, PRED)
    for ours, theirs in zip(confusion_areas(PRED, TARGET, 3), confusion_areas(other, TARGET, 3)):
        assert np.array_equal(ours, theirs)


def test_an_all_ignored_image_counts_nothing() -> None:
    empty = confusion_areas(np.zeros((0, 2), int), np.zeros((0, 2), int), 4)
    assert not any(values.any() or len(values) != 4 for values in empty)
    areas = confusion_areas(np.zeros((2, 2), int), np.full((2, 2), 255), 4)
    assert not areas.union.any() and not areas.target_area.any()


def test_255_is_a_class_once_there_are_more_than_255() -> None:
    target = np.array([[255, -1]])
    assert confusion_areas(target.clip(0), target, 300).intersection[255] == 1
    assert confusion_areas(target.clip(0, 2), target, 255).union.sum() == 0


def test_an_explicit_ignore_index_is_honoured_even_inside_the_classes() -> None:
    assert confusion_areas(PRED, TARGET.clip(0, 1), 3, ignore=0).target_area.tolist() == [0, 4, 0]


def test_permuting_classes_permutes_the_areas() -> None:
    rng = np.random.default_rng(0)
    pred, target, order = rng.integers(0, 6, (30, 40)), rng.integers(0, 6, (30, 40)), rng.permutation(6)
    plain, moved = confusion_areas(pred, target, 6), confusion_areas(order[pred], order[target], 6)
    for a, b in zip(plain, moved):
        assert np.array_equal(a, b[order])


@pytest.mark.parametrize(
    ("pred", "target", "words"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "size of their image"),
        (np.zeros((2, 2), int), np.full((2, 2), 7), "target label 7 is outside 0 … 2"),
        (np.full((2, 2), 3), np.zeros((2, 2), int), "prediction label 3 is outside 0 … 2"),
        (torch.zeros(2, 2), np.zeros((2, 2), int), "expected integer"),
    ],
)
def test_what_cannot_be_scored_is_refused(pred: object, target: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        confusion_areas(pred, target, 3)  # type: ignore[arg-type]


def test_areas_are_those_of_masking_pixel_by_pixel() -> None:
    """Every kind of label, ignore value and class count, against the definition."""
    rng, same, refused = np.random.default_rng(0), 0, 0
    for _ in range(1500):
        classes = int(rng.choice([1, 2, 3, 5, 150, 255, 256, 300, 1000, 1500]))
        kind = str(rng.choice(["uint8", "int16", "int32", "int64"]))
        low, high = (0, 256) if kind == "uint8" else (-1, 3000)
        target = rng.integers(low, min(high, classes + int(rng.integers(0, 3))), (4, 5)).astype(kind)
        if rng.random() < 0.5:
            target[0, 0] = 255
        if rng.random() < 0.2 and kind != "uint8":
            target[0, 1] = 2000
        spread = classes + int(rng.random() < 0.1)
        guess = rng.integers(-int(rng.random() < 0.1), spread, (4, 5))
        ignore = int(rng.choice([255, 255, 0, 7, -1, 2000]))
        left = (target == -1) | (target == (ignored_label(classes) if ignore == 255 else ignore))
        kept, named = target[~left].astype(int), guess[~left]
        if len(kept) and (min(kept.min(), named.min()) < 0 or max(kept.max(), named.max()) >= classes):
            refused += 1
            with pytest.raises(DataError, match="is outside 0"):
                confusion_areas(guess, target, classes, ignore)
            continue
        areas = confusion_areas(guess, target, classes, ignore)
        both, there, said = (np.bincount(x, minlength=classes) for x in (kept[kept == named], kept, named))
        for found, want in zip(areas, (both, there + said - both, there)):
            np.testing.assert_array_equal(found, want)
        same += 1
    assert same > 300 and refused > 100


def test_one_class_everywhere_compares_nothing_unless_there_is_but_one() -> None:
    """Its 100 % would hide masks whose foreground was taken for what is ignored."""
    one = {"id": np.array(["a"]), "intersection": np.array([[4, 0]]), "union": np.array([[4, 0]])}
    with pytest.raises(DataError, match="is 'wall', and so is every prediction"):
        segmentation_details(one, ["wall", "floor"])
    only = {"id": np.array(["a"]), "intersection": np.array([[4]]), "union": np.array([[4]])}
    assert segmentation_details(only, ["wall"])["per_class_iou"] == {"wall": 100.0}
