"""On the limits of data: captions, ignored pixels, holdouts, padded views, zero vectors, rounding."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import is_dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import Noise, SmallEncoder, made
from test_caption_retrieval import outcome

import benchmark.compare
import benchmark.heads
import benchmark.metrics
import benchmark.statistics
import tasks
from benchmark.contracts import DepthData, Need, NormalsData, Tap, View
from benchmark.contracts.progress import silent
from benchmark.images.views import Placement, ResolvedView
from tasks.caption_retrieval import IMAGE_TO_TEXT, TEXT_TO_IMAGE
from tasks.dense import held_out_folds, held_out_images, layer_not_there, training_pixels, upsample
from tasks.linear_segmentation import PixelSegmentationMethod
from tasks.sliding import background_rule, best_class, resized


@pytest.mark.parametrize("task", [IMAGE_TO_TEXT, TEXT_TO_IMAGE])
def test_captions_of_a_picture_are_resampled_together(task: object) -> None:
    found = outcome(task, torch.eye(4)[[0, 2, 0, 0]])
    assert {m.statistic.cluster for m in found.measurements} == {"image"}
    owners = [0, 1, 2, 3] if task is IMAGE_TO_TEXT else [0, 0, 1, 2, 3, 3]
    assert found.samples["image"].tolist() == [f"noise/0/{i}" for i in owners]


class Masks(Noise):
    """Masks whose left half is to be ignored, by 255 or -1."""

    def target(self, index: int) -> np.ndarray:
        out = np.full((8, 8), index % 2)
        out[:, :4] = 255 if index < 3 else -1
        return out


def training_set(classes: int = 2, seed: int = 0) -> SimpleNamespace:
    """What the linear probe hands to its head, from features that say nothing."""
    images = Masks(6)
    features = torch.zeros(6, 9, 3)
    reader = type("Reader", (), {"__len__": lambda s: 6, "__getitem__": lambda s, rows: features[rows]})()
    data = SimpleNamespace(images=images, target=images.target, class_names=[str(c) for c in range(classes)])
    need = Need(images, View("encoder"), Tap("pixels", None, 9, 0))
    protocol = SimpleNamespace(with_cls=False, penalties=(1.0, 0.1), holdout=0.34, judged_images=1, selection="mIoU")
    context = SimpleNamespace(
        data={"train": data, "test": data}, features=lambda need: reader, progress=silent, seed=seed, device="cpu"
    )
    return SimpleNamespace(context=context, need=need, protocol=protocol)


def test_training_pixels_leave_out_what_is_to_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe's own filter: 255 and -1 are no classes to be learned; with more classes 255 is one."""
    found = training_set()
    seen: dict[str, np.ndarray] = {}

    def fit(x: torch.Tensor, y: torch.Tensor, *words: object, **more: object) -> None:
        seen["labels"] = y.numpy()
        raise InterruptedError

    monkeypatch.setattr("tasks.linear_segmentation.fit_logistic", fit)
    monkeypatch.setattr(PixelSegmentationMethod, "needs", lambda *_: {"train/pixels": found.need})
    found.context.card = None
    for classes, labels in ((2, {0, 1}), (300, {0, 1, 255})):
        found.context.data["train"].class_names = found.context.data["test"].class_names = range(classes)
        with pytest.raises(InterruptedError):
            PixelSegmentationMethod(found.protocol).run(found.context)
        assert set(seen["labels"].tolist()) == labels


def test_labels_are_those_of_their_own_picture_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.dense.BLOCK", 2)
    drawn = training_set()
    drawn.context.data["train"].target = lambda index: np.full((8, 8), index)
    pixels = training_pixels(drawn.context, {"train/pixels": drawn.need}, drawn.protocol, lambda v, _: v >= 0)
    assert pixels.targets.tolist() == np.repeat(np.arange(6), 9).tolist()


def test_an_encoder_without_layers_has_its_last_one_alone() -> None:
    flat, deep = (replace(SmallEncoder().card, name="flat", depth=depth) for depth in (0, 2))
    assert layer_not_there(flat, -1) is None and layer_not_there(flat, 0)
    assert layer_not_there(deep, -1) is None and layer_not_there(deep, 0) is None
    assert layer_not_there(deep, 2) and layer_not_there(deep, -3)


