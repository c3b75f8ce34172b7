"""bench look --task: what a probe saw beside what it predicted, its floor, and what the truth gets on its grid."""

from __future__ import annotations

import io
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import told
from PIL import Image
from small import Noise, made

from benchmark.contracts import KINDS, ImageTransform, Measurement
from benchmark.engine.options import RunOptions
from benchmark.errors import UsageError
from benchmark.images.views import ResolvedView
from benchmark.look import task as task_look
from benchmark.look.ceiling import ceiling
from benchmark.look.task import look_at_task
from benchmark.metrics.segmentation import miou
from tasks.depth import depth_measurements
from tasks.normals import normal_measurements

EXAMPLES = Path(__file__).parents[1] / "examples" / "my_task"
ENCODER = """
from small import SmallEncoder
def build(spec):
    return SmallEncoder("mine")
"""
SQUARE = ResolvedView(ImageTransform("square", 32))
PADDED = ResolvedView(None, 0, 32)
LABELS = (np.arange(40 * 48).reshape(40, 48) % 7).astype(np.uint8)
LABELS[:4] = 255
DEPTH = np.linspace(1, 9, 40 * 48, dtype=np.float32).reshape(40, 48)
DEPTH[:4] = 0
NORMALS = np.random.default_rng(0).normal(size=(40, 48, 3))
NORMALS = (NORMALS / np.linalg.norm(NORMALS, axis=-1, keepdims=True)).astype(np.float32)
NORMALS[:4] = 0
CASES: dict[str, tuple[Any, Any, float]] = {
    "segmentation": (LABELS, Measurement("mIoU", miou(), True, "%"), 100.0),
    "depth": (DEPTH, depth_measurements()[0], 0.0),
    "normals": (NORMALS, normal_measurements()[0], 0.0),
}


def reached(kind: str, grid: tuple[int, int], view: ResolvedView, protocol: Any = None, **more: Any) -> float | None:
    target, measured, _ = CASES[kind]
    data = made(KINDS[kind], images=Noise(2), target=lambda i: target, class_names=list("abcdefg"), **more)
    return ceiling(data, range(2), grid, view, measured, protocol or SimpleNamespace())


@pytest.mark.parametrize("kind", CASES)
def test_the_truth_on_a_grid_of_every_pixel_is_the_best_value(kind: str) -> None:
    assert reached(kind, (40, 48), SQUARE) == pytest.approx(CASES[kind][2], abs=1e-3)
    assert reached(kind, (64, 64), PADDED) == pytest.approx(CASES[kind][2], abs=1e-3), "the border holds no target"


def test_the_truth_on_one_patch_is_what_a_constant_gets() -> None:
    scored = DEPTH[DEPTH > 0]
    assert reached("depth", (1, 1), SQUARE) == pytest.approx(scored.std(), rel=1e-5)
    assert reached("depth", (1, 1), PADDED) == pytest.approx(scored.std(), rel=1e-5)
    _, counts = np.unique(LABELS[4:], return_counts=True)
    assert reached("segmentation", (1, 1), SQUARE) == pytest.approx(100 * counts.max() / LABELS[4:].size / 7)


