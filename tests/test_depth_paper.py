"""Depth with trained heads: rows for every preset and dataset from the command line, conventions by hand, learning."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import bench
from dpt_layouts import flax_tree, write_zip
from miniatures import navi, nyu_bts
from PIL import Image
from test_cli_run import FIELDS
from training_context import ColourDepth, MemoryContext, Ramps, preset

from benchmark.metrics.geometry import scale_and_shift
from benchmark.registry import open_dataset
from benchmark.rows.row import read_all
from tasks.datasets.navi import NaviDepth
from tasks.datasets.navi_geometry import Framing
from tasks.depth import TASK
from tasks.depth_range import depth_range
from tasks.trained_depth import eigen_crop, relative_depth, score, trained_data
from tasks.training import losses as training_losses
from tasks.training.augment import augmented
from tasks.training.scoring import predicted

TINY = ("steps=3", "batch_size=2", "bins=8", "channels=8", "resize=48", "warmup_steps=1")


def words(*fields: str) -> list[str]:
    return [word for field in (*TINY, *fields) for word in ("--set", field)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    nyu_bts(folder)
    navi(folder)
    return folder


@pytest.mark.parametrize("name", ["paper", "dinov2", "dinov3", "dpt"])
def test_every_preset_makes_complete_rows_on_every_dataset(name, data, tmp_path):
    command = ["run", "--model", "random-vit", "--task", "depth", "--protocol", name, "--data", str(data)]
    assert bench(*command, "--limit", "4", "--results", str(tmp_path), *words("crop=[40,40]")) == 0
    rows = {r.data.task.dataset: r for r in read_all(tmp_path)[0]}
    assert sorted(rows) == ["navi", "nyuv2", "scenes"]
    for dataset, row in rows.items():
        for field, kind in FIELDS.items():
            assert isinstance(row.data.json()[field], kind), field
        assert row.data.main_metric == "RMSE" and set(row.data.metrics) == {
            "RMSE",
            "RMSE pooled",
            "abs-rel",
            "δ1",
        }
        for metric, found in row.data.metrics.items():
            low, high = found.ci95
            assert low <= found.value <= high and math.isfinite(found.value)
            assert row.statistic(metric).of(row.samples) == pytest.approx(found.value, rel=1e-12)
        assert row.data.task.n == len(row.samples["rmse"]) and (row.samples["n"] > 0).all(), dataset
        curve = (row.folder / "curve.csv").read_text().splitlines()
        assert len(curve) == 4 and (row.folder / "curve.png").read_bytes().startswith(b"\x89PNG")
        dpt = name == "dpt" or (name, dataset) == ("paper", "navi")
        assert row.data.protocol.fields["head"].value == ("dpt" if dpt else "linear")
        assert row.data.details["layers"] == ([0, 1, 2, 3] if dpt else [3])
        assert row.data.details["steps"] == 3
    same = rows["nyuv2"].protocol_hash == rows["navi"].protocol_hash
    assert same == (name != "paper")


def test_an_encoder_of_six_layers_and_one_of_a_single_layer(data, tmp_path, capsys):
    command = ["run", "--model", "tipsv2-mini", "--model", "pixels", "--task", "depth/nyuv2", "--protocol", "dpt"]
    assert bench(*command, "--data", str(data), "--results", str(tmp_path), *words()) == 0
    (row,) = read_all(tmp_path)[0]
    assert row.model == "tipsv2-mini" and row.data.details["layers"] == [1, 2, 4, 5]
    assert "pixels has 1 layer, a DPT head reads four" in capsys.readouterr().out
    bad = ["--set", "layers=[0,1,2,9]", "--force"]
    assert bench(*command, "--data", str(data), "--results", str(tmp_path), *words(), *bad) == 0
    assert "tipsv2-mini has 6 layers, the protocol asks for layer 9" in capsys.readouterr().out


def test_a_released_head_is_read_and_nothing_is_trained(data, tmp_path, capsys):
    head = write_zip(tmp_path / "tips_v2_depth_dpt.zip", flax_tree(width=128, out=8))
    command = ["run", "--model", "random-vit", "--task", "depth/nyuv2", "--protocol", "dpt", "--data", str(data)]
    command += ["--results", str(tmp_path / "rows"), *words()]
    assert bench(*command, "--set", f"head_weights={head}") == 0
    (row,) = read_all(tmp_path / "rows")[0]
    assert row.data.details["head_weights"] == "tips_v2_depth_dpt.zip" and not (row.folder / "curve.csv").exists()
    assert row.data.protocol.fields["head_weights"].value.startswith("sha256:")
    wrong = write_zip(tmp_path / "wrong.zip", flax_tree(width=64, out=8))
    assert bench(*command, "--set", f"head_weights={wrong}") == 1
    assert "wrong.zip: decoder/dpt/" in capsys.readouterr().err
    assert bench(*command, "--set", "head_weights=/nowhere.zip") == 2
    assert "--set head_weights: /nowhere.zip: cannot be read" in capsys.readouterr().err


def test_a_protocol_that_makes_no_sense_is_refused_in_one_line(data, tmp_path, capsys):
    command = ["run", "--model", "random-vit", "--task", "depth/nyuv2", "--protocol", "dinov2", "--data", str(data)]
    for field, said in (
        ("crop=[5]", "crop must be"),
        ("colour=jitter", "colour_ranges has 3 values, jitter needs 4"),
    ):
        assert bench(*command, "--results", str(tmp_path), "--set", field) == 2
        assert said in capsys.readouterr().err


def test_rmse_of_hand_computed_pictures():
    """Eigen's window, the exclusive range, the clamp, then per image or pooled."""
    p = preset("depth", "dinov2")
    target, guess = np.full((480, 640), 4.0, np.float32), np.full((480, 640), 4.0, np.float32)
    guess[:45] = guess[471:] = guess[:, :41] = guess[:, 601:] = 9.0  # outside the window: not seen
    target[45, 41] = 10.0  # at the limit: not scored
    target[46, 41], target[47, 41] = 0.0, np.nan
    guess[100, 100] = 7.0  # 3 m off
    guess[200, 200], target[200, 200] = 55.0, 9.0  # clamped to 10 m: 1 m off
    row = score(guess, target, p, 10.0)
    n = 426 * 560 - 3
    assert row["n"] == n and row["sse"] == pytest.approx(10)
    assert row["rmse"] == pytest.approx(math.sqrt(10 / n))
    assert eigen_crop(np.zeros((480, 640))).shape == (426, 560) and eigen_crop(np.zeros((96, 96))).shape == (85, 84)


