"""Surface normals with trained heads: rows for every preset and dataset, conventions by hand, learning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import bench
from dpt_layouts import flax_tree, write_zip
from miniatures import navi, nyu_labelled
from test_cli_run import FIELDS
from training_context import ColourNormals, MemoryContext, Ramps, preset

from benchmark.registry import open_dataset
from benchmark.rows.row import read_all
from tasks.normals import TASK
from tasks.training.scoring import predicted

TINY = ("steps=3", "batch_size=2", "channels=8", "resize=48", "warmup_steps=1")


def words(*fields: str) -> list[str]:
    return [word for field in (*TINY, *fields) for word in ("--set", field)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    nyu_labelled(folder)
    navi(folder)
    return folder


@pytest.mark.parametrize("name", ["paper", "dpt"])
def test_every_preset_makes_complete_rows_on_every_dataset(name, data, tmp_path):
    command = ["run", "--model", "random-vit", "--task", "normals", "--protocol", name, "--data", str(data)]
    assert bench(*command, "--limit", "4", "--results", str(tmp_path), *words()) == 0
    rows = {r.data.task.dataset: r for r in read_all(tmp_path)[0]}
    assert sorted(rows) == ["navi", "nyuv2", "scenes"]
    for row in rows.values():
        for field, kind in FIELDS.items():
            assert isinstance(row.data.json()[field], kind), field
        assert row.data.main_metric == "angular RMSE"
        for metric, found in row.data.metrics.items():
            low, high = found.ci95
            assert low <= found.value <= high and math.isfinite(found.value)
            assert row.statistic(metric).of(row.samples) == pytest.approx(found.value, rel=1e-12)
        assert 0 < row.data.metrics["angular RMSE"].value < 180 and (row.samples["n"] > 0).all()
        assert len((row.folder / "curve.csv").read_text().splitlines()) == 4
        assert row.data.details["layers"] == [0, 1, 2, 3]
    assert rows["navi"].statistic("angular RMSE").cluster == "thing" and set(rows["navi"].samples["thing"]) == {"dino"}
    assert rows["nyuv2"].statistic("angular RMSE").cluster is None
    fields = {name: row.data.protocol.fields for name, row in rows.items()}
    if name == "paper":
        assert fields["nyuv2"]["test_square"].value and not fields["navi"]["test_square"].value
        assert fields["nyuv2"]["loss"].value == "uncertainty"
        assert rows["nyuv2"].samples["n"][0] <= 24 * 24 < 24 * 32  # the middle square of the miniature


def test_paper_counts_every_pixel_with_a_depth_and_dpt_those_with_a_normal(data, tmp_path):
    for name, counted in (("paper", "depth"), ("dpt", "normal")):
        command = ["run", "--model", "random-vit", "--task", "normals/navi", "--protocol", name, "--data", str(data)]
        assert bench(*command, "--results", str(tmp_path / name), *words()) == 0
        (row,) = read_all(tmp_path / name)[0]
        assert row.data.protocol.fields["valid"].value == counted
        navi_data = open_dataset("navi", data)
        depths, normals = (navi_data.data(kind, "test") for kind in ("depth", "normals"))
        every = [int((depths.target(i) > 0).sum()) for i in range(2)]
        inner = [int((normals.target(i) != 0).any(-1).sum()) for i in range(2)]
        assert row.samples["n"].tolist() == (every if counted == "depth" else inner) and inner < every


def test_a_released_head_is_read_and_its_frame_can_be_turned(data, tmp_path):
    head = write_zip(tmp_path / "normals_dpt.zip", flax_tree(width=128, out=3, head="pixel_normals"))
    found = {}
    for axes in ("[1,1,1]", "[-1,-1,-1]"):
        command = ["run", "--model", "random-vit", "--task", "normals/nyuv2", "--protocol", "dpt", "--data", str(data)]
        command += ["--results", str(tmp_path / axes), *words(f"head_weights={head}", f"axes={axes}")]
        assert bench(*command) == 0
        (row,) = read_all(tmp_path / axes)[0]
        found[axes] = row.data.metrics["mean angle"].value
    assert sum(found.values()) == pytest.approx(180, abs=0.01)


def test_fields_that_contradict_each_other_are_refused(data, tmp_path, capsys):
    command = ["run", "--model", "random-vit", "--task", "normals/nyuv2", "--protocol", "paper", "--data", str(data)]
    for field, said in (
        ("rotate_p=0.5", "turning a picture would turn its normals"),
        ("axes=[1,0,1]", "axes must be three signs"),
        ("unit_first=true", "unit_first has no meaning with a fourth channel"),
    ):
        assert bench(*command, "--results", str(tmp_path), "--set", field) == 2
        assert said in capsys.readouterr().err


def memory(tmp_path, protocol) -> Any:
    data = {"train": ColourNormals(Ramps(24, 1)), "test": ColourNormals(Ramps(4, 2))}
    return MemoryContext(protocol, data, tmp_path)


DPT = {"steps": 80, "channels": 12, "learning_rate": 3e-3}
LINEAR = {"steps": 150, "head": "linear", "learning_rate": 0.05, "align_corners": False}


@pytest.mark.parametrize(
    ("loss", "head", "share"), [("uncertainty", DPT, 0.8), ("angular", LINEAR, 0.75), ("l2", LINEAR, 0.75)]
)
def test_heads_learn_normals_that_can_be_learnt(tmp_path, loss, head, share):
    small = {"batch_size": 4, "warmup_steps": 4, "colour_p": 0.0, "resized_crop_p": 0.0, **head}
    context = memory(tmp_path, preset("normals", "paper", **small, loss=loss))
    outcome = TASK.method(context.protocol).run(context)
    truth = np.concatenate([context.data["test"].target(i)[:, 4:36].reshape(-1, 3) for i in range(4)])
    mean = truth.mean(0) / np.linalg.norm(truth.mean(0))
    constant = np.sqrt(np.mean(np.degrees(np.arccos(np.clip(truth @ mean, -1, 1))) ** 2))  # one direction for all
    assert outcome.samples["angular_rmse"].mean() < share * constant
    assert (outcome.samples["n"] == 32 * 32).all()  # the middle square


def test_flip_test_turns_x_of_the_mirrored_prediction():
    p = preset("normals", "paper", flip_test=True, test_square=False)

    def predict(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return torch.tensor([0.6, 0.0, -0.8])[None, :, None, None].expand(len(images), 3, *size)

    ((_, found, _),) = predicted(ColourNormals(Ramps(1, 0)), [0], p, predict)
    assert found[:, 0, 0].tolist() == pytest.approx([0.0, 0.0, -0.8])


def test_one_angle_everywhere_is_the_rmse_per_image_and_pooled(tmp_path):
    """Per image, then mean: 10° on one picture and 30° on another, whatever their sizes."""
    p = preset("normals", "paper", test_square=False)
    from benchmark.metrics.geometry import normal_errors
    from tasks.dense import stack_rows
    from tasks.normals import normal_measurements

    rows = []
    for degrees, size in ((10, (2, 3)), (30, (4, 5))):
        turn = math.radians(degrees)
        target = np.zeros((*size, 3), np.float32)
        target[..., 2] = -1
        guess = np.broadcast_to(np.array([math.sin(turn), 0, -math.cos(turn)]), target.shape)
        rows.append({"id": str(degrees), **normal_errors(guess.copy(), target)})
    values = {m.name: m.statistic.of(stack_rows(rows)) for m in normal_measurements()}
    assert values["angular RMSE"] == pytest.approx(20) and p.average == "image"
    assert [m.name for m in normal_measurements() if m.higher_is_better] == ["11.25°", "22.5°", "30°"]
    assert values["angular RMSE pooled"] == pytest.approx(math.sqrt((6 * 100 + 20 * 900) / 26))


def test_navis_normals_are_an_option_of_navi_alone() -> None:
    method = TASK.method(preset("normals", "paper"))
    with_option = [name for name in ("a", "navi", "nyuv2", "scenes") if "normals" in method.dataset_options(name)]
    assert with_option == ["navi"] and method.dataset_options("navi")["normals"] == method.protocol.navi_normals


@dataclass
class Stored(MemoryContext):
    """A context with features drawn at random."""

    def features(self, need: str) -> torch.Tensor:
        shape = {"train/pixels": (6, self.protocol.pixels(6), 6), "test/patches": (2, 4, 4, 6)}[need]
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class WithoutDirection(ColourNormals):
    """Rows 0 to 4 count, and have no direction; row 5 does not count."""

    def counted(self, index: int) -> np.ndarray:
        target = self.target(index)
        target[:5], target[5] = 0, np.nan
        return target


def test_a_counted_pixel_without_direction_is_90_degrees_off_for_fast_too(tmp_path: Path) -> None:
    data = {"train": ColourNormals(Ramps(6, 1)), "test": WithoutDirection(Ramps(2, 2))}
    context: Any = Stored(preset("normals", "fast"), data, tmp_path)
    outcome = TASK.method(context.protocol).run(context)
    for columns in (outcome.samples, outcome.blind[0]):
        assert columns["n"].tolist() == [31 * 40] * 2 and (columns["angles"][:, 900] >= 5 * 40).all()
