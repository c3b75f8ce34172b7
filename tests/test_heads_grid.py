"""Where pixels outnumber patches the head meets each patch once: the same loss, gradient and head as on the pixels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import Noise

from benchmark.contracts import EncoderCard, ImageTransform, Need, Tap, View, WeightsInfo
from benchmark.contracts.progress import silent
from benchmark.features.taps import mix_at_pixels, pixel_indices
from benchmark.heads import grid as grid_module
from benchmark.heads.grid import GridRows, MixedRows
from benchmark.heads.logistic import fit_logistic
from benchmark.heads.rows import Rows, fit_scaler
from benchmark.images.views import Placement
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from tasks.dense import training_pixels
from tasks.linear_segmentation import PixelSegmentationMethod

N, SIDE, WIDTH, CLASSES, COUNT = 12, 4, 6, 3, 50


@pytest.fixture(scope="module")
def drawn() -> SimpleNamespace:
    """Mixtures of drawn patches far from zero, as rows and as a grid, with labels that follow them."""
    rng = np.random.default_rng(0)
    patches = torch.from_numpy(rng.normal(size=(N, SIDE, SIDE, WIDTH)).astype(np.float32)) * 3 + 20
    corners = rng.integers(0, SIDE * SIDE, (N * COUNT, 4)) + np.repeat(np.arange(N), COUNT)[:, None] * SIDE * SIDE
    shares = rng.dirichlet(np.ones(4), N * COUNT).astype(np.float32)
    flat = patches.flatten(0, 2).double().numpy()
    rows = (flat[corners] * shares[..., None]).sum(1)
    labels = ((rows - 20) @ rng.normal(size=(WIDTH, CLASSES)) + rng.gumbel(size=(len(rows), CLASSES))).argmax(1)
    grid = GridRows(patches, corners, shares)
    return SimpleNamespace(grid=grid, rows=torch.from_numpy(rows.astype(np.float32)), labels=torch.from_numpy(labels))


@pytest.mark.parametrize(("step", "kept"), [(N, 1 << 20), (5, 1 << 20), (5, 0)])
def test_loss_gradient_and_scores_are_those_of_the_mixed_rows(
    drawn: Any, monkeypatch: Any, step: int, kept: int
) -> None:
    monkeypatch.setattr(grid_module, "KEPT", kept)
    grid = GridRows(drawn.grid.patches, drawn.grid.corners, drawn.grid.shares)
    monkeypatch.setitem(vars(grid), "step", step)
    torch.testing.assert_close(grid[:], drawn.rows)
    some = np.array([7, 0, 599, 300, 300])
    torch.testing.assert_close(grid[some], drawn.rows[some])
    chosen = np.flatnonzero(np.arange(N * COUNT) // COUNT != 6)[::2]  # a block of which little is chosen, too
    scaler = fit_scaler(drawn.rows, chosen, "cpu")
    ours = MixedRows(grid, drawn.labels, chosen, scaler, "cpu", torch.float64)
    plain = Rows(drawn.rows.double(), drawn.labels, chosen, scaler, "cpu", torch.float64, 1 << 30)
    parameters = torch.randn(CLASSES, WIDTH + 1, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(2):  # what was kept serves again
        (loss, gradient), (right, by) = ours.loss(parameters), plain.loss(parameters)
        assert loss == pytest.approx(right, rel=1e-6)
        torch.testing.assert_close(gradient, by, rtol=1e-5, atol=1e-4)
    scores, labels = (torch.cat(part) for part in zip(*ours.scores(parameters)))
    expected, right_labels = (torch.cat(part) for part in zip(*plain.scores(parameters)))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(labels, right_labels)
    torch.testing.assert_close(torch.cat([x for x, _ in ours]), torch.cat([x for x, _ in plain]), rtol=1e-5, atol=1e-4)


def test_the_fitted_head_is_the_one_of_the_mixed_rows(drawn: Any) -> None:
    """Penalty, weights and every held-out measure, over several folds and with the classes' own curvature."""
    folds = np.repeat(np.arange(N) % 3, COUNT)
    penalties = [1e-1, 1e-2, 1e-3, 1e-4]
    ours, plain = (
        fit_logistic(x, drawn.labels, CLASSES, penalties, folds, criterion="mIoU", tolerance=1e-10)
        for x in (drawn.grid, drawn.rows)
    )
    assert ours.penalty == plain.penalty
    torch.testing.assert_close(ours.weight, plain.weight, rtol=1e-3, atol=1e-3)
    for a, b in zip(ours.history, plain.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-6)
        assert a.get("holdout_mIoU") == pytest.approx(b.get("holdout_mIoU"), abs=0.3)