def test_the_range_of_depth_is_told_to_a_tenth_of_a_millimetre():
    maps = np.array([[[0.12345, 2.0], [np.nan, -1.0]], [[3.00005, 0.0], [0.5, 4.0]]])
    data = {"test": SimpleNamespace(images=range(2), target=lambda i: maps[i])}
    assert depth_range(data, 0.2, 3.5) == {"test": {"median_m": 2.0, "counted": 0.6}}
    data["test"].target = lambda i: np.array([[0.12346, 1.0, 1.0]])[:, : 1 + i]
    assert depth_range(data, 0.5, 9) == {"test": {"median_m": 0.1235, "counted": 0.3333}}


def test_depths_are_looked_at_from_the_first_map_to_the_last():
    seen: list[int] = []

    def target(index: int) -> np.ndarray:
        seen.append(index)
        return np.ones((1, 1))

    depth_range({"test": SimpleNamespace(images=range(46), target=target)}, 0.2, 3.5)
    assert seen == list(range(0, 46, 3))
    seen.clear()  # where none of those is in the range, the others in their order, until one is
    far = SimpleNamespace(images=range(46), target=lambda i: target(i) * (1 if i in (4, 5, 40) else 99))
    assert depth_range({"test": far}, 0.2, 3.5) == {"test": {"median_m": 99.0, "counted": round(1 / 19, 4)}}
    assert seen == [*range(0, 46, 3), 1, 2, 4]


def test_what_sees_no_picture_says_the_mean_of_the_depths_that_count(tmp_path):
    context = memory(tmp_path, preset("depth", "dinov2", **{**SMALL, "steps": 1, "max_depth": 2.0}))
    outcome = TASK.method(context.protocol).run(context)
    train, test = (context.data[split] for split in ("train", "test"))
    seen = np.concatenate([train.target(i).ravel() for i in range(len(train.images))]).astype(np.float64)
    mean = seen[seen <= 2].mean()
    expected = [score(np.full(m.shape, mean, np.float32), m, context.protocol, 2.0) for m in map(test.target, range(4))]
    assert outcome.blind[0]["rmse"] == pytest.approx([row["rmse"] for row in expected])
    assert 1.0 < mean < 2.0 < seen.max()


def test_average_chooses_the_main_metric_and_both_are_reported(tmp_path):
    context = memory(tmp_path, preset("depth", "dinov2", **{**SMALL, "steps": 5}, average="pooled"))
    outcome = TASK.method(context.protocol).run(context)
    assert outcome.main_metric == "RMSE pooled"
    values = {m.name: m.statistic.of(outcome.samples) for m in outcome.measurements}
    assert values["RMSE"] == pytest.approx(np.mean(outcome.samples["rmse"]))
    pooled = math.sqrt(outcome.samples["sse"].sum() / outcome.samples["n"].sum())
    assert values["RMSE pooled"] == pytest.approx(pooled)


