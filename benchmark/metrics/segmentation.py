"""Segmentation: per-image areas whose sums over images are mIoU, mean accuracy and pixel accuracy.

Only three histograms are kept for each image, never a prediction, and they are what an interval or a paired test needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from benchmark.contracts import IGNORE, ignored_label
from benchmark.errors import DataError
from benchmark.statistics.statistic import Statistic
from benchmark.system.late import torch

Labels: TypeAlias = "np.ndarray | torch.Tensor"
TABLE = 1024  # classes up to which their pairs are counted in a table
TARGET = "target|ignored pixels carry {} or -1"
PREDICTION = "prediction|a head may only name classes of its dataset"


class Areas(NamedTuple):
    """Pixel counts per class of one image, each int64 [C]: true positives, union, labelled pixels."""

    intersection: np.ndarray
    union: np.ndarray
    target_area: np.ndarray

    def columns(self) -> dict[str, np.ndarray | int]:
        """One row of `samples.parquet`, with the totals that pixel accuracy needs."""
        return {
            "intersection": self.intersection,
            "union": self.union,
            "target_area": self.target_area,
            "correct": int(self.intersection.sum()),
            "labelled": int(self.target_area.sum()),
        }


def confusion_areas(pred: Labels, target: Labels, num_classes: int, ignore: int = IGNORE) -> Areas:
    """Intersection, union and target area of every class for `pred` [H, W] against `target` [H, W].

    Pixels whose target is -1 or `ignore` are left out of all three; 255 is a class like any other once there are more
    than 255. Works on the device of `pred`. Raises DataError when sizes differ or a label is outside 0 … num_classes-1.
    """
    guess = _integers(pred, "predictions")
    truth = _integers(target, "targets").to(guess.device)
    if guess.shape != truth.shape:
        raise DataError(
            f"prediction is {tuple(guess.shape)} but its target is {tuple(truth.shape)}: "
            "masks must have the size of their image"
        )
    ignored = ignored_label(num_classes) if ignore == IGNORE else ignore
    if guess.device.type == "cpu" and num_classes <= TABLE:
        return _counted(guess.numpy().ravel(), truth.numpy().ravel(), num_classes, ignored)
    truth = truth.long()  # torch compares uint8 with -1 as if it were 255
    kept = (truth != -1) & (truth != ignored)
    truth, guess = truth[kept], guess[kept].long()
    if len(truth):
        _check_range(truth.min(), truth.max(), num_classes, TARGET.format(ignored))
        _check_range(guess.min(), guess.max(), num_classes, PREDICTION)
    truth_area = torch.bincount(truth, minlength=num_classes)
    guess_area = torch.bincount(guess, minlength=num_classes)
    intersection = torch.bincount(truth[truth == guess], minlength=num_classes)
    union = truth_area + guess_area - intersection
    return Areas(intersection.cpu().numpy(), union.cpu().numpy(), truth_area.cpu().numpy())


def _counted(guess: np.ndarray, truth: np.ndarray, classes: int, ignored: int) -> Areas:
    """By one count of (target, prediction) pairs of all pixels: seven times as fast as leaving the ignored ones out."""
    low, high = (int(truth.min()), int(truth.max())) if len(truth) else (0, 0)
    if low < 0 or high >= TABLE:
        left = (truth == -1) | (truth == ignored)
        labels = truth[~left]
        _check_range(labels.min(initial=0), labels.max(initial=0), classes, TARGET.format(ignored))
        truth, ignored, high = np.where(left, classes, truth), classes, classes
    if len(guess) and (int(guess.min()) < 0 or int(guess.max()) >= classes):
        guess = np.where(truth == ignored, 0, guess)
        _check_range(guess.min(), guess.max(), classes, PREDICTION)
    rows = max(classes, high + 1)
    pairs = np.multiply(truth, classes, dtype=np.int64)
    pairs += guess
    table = np.bincount(pairs, minlength=rows * classes).reshape(rows, classes)
    if 0 <= ignored < rows:
        table[ignored] = 0
    if (wrong := np.flatnonzero(table[classes:].sum(1))).size:
        _check_range(0, classes + int(wrong[-1]), classes, TARGET.format(ignored))
    table = table[:classes]
    intersection, target_area = np.diagonal(table).copy(), table.sum(1)
    return Areas(intersection, target_area + table.sum(0) - intersection, target_area)


def miou(classes: tuple[int, ...] | None = None, cluster: str | None = None) -> Statistic:
    """mIoU in percent over the classes with a non-empty union (mmsegmentation's rule), or over `classes` of them."""
    return Statistic("miou", ("intersection", "union"), scale=100.0, classes=classes, cluster=cluster)


def mean_accuracy(cluster: str | None = None) -> Statistic:
    """Mean over labelled classes of the share of their pixels that is right, in percent."""
    return Statistic("miou", ("intersection", "target_area"), scale=100.0, cluster=cluster)


def pixel_accuracy(cluster: str | None = None) -> Statistic:
    """Share of labelled pixels that is right, in percent."""
    return Statistic("ratio", ("correct", "labelled"), scale=100.0, cluster=cluster)


def blind_areas(target_area: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns as in `Areas.columns` of two answers that see no picture, from the target areas [N, C]: every class
    equally often (expected areas), and the class with most pixels everywhere."""
    area = np.asarray(target_area, np.float64)
    labelled, classes = area.sum(1, keepdims=True), area.shape[1]
    out = []
    for share in (np.full(classes, 1 / classes), np.eye(classes)[area.sum(0).argmax()]):
        hit = area * share
        out.append({"intersection": hit, "union": area + labelled * share - hit, "correct": hit.sum(1)})
    return out[0], out[1]


def per_class_iou(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """[C] IoU in percent from [N, C] columns; NaN for a class that neither appears nor is predicted."""
    top, bottom = np.sum(intersection, 0, dtype=np.float64), np.sum(union, 0, dtype=np.float64)
    return np.where(bottom > 0, 100.0 * top / np.maximum(bottom, 1), np.nan)


def _integers(labels: Labels, what: str) -> torch.Tensor:
    tensor = torch.as_tensor(labels)
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        raise DataError(f"{what} are {tensor.dtype}, expected integer class indices")
    return tensor


def _check_range(low: Any, high: Any, num_classes: int, words: str) -> None:
    """`words`: which label it is, and after a bar what to do."""
    if low < 0 or high >= num_classes:
        what, remedy = words.split("|")
        raise DataError(f"{what} label {int(low if low < 0 else high)} is outside 0 … {num_classes - 1}: {remedy}")
