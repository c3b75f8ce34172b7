"""Linear segmentation by the `paper`, `dinov2` and `dinov3` presets: mmengine's Runner from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import miniatures
import pytest
from command import bench
from safetensors.torch import load_file
from small import SmallEncoder
from training_context import preset

from benchmark.protocol import load_protocol
from benchmark.registry import protocol_file
from benchmark.rows.row import Row, read_all
from benchmark.system.plurals import number_of
from tasks.linear_segmentation import TASK

ROOT = Path(__file__).parents[1]
FILE = protocol_file("linear_segmentation")
SMALL = ["batch_size=2", "short_side=32", "crop=32", "window=32", "stride=21", "warmup_steps=2"]


def words(*more: str, preset: str = "paper", fields: list[str] = SMALL) -> list[str]:
    sets = [w for field in fields for w in ("--set", field)]
    return ["run", "--model", "pixels", "--protocol", preset, "--no-check", *sets, *more]


def only_row(results: Path) -> Row:
    (row,), problems = read_all(results)
    assert not problems
    return row


def test_paper_preset_on_scenes_with_few_steps_only(tmp_path, capfd):
    fields = ["steps=3", "batch_size=4"]
    assert bench(*words("--task", "linear_segmentation/scenes", "--limit", "4", "--cross-check",
                        "--results", str(tmp_path), fields=fields)) == 0  # fmt: skip
    row = only_row(tmp_path)
    assert row.data.task.n == 4 and 0 <= row.main.value <= 100 and row.data.timing.fit_s > 0
    used = {name: field.value for name, field in row.data.protocol.fields.items()}
    assert (used["crop"], used["window"], used["photometric"], used["scale_range"]) == (0, 0, False, [0.5, 2.0])
    assert row.data.details["cross_check"]["difference"] <= 1e-6
    assert row.statistic().of(row.samples) == pytest.approx(row.main.value, rel=1e-12)
    lines = (row.folder / "curve.csv").read_text().splitlines()
    assert lines[0] == "step,learning_rate,loss,pixel_accuracy" and len(lines) == 4
    assert (row.folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    out, err = capfd.readouterr()
    assert "mmengine" not in out + err and "Warning" not in err  # mm*'s own log stays off the terminal
    left = Path(os.environ["BENCH_CACHE"]) / "heads" / row.data.request
    assert not left.exists()  # nor does it leave files


def test_on_scenes_the_presets_have_the_size_of_the_encoder_and_leave_colours_alone():
    tables = {
        d: load_protocol("linear_segmentation", TASK.schemas, FILE, "paper", None, d).values for d in (None, "scenes")
    }
    published, ours = tables[None], tables["scenes"]
    assert published.sized(96) == published and published.photometric
    sized = ours.sized(96)
    assert (sized.short_side, sized.crop, sized.window, sized.stride) == (96, 96, 96, 63)
    assert ours.sized(512).stride == 341 and ours.sized(1).stride == 1
    assert replace(ours, photometric=True).sized(512) == published


@pytest.mark.parametrize("preset", ["dinov2", "dinov3"])
def test_ade20k_in_its_official_layout_has_no_cap_on_the_long_side(tmp_path, preset):
    miniatures.ade20k(tmp_path / "data")
    line = words("--task", "linear_segmentation/ade20k", "--set", "steps=2", "--data", str(tmp_path / "data"),
                 "--results", str(tmp_path / "r"), preset=preset)  # fmt: skip
    assert bench(*line) == 0
    row = only_row(tmp_path / "r")
    assert len(row.samples["union"][0]) == 150
    fields = row.data.protocol.fields
    assert fields["long_side"].value == 0 and fields["dropout"].value == (0.1 if preset == "dinov3" else 0.0)


@pytest.mark.parametrize(("choice", "pictures"), [("train", 3), ("trainaug", 6)])
def test_voc_training_list_is_a_field_of_the_protocol(tmp_path, choice, pictures):
    from benchmark.engine.load_task import load_task

    root = miniatures.voc2012(tmp_path)
    (root / "ImageSets" / "Segmentation" / "trainaug.txt").unlink(missing_ok=True)
    task = load_task("linear_segmentation/voc2012", protocol="paper", data=tmp_path, overrides={"voc_train": choice})
    assert task.protocol.values.long_side == 2048
    names = (root / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    assert len(task.data["train"].images) == (len(names) if choice == "train" else pictures - 1)


def test_voc_runs_from_the_command_line(tmp_path):
    miniatures.voc2012(tmp_path / "data")
    line = words("--task", "voc2012", "--set", "steps=2", "--set", "voc_train=trainaug", "--set", "with_cls=true",
                 "--data", str(tmp_path / "data"), "--results", str(tmp_path / "r"))  # fmt: skip
    assert bench(*line) == 0
    assert only_row(tmp_path / "r").data.task.n == 2


def test_killed_while_training_continues_from_its_checkpoint_to_the_same_numbers(tmp_path, monkeypatch):
    fields = [*SMALL, "steps=900", "dropout=0.1"]
    line = words("--task", "linear_segmentation/scenes", "--limit", "6", fields=fields)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    scenes = Path(os.environ["BENCH_TEST_CACHE"]) / "scenes"
    scenes.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").mkdir()
    os.symlink(scenes, tmp_path / "cache" / "scenes", target_is_directory=True)
    assert bench(*line, "--results", str(tmp_path / "calm")) == 0

    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmark.cli", *line, "--results", str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    heads = tmp_path / "cache" / "heads"
    while process.poll() is None and not (found := list(heads.glob("*/probe.safetensors"))):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < int(load_file(found[0])["step"]) < 900
    assert not read_all(tmp_path / "killed")[0]

    assert bench(*line, "--results", str(tmp_path / "killed")) == 0
    calm, again = only_row(tmp_path / "calm"), only_row(tmp_path / "killed")
    assert again.data.metrics == calm.data.metrics
    for name in ("samples.parquet", "curve.csv"):
        assert (again.folder / name).read_bytes() == (calm.folder / name).read_bytes()
    assert not heads.exists() or not list(heads.iterdir())


def test_a_damaged_checkpoint_is_named_and_trained_again(tmp_path, caplog):
    from tasks.mm.checkpoint import Checkpoint

    (tmp_path / "probe.safetensors").write_bytes(b"\x80\x04 no safetensors")
    assert Checkpoint(tmp_path / "probe.safetensors").read() is None
    assert "probe.safetensors: is damaged" in caplog.text and "from its first step" in caplog.text


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("stride=64", "stride 64 is larger than the window 32"),
        ("betas=[0.9]", "betas must have two values"),
        ("steps=0", "--set steps: 0 must be at least 1"),
        ("crop=-1", "--set crop: -1 must be at least 0"),
        ("scale_range=[2.0, 0.5]", "must rise from above zero"),
    ],
)
def test_impossible_fields_are_one_line(tmp_path, capsys, field, message):
    assert bench(*words("--task", "linear_segmentation/scenes", "--set", field, "--results", str(tmp_path))) == 2
    assert message in capsys.readouterr().err


def test_a_layer_the_encoder_lacks_is_not_applicable(tmp_path, capsys):
    line = words("--task", "linear_segmentation/scenes", "--limit", "4", "--results", str(tmp_path))
    assert bench(*line, "--set", "layers=[-9, -1]") == 0
    assert "pixels has 1 layer, the protocol asks for layer -9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layers", "depth", "asked"),
    [((-1,), 0, None), ((1,), 1, 1), ((0, 1), 2, None), ((-2, -1), 2, None), ((-3, -1), 2, -3), ((2,), 2, 2)],
)
def test_layers_are_asked_of_encoders_that_have_them(layers, depth, asked):
    method = TASK.method(preset("linear_segmentation", "dinov2", layers=layers))
    said = method.not_applicable(replace(SmallEncoder().card, depth=depth))
    has = number_of(depth, "layer")
    assert said is None if asked is None else said.endswith(f"has {has}, the protocol asks for layer {asked}")


def test_forwards_for_a_plan_are_those_of_crops_and_windows():
    from benchmark.protocol import load_protocol
    from benchmark.registry import load_task, protocol_file

    task = load_task("linear_segmentation")
    fields = load_protocol(task.name, task.schemas, protocol_file(task.name), "paper", {"steps": "10"}).values
    # 500 × 375 becomes 683 × 512: two windows of 512, stride 341; 500 × 500 is one
    card = SmallEncoder().card
    assert task.method(fields).live_forwards(card, [(375, 500), (500, 500)], 8) == {(512, 512): 160 + 2 + 1}


def test_pictures_of_the_best_and_worst_predictions_are_kept(tmp_path):
    line = words("--task", "linear_segmentation/scenes", "--limit", "6", "--set", "steps=2", "--save-predictions", "1",
                 "--results", str(tmp_path))  # fmt: skip
    assert bench(*line) == 0
    names = [p.name for p in (only_row(tmp_path).folder / "pictures").glob("*.png")]
    assert len(names) == 3 and any(n.startswith("worst") for n in names)


def test_stopped_while_scoring_does_not_train_again(tmp_path, monkeypatch, capsys):
    from tasks.mm.train import ProbeHook

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    miniatures.voc2012(tmp_path / "data")
    line = words("--task", "voc2012", "--set", "steps=3", "--data", str(tmp_path / "data"))
    assert bench(*line, "--results", str(tmp_path / "calm")) == 0
    with monkeypatch.context() as stopped:
        stopped.setattr("tasks.mm.probe.confusion_areas", None)
        assert bench(*line, "--results", str(tmp_path / "again")) == 1

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(ProbeHook, "before_train_iter", never)
    assert bench(*line, "--results", str(tmp_path / "again")) == 0
    assert only_row(tmp_path / "again").data.metrics == only_row(tmp_path / "calm").data.metrics
    curves = [(only_row(tmp_path / d).folder / "curve.csv").read_bytes() for d in ("calm", "again")]
    assert curves[0] == curves[1]
