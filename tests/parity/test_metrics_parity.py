"""Our metrics against mmsegmentation, torchmetrics and scikit-learn to 1e-9, on random and on adversarial inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from sklearn.metrics import average_precision_score, jaccard_score, top_k_accuracy_score
from torchmetrics import JaccardIndex, MeanSquaredError
from torchmetrics.retrieval import RetrievalMAP, RetrievalRecall

from benchmark.metrics.classification import label_ranks
from benchmark.metrics.geometry import depth_errors
from benchmark.metrics.positives import Positives
from benchmark.metrics.retrieval import average_precision, ranks, recall_hits
from benchmark.metrics.segmentation import confusion_areas, mean_accuracy, miou, per_class_iou, pixel_accuracy
from tasks.trained_depth import depth_measurements

CLASSES = 7
Pairs = list[tuple[np.ndarray, np.ndarray]]


def random_pairs() -> Pairs:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, CLASSES, (23, 31)), rng.integers(0, CLASSES, (23, 31))) for _ in range(6)]
    for _, target in pairs:
        target[rng.random(target.shape) < 0.2] = 255
    return pairs


def adversarial_pairs() -> Pairs:
    nothing = np.full((4, 4), 255)
    return [
        (np.zeros((4, 4), int), nothing),  # all ignored
        (np.zeros((1, 1), int), np.zeros((1, 1), int)),  # a single pixel
        (np.full((3, 5), 3), np.full((3, 5), 1)),  # a class only predicted, a class only labelled
        (np.array([[2, 255, 2]]).clip(0, 2), np.array([[2, 255, 1]])),
    ]


def table(pairs: Pairs) -> dict[str, np.ndarray]:
    rows = [confusion_areas(p, t, CLASSES).columns() for p, t in pairs]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


CASES = pytest.mark.parametrize("pairs", [random_pairs(), adversarial_pairs()], ids=["random", "adversarial"])


@CASES
def test_segmentation_is_mmsegmentations(pairs: Pairs) -> None:
    results = [IoUMetric.intersect_and_union(torch.tensor(p), torch.tensor(t), CLASSES, 255) for p, t in pairs]
    totals = [torch.stack(list(part)).sum(0) for part in zip(*results)]
    theirs = IoUMetric.total_area_to_metrics(*totals, metrics=["mIoU"])
    samples = table(pairs)
    assert miou().of(samples) == pytest.approx(100 * np.nanmean(theirs["IoU"]), abs=1e-9, rel=1e-6)  # theirs is float32
    exact = (totals[0].double() / totals[1].double()).numpy()
    assert miou().of(samples) == pytest.approx(100 * np.nanmean(exact), abs=1e-9)
    assert mean_accuracy().of(samples) == pytest.approx(
        100 * np.nanmean((totals[0].double() / totals[3].double()).numpy()), abs=1e-9
    )
    assert pixel_accuracy().of(samples) == pytest.approx(
        100 * float(totals[0].double().sum() / totals[3].double().sum()), abs=1e-9
    )


@CASES
def test_iou_per_class_is_scikit_learns_and_torchmetrics(pairs: Pairs) -> None:
    samples = table(pairs)
    ours = per_class_iou(samples["intersection"], samples["union"])
    target = np.concatenate([t.ravel() for _, t in pairs])
    pred = np.concatenate([p.ravel() for p, _ in pairs])[target != 255]
    target = target[target != 255]
    present = np.isfinite(ours)
    reference = jaccard_score(target, pred, labels=np.flatnonzero(present), average=None)
    np.testing.assert_allclose(ours[present], 100 * reference, atol=1e-9)
    metric = JaccardIndex(task="multiclass", num_classes=CLASSES, average=None)
    torch_iou = metric(torch.tensor(pred), torch.tensor(target)).double().numpy()
    np.testing.assert_allclose(ours[present], 100 * torch_iou[present], rtol=1e-6)  # torchmetrics computes in float32


def test_pooled_rmse_is_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    maps = [(rng.uniform(0.1, 9, (8, 9)), rng.uniform(0.1, 9, (8, 9))) for _ in range(4)]
    rows = [depth_errors(p, t) for p, t in maps]
    samples = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    metric = MeanSquaredError(squared=False).set_dtype(torch.float64)
    for pred, target in maps:
        metric.update(torch.tensor(pred), torch.tensor(target))
    (pooled,) = (m.statistic for m in depth_measurements() if m.name == "RMSE pooled")
    assert pooled.of(samples) == pytest.approx(float(metric.compute()), abs=1e-9)


def retrieval_case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    q, g = rng.normal(size=(2, 50, 16))
    q, g = q.astype(np.float32), g.astype(np.float32)
    relevant = rng.random((50, 50)) < 0.1
    relevant[np.arange(50), rng.integers(0, 50, 50)] = True
    return q, g, relevant


def test_average_precision_and_recall_are_scikit_learns_and_torchmetrics() -> None:
    q, g, relevant = retrieval_case()
    positives = Positives.from_lists([np.flatnonzero(row).tolist() for row in relevant])
    score = q.astype(np.float64) @ g.astype(np.float64).T
    ours = average_precision(q, g, positives)
    reference = [average_precision_score(r, s) for r, s in zip(relevant, score)]
    np.testing.assert_allclose(ours, reference, atol=1e-9)
    owner = torch.arange(50).repeat_interleave(50)
    flat, truth = torch.tensor(score - score.min() + 1).flatten(), torch.tensor(relevant).flatten()
    # torchmetrics counts a relevant item with a score ≤ 0 as not retrieved: hence the shift
    assert ours.mean() == pytest.approx(float(RetrievalMAP()(flat, truth, indexes=owner)), rel=1e-6)  # float32

    single = relevant.argmax(1)
    truth = torch.zeros(50, 50, dtype=torch.bool)
    truth[torch.arange(50), torch.tensor(single)] = True
    rank = ranks(q, g, Positives.from_lists([[int(i)] for i in single]))
    for k in (1, 5, 10):
        metric = RetrievalRecall(top_k=k)(flat, truth.flatten(), indexes=owner)
        assert recall_hits(rank, k).mean() == pytest.approx(float(metric), abs=1e-7)


def test_top_k_accuracy_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 12)), rng.integers(0, 12, 200)
    found = label_ranks(torch.tensor(scores), labels)
    for k in (1, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(12))
        assert recall_hits(found, k).mean() == pytest.approx(expected, abs=1e-12)