def test_what_is_held_out_follows_the_seed_of_the_run() -> None:
    def fold(seed: int) -> np.ndarray:
        drawn = training_set(seed=seed)
        pixels = training_pixels(drawn.context, {"train/pixels": drawn.need}, drawn.protocol, lambda v, _: v < 2)
        return pixels.fold

    assert not np.array_equal(held_out_images(40, 0.25, 0), held_out_images(40, 0.25, 1))
    assert len({tuple(fold(seed)) for seed in range(6)}) > 1 and np.array_equal(fold(3), fold(3))
    assert held_out_images(40, 0.25, 0).sum() == 10 and held_out_images(2, 0.9, 0).sum() == 1
    assert np.bincount(held_out_folds(10, 0.25, 4, 0) + 1).tolist() == [6, 2, 2]


def test_the_border_of_a_padded_view_is_cut_off_on_every_side() -> None:
    """A map whose value is its column: of a picture laid in the middle, the middle columns come back."""
    maps = torch.arange(8.0).expand(1, 8, 8)
    place = Placement(top=0.25, left=0.25, height=0.5, width=0.5)
    cut = upsample(maps, 4, 4, place)
    assert cut.shape == (1, 4, 4) and torch.allclose(cut[0, 0], torch.arange(2.0, 6.0))
    assert torch.allclose(upsample(maps.mT, 4, 4, place)[0, :, 0], torch.arange(2.0, 6.0))
    edge = upsample(maps, 8, 4, Placement(top=0.0, left=0.5, height=1.0, width=0.5))
    assert torch.allclose(edge[0, 0], torch.arange(4.0, 8.0))


def test_zero_vectors_of_normals_do_not_count_and_those_of_depth_stay() -> None:
    normals = np.zeros((1, 2, 3), np.float32)
    normals[0, 1] = (0, 0, 1)
    data = made(NormalsData, target=lambda index: normals)
    assert np.isnan(data.counted(0)[0, 0]).all() and data.counted(0)[0, 1].tolist() == [0, 0, 1]
    assert made(DepthData, target=lambda index: np.zeros((2, 2))).counted(0).tolist() == [[0, 0], [0, 0]]


def test_a_score_on_the_threshold_is_no_background_and_ties_go_to_the_lower_class() -> None:
    settle = background_rule(1, 0.5, 4)
    label, score = torch.tensor([0, 1, 2]), torch.tensor([0.5, 0.49, 0.51])
    assert settle(label, score).tolist() == [0, 1, 3]
    scores = torch.zeros(20, 2, 2)
    scores[[3, 17]] = 1.0
    found, value = best_class(scores, 2, 2)
    assert found.tolist() == [[3, 3], [3, 3]] and value.tolist() == [[1, 1], [1, 1]]
    scores[18] = 2.0
    assert best_class(scores, 2, 2)[0].unique().tolist() == [18]


def test_sizes_are_rounded_as_their_sources_round() -> None:
    assert resized(100, 201, 50, 0) == (50, 100)  # down
    assert resized(100, 203, 50, 2048) == (50, 102)  # 101.5, to the nearest
    assert resized(100, 400, 512, 800) == (200, 800) and resized(400, 100, 512, 800) == (800, 200)


def test_a_padded_view_has_its_picture_in_the_middle_and_says_where() -> None:
    view = ResolvedView(None, patch=8)
    laid = view.lay(np.full((12, 21, 3), 255, np.uint8))
    inside = np.zeros((16, 24), bool)
    inside[2:14, 1:22] = True  # three columns are too many: the smaller half comes first
    assert np.array_equal(laid, np.repeat(inside[None], 3, 0).astype(np.float32))
    assert view.placement(12, 21) == Placement(2 / 16, 1 / 24, 12 / 16, 21 / 24)


def test_what_is_passed_around_is_changed_by_nobody() -> None:
    """Protocols, statistics, heads, comparisons: all frozen, but for what a task fills or holds while it runs."""
    packages = (benchmark.compare, benchmark.heads, benchmark.metrics, benchmark.statistics, tasks)
    found = [m for package in packages for m in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    loose, frozen = set(), 0
    for name in ["benchmark.protocol", *(module.name for module in found if not module.ispkg)]:
        kinds = [v for v in vars(importlib.import_module(name)).values() if is_dataclass(v) and v.__module__ == name]
        loose |= {v.__name__ for v in kinds if not v.__dataclass_params__.frozen}  # type: ignore[union-attr]
        frozen += len(kinds)
    assert loose == {"Matched", "Pair", "PixelSet", "Space", "_Upsampler"} and frozen > 50