def test_relative_depth_is_probe3ds():
    depth = np.array([[0.0, 0.5, 0.75, 1.0, np.inf]], np.float32)
    assert relative_depth(depth)[0] == pytest.approx([0, 0.01, 0.505, 1.0, 0], abs=1e-6)
    assert relative_depth(np.array([[0.500, 0.504]], np.float32))[0] == pytest.approx([0.01, 0.406], abs=1e-3)
    assert not relative_depth(np.zeros((2, 2), np.float32)).any()


def test_alignment_removes_scale_and_shift():
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 5, (6, 7))
    target[0] = 0
    guess = (target - 0.7) / 2.5
    assert scale_and_shift(guess, target, 0.0, np.inf)[1:] == pytest.approx(target[1:])
    noisy = guess + rng.normal(0, 0.1, guess.shape)
    valid = target > 0
    design = np.stack([noisy[valid], np.ones(valid.sum())], 1)
    a, b = np.linalg.lstsq(design, target[valid], rcond=None)[0]
    assert scale_and_shift(noisy, target, 0.0, np.inf) == pytest.approx(a * noisy + b)
    p = preset("depth", "paper", "navi", alignment="scale_shift")
    assert score(guess, target, p, 1.0)["rmse"] == pytest.approx(0, abs=1e-9)


def test_flip_test_is_the_mean_with_the_mirrored_prediction():
    data = ColourDepth(Ramps(3, 0))
    p = preset("depth", "dinov2")
    ramp = torch.arange(40.0)

    def predict(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return images[:, :1] + ramp  # the picture itself, and something that is not mirrored with it

    for index, found, target in predicted(data, range(3), p, predict):
        expected = data.images.load(index)[..., 0] / 255 + (ramp + ramp.flip(0)).numpy() / 2
        assert found[0].numpy() == pytest.approx(expected, abs=1e-5) and target.shape == (32, 40)


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_released_heads_see_the_stretch_of_their_notebook(task):
    """torchvision's Resize of a PIL picture is bilinear; in training and test alike."""
    data, seen = ColourDepth(Ramps(1, 0)), []
    p = preset(task, "dpt", resize=16, colour_p=0.0)

    def predict(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        seen.append(images[0])
        return torch.zeros(1, 1, *size)

    list(predicted(data, range(1), p, predict))
    image = Image.fromarray(data.images.load(0))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    assert (expected != np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))).any()
    assert (seen[0].permute(1, 2, 0).numpy() * 255).round() == pytest.approx(expected)
    trained, _ = augmented(data.images.load(0), data.target(0), p, np.random.default_rng(0))
    assert trained == pytest.approx(expected)


SMALL: dict[str, Any] = {
    "steps": 120, "batch_size": 4, "bins": 32, "max_depth": 4.0, "channels": 12, "learning_rate": 0.05,
    "warmup_steps": 10, "crop": (), "border_crop": "none", "eval_crop": "none", "colour_p": 0.0, "rotate_p": 0.0,
    "sig_warmup": 5, "unpad": True,
}  # fmt: skip


def memory(tmp_path, protocol) -> Any:
    return MemoryContext(protocol, {"train": ColourDepth(Ramps(24, 1)), "test": ColourDepth(Ramps(4, 2))}, tmp_path)


def spread(context: MemoryContext) -> float:
    """RMSE of the best constant."""
    return float(np.stack([context.data["test"].target(i) for i in range(4)]).std())


@pytest.mark.parametrize(("name", "share"), [("dinov2", 0.25), ("dinov3", 0.4)])
def test_linear_heads_learn_depth_that_can_be_learnt(tmp_path, name, share):
    context = memory(tmp_path, preset("depth", name, **SMALL))
    context.keep_predictions = 1
    outcome = TASK.method(context.protocol).run(context)
    assert outcome.samples["rmse"].mean() < share * spread(context)
    kept = [name for name in outcome.files if name.startswith("pictures/")]
    best = outcome.samples["rmse"].min()
    assert sorted(name.split("_")[0] for name in kept) == [f"pictures/{w}-1" for w in ("best", "median", "worst")]
    assert any(name.startswith(f"pictures/best-1_RMSE-{best:.3g}_") for name in kept)