def card_of(size: int = 32) -> EncoderCard:
    return EncoderCard("a", "a", "torch", 6, 8, size, 1, 1, False, WeightsInfo("a", "0" * 64), "Apache-2.0")


def probe(**changes: str) -> PixelSegmentationMethod:
    task = load_task("linear_segmentation")
    file = protocol_file("linear_segmentation")
    return PixelSegmentationMethod(load_protocol("linear_segmentation", task.schemas, file, "fast", changes).values)


def test_patches_are_kept_where_pixels_outnumber_them() -> None:
    def needs(images: int, size: int = 32, **changes: str) -> set[str]:
        data = {"train": SimpleNamespace(images=Noise(images)), "test": SimpleNamespace(images=Noise(2))}
        return {name for name in probe(**changes).needs(card_of(size), data) if name.startswith("train")}

    assert needs(300) == {"train/patches"} and needs(300, 224) == {"train/pixels"}  # 427 pixels; 16 and 784 patches
    assert needs(4000, 60) == {"train/pixels"}  # 64 pixels; 60 px are 7.5 patches: eight
    assert needs(4000, 64) == {"train/pixels"} and needs(4000, 56) == {"train/patches"}  # 64 pixels; 64 and 49 patches
    assert needs(300, with_cls="true") == {"train/pixels", "train/cls"}
    assert needs(300, view="encoder") == {"train/pixels"}
    assert probe().head_rows(card_of(), 300) == (427 * 300, 6) and probe().head_rows(card_of(224), 300) == (0, 0)


def test_rows_of_patches_are_the_sampled_pixels() -> None:
    """The same pixels, labels and folds as where features of pixels are stored."""
    images, size = Noise(6), (40, 48)
    maps = torch.randn(6, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    tap = Tap("pixels", None, 512)
    pixels = [pixel_indices(images.image_id(i), tap, *size) for i in range(6)]
    stored = {"train/patches": maps, "train/pixels": mix_at_pixels(maps, pixels, [size] * 6, [Placement()] * 6)}
    masks = SimpleNamespace(images=images, target=lambda i: np.arange(40 * 48).reshape(size) % (2 + i))
    live = SimpleNamespace(transform=ImageTransform("square", 32), card=card_of())
    context: Any = SimpleNamespace(
        data={"train": masks}, seed=3, features=stored.get, progress=silent, encoder=lambda: live
    )
    view = View("square")
    found = [
        training_pixels(context, {name: Need(images, view, of)}, probe().protocol, lambda v, _: v > 0, 4)
        for name, of in (("train/patches", Tap("patches")), ("train/pixels", tap))
    ]
    assert isinstance(found[0].features, GridRows) and not isinstance(found[1].features, GridRows)
    assert np.array_equal(found[0].targets, found[1].targets) and np.array_equal(found[0].fold, found[1].fold)
    torch.testing.assert_close(found[0].features[:], found[1].features[:])


def test_a_block_has_whole_pictures_and_so_many_rows_at_most(drawn: Any, monkeypatch: Any) -> None:
    for rows, pictures in ((COUNT - 1, 1), (COUNT, 1), (2 * COUNT - 1, 1), (2 * COUNT, 2), (7 * COUNT + 3, 7)):
        monkeypatch.setattr(grid_module, "BLOCK", rows)
        assert GridRows(drawn.grid.patches, drawn.grid.corners, drawn.grid.shares).step == pictures
    grid = drawn.grid
    assert grid.shape == (N * COUNT, WIDTH) and len(grid) == N * COUNT and grid.area == SIDE * SIDE