def test_a_crop_of_view_or_protocol_has_no_such_value() -> None:

    assert reached("depth", (4, 4), ResolvedView(ImageTransform("short-side", 32, crop=32))) is None
    assert reached("depth", (4, 4), SQUARE, SimpleNamespace(crop="eigen")) is None
    assert reached("depth", (40, 48), SQUARE, SimpleNamespace(max_depth=3.0, min_depth=0.1)) == pytest.approx(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("look")
    runpy.run_path(str(EXAMPLES / "make_data.py"))["main"](there / "data")
    for file in EXAMPLES.glob("*.toml"):
        shutil.copy(file, there)
    (there / "mine.py").write_text(ENCODER)
    return there


QUICK = {
    "linear_segmentation.penalties": "[1e-2]", "linear_segmentation.pixels_at_most": "32", "depth.bin_steps": "5",
    "linear_segmentation.judged_images": "3", "classification.ks": "[1, 5]", "classification.headline_k": "5",
    "classification.penalties": "[1e-1]", "classification.judged_images": "3", "depth.penalties": "[1e-1]",
}  # fmt: skip
DENSE = ("linear_segmentation", "depth", "normals", "zero_shot_segmentation", "in_context_segmentation")


@pytest.mark.parametrize(
    "task",
    [*DENSE, "classification", "zero_shot_classification", "image_to_text_retrieval", "text_to_image_retrieval",
     "instance_retrieval", "correspondence"],
)  # fmt: skip
def test_every_task_draws_the_samples_that_are_asked_for(
    folder: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    drawn: list[str] = []
    real = task_look.below_each_other
    monkeypatch.setattr(task_look, "below_each_other", lambda a, b, c: real(a, drawn.extend(b) or b, c))
    quick = {k: v for k, v in QUICK.items() if k.startswith(f"{task}.")}
    options = RunOptions(overrides=quick, check=False)
    found = look_at_task("mine.py:build", f"{task}.toml", count=2, options=options)
    assert found.lines[0].startswith(f"{task}/") and "without seeing a picture" in found.lines[1]
    assert ("by the true shares on its 4 × 4 patches" in found.lines[1]) == (task in DENSE)
    assert [title.split()[0] for title in drawn] == ["sample-1", "sample-2"]
    assert Image.open(io.BytesIO(found.png)).height > 2 * 144


def test_a_picture_is_found_by_its_name_and_the_training_half_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    drawn: list[str] = []
    monkeypatch.setattr("benchmark.look.task.below_each_other", lambda lines, titles, _: drawn.extend(titles) or b"")
    look_at_task("mine.py:build", "normals.toml", ["4.jpg", "8"], options=RunOptions(check=False))
    assert [title.split()[0::2] for title in drawn] == [["sample-1", "4.jpg"], ["sample-2", "8.jpg"]]
    look_at_task("mine.py:build", "correspondence.toml", ["3_b"], options=RunOptions(check=False))  # a pair's target
    assert drawn.pop().endswith("3   a.jpg   3   b.jpg")
    train = look_at_task("mine.py:build", "normals.toml", ["1"], split="train", options=RunOptions(check=False))
    assert "train: 18 samples" in train.lines[0]
    for words, said in (
        ({"names": ["nine"]}, "unknown picture 'nine'"),
        ({"split": "val"}, "--split val: normals/my-room has test and train"),
    ):
        with pytest.raises(UsageError, match=said):
            look_at_task("mine.py:build", "normals.toml", **words, options=RunOptions(check=False))
    with pytest.raises(UsageError, match="means 9 tasks"):
        look_at_task("mine.py:build", "scenes")
    with pytest.raises(UsageError, match="test alone: it learns from no training pictures"):
        look_at_task("mine.py:build", "zero_shot_segmentation.toml", split="train", options=RunOptions(check=False))


def test_the_command_writes_where_it_is_told_and_explains_bad_words(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    words = (
        "look",
        "--task",
        "instance_retrieval.toml",
        "-m",
        "mine.py:build",
        "-n",
        "1",
        "--out",
        str(tmp_path / "x"),
    )
    code, out, _ = told(capsys, *words)
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "x") and (tmp_path / "x").stat().st_size > 1000
    for wrong, said in (
        ([], "takes a picture, or --task"),
        (["photo.jpg", "--task", "depth.toml"], "takes one --model, no picture of your own"),
        (["--task", "depth.toml", "-m", "pixels", "-m", "random-vit"], "takes one --model"),
        (["--task", "zero_shot_segmentation.toml", "-m", "pixels"], "pixels has no patches in text space"),
    ):
        code, _, error = told(capsys, "look", *wrong)
        assert code in (1, 2) and said in error and len(error.splitlines()) == 1