def test_the_loss_that_is_trained_is_that_of_each_devices_pictures(tmp_path, monkeypatch):
    seen = []
    of = training_losses.sig_loss
    monkeypatch.setattr("tasks.trained_depth.sig_loss", lambda g, *more, **k: seen.append(len(g)) or of(g, *more, **k))
    context = memory(tmp_path, preset("depth", "dinov2", **{**SMALL, "steps": 1, "batch_size": 5}))
    TASK.method(context.protocol).run(context)
    assert seen == [2, 2, 1]


def test_the_variance_counts_after_its_steps_and_pixels_up_to_the_limit(tmp_path, monkeypatch):
    seen, gradients = [], []
    of = training_losses.sig_loss

    def noted(guess, truth, valid, with_variance):
        seen.append((with_variance, bool((valid == ((truth > 0) & (truth <= 2))).all()), bool(valid.all())))
        return of(guess, truth, valid, with_variance=with_variance)

    monkeypatch.setattr("tasks.trained_depth.sig_loss", noted)
    monkeypatch.setattr("tasks.trained_depth.gradient_loss", lambda *given: gradients.append(given[3]) or 0.0)
    few = {"steps": 3, "batch_size": 2, "max_depth": 2.0, "sig_warmup": 2, "loss_group": 0}
    for weight in (0.0, 0.5):
        context = memory(tmp_path, preset("depth", "dinov2", **{**SMALL, **few}, gradient_weight=weight))
        TASK.method(context.protocol).run(context)
    assert seen == [(False, True, False), (False, True, False), (True, True, False)] * 2
    assert gradients == [context.protocol.gradient_axes] * 3


def test_a_dpt_head_learns_depth_that_can_be_learnt(tmp_path):
    context = memory(tmp_path, preset("depth", "dpt", **{**SMALL, "steps": 40, "learning_rate": 5e-3}, resize=0))
    assert TASK.method(context.protocol).run(context).samples["rmse"].mean() < 0.6 * spread(context)


def test_navis_relative_depth_starts_at_the_nearest_pixel_of_the_uncut_picture(tmp_path):
    """Probe3D takes the least depth before it cuts the picture to a square: the object may reach beyond that."""
    root = navi(tmp_path)
    for scene in ("multiview_00_pixel_5", "wild_set"):
        for file in (root / "dino" / scene / "depth").glob("*.png"):
            height, width = np.asarray(Image.open(file)).shape
            metres = np.linspace(0.2, 1.0, 80)[None].repeat(60, 0)  # along the longer side
            code = (655.35 / (metres if width > height else metres.T)).round().astype(np.uint16)
            Image.fromarray(code).save(file)
    p = preset("depth", "paper", "navi")
    options = TASK.method(p).dataset_options("navi")
    data = open_dataset("navi", tmp_path, {**options, "size": "64"}).data("depth", "test")
    shown = trained_data({"test": data}, p)["test"].target(0)  # the middle 60 of 80 columns
    assert shown.max() == pytest.approx(1.0) and shown.min() == pytest.approx(0.01 + 0.99 * 10 / 69, abs=0.01)
    assert TASK.method(p).dataset_options("nyuv2") == {} == TASK.method(preset("depth", "fast")).dataset_options("navi")


def test_relative_targets_are_what_is_trained_and_scored(tmp_path):
    p = preset("depth", "paper", "navi", steps=2, batch_size=2, channels=4, resize=0, colour_p=0.0, bins=8)
    outcome = TASK.method(p).run(memory(tmp_path, p))
    assert (outcome.samples["n"] == 32 * 40).all() and outcome.samples["rmse"].max() < 1
    assert outcome.measurements[0].unit == ""


def test_navi_is_scaled_once_and_by_the_whole_picture_as_probe3d_scales_it():
    """Its nearest pixel is that of the picture as it was stored, its farthest that of the part that is shown."""
    raw = np.tile(np.linspace(0.4, 0.6, 96, dtype=np.float32), (64, 1))
    framed: Any = SimpleNamespace(
        framing=Framing(32, True), raw_depth=lambda index: raw, digest="", uniform_shape=None, cheap=True
    )
    assert TASK.method(preset("depth", "paper", "navi")).dataset_options("navi") == {"depth": "relative"}
    assert TASK.method(preset("depth", "paper")).dataset_options("nyuv2") == {}
    own, metric = NaviDepth(framed, True), NaviDepth(framed, False)
    found = trained_data({"train": metric, "test": own.take([0])}, preset("depth", "paper", "navi"))
    assert found["test"].target(0).min() > 0.15 and found["test"].target(0).max() == pytest.approx(1.0)
    assert found["train"].target(0).min() == pytest.approx(0.01), "the user asked for metres: scaled as any other map"
