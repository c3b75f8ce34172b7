"""Every preset of the zero-shot, retrieval and vector tasks, from the command line on miniatures and on scenes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import miniatures
import pytest
from command import bench

from benchmark.protocol import load_protocol, presets
from benchmark.registry import load_task, protocol_file, suites, units
from benchmark.rows.row import read_all

TASKS = (
    "zero_shot_segmentation", "image_to_text_retrieval", "text_to_image_retrieval", "zero_shot_classification",
    "classification", "instance_retrieval",
)  # fmt: skip
MAKERS: dict[str, Callable[[Path], Any]] = {
    "ade150": miniatures.ade20k, "voc21": miniatures.voc2012, "pc59": miniatures.pascal_context,
    "pc60": miniatures.pascal_context, "coco": miniatures.coco, "flickr30k": miniatures.flickr30k,
    "docci": miniatures.docci, "imagenet1k": miniatures.imagenet, "uned": miniatures.uned,
}  # fmt: skip
SHORT = {
    "classification": [
        "ks=[1, 2]", "headline_k=2", "classification.epochs=1", "epoch_length=3", "batch=4", "judged_images=3",
    ],
    "zero_shot_segmentation": ["short_side=64", "window=32", "stride=16"],
}  # fmt: skip
MODEL = f"{Path(__file__).parent}/small_model.py:build"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All miniatures in one folder."""
    folder = tmp_path_factory.mktemp("data")
    for maker in dict.fromkeys(MAKERS.values()):
        maker(folder)
    return folder


def short(task: str, preset: str) -> list[str]:
    known = set(load_protocol(task, load_task(task).schemas, protocol_file(task), preset).fields())
    wanted = SHORT.get(task, [])
    return [w for change in wanted if change.partition("=")[0].rpartition(".")[2] in known for w in ("--set", change)]


@pytest.mark.parametrize("where", ["scenes", "miniatures"])
@pytest.mark.parametrize(("task", "preset"), [(t, p) for t in TASKS for p in presets(protocol_file(t))])
def test_a_preset_writes_complete_rows(task: str, preset: str, where: str, data: Path, tmp_path: Path) -> None:
    names = ["scenes"] if where == "scenes" else [u.dataset for u in units(task) if u.dataset in MAKERS]
    words = ["run", "--model", MODEL, "--protocol", preset, "--results", str(tmp_path), "--data", str(data)]
    words += [w for name in names for w in ("--task", f"{task}/{name}")] + short(task, preset)
    if where == "scenes" or task == "zero_shot_segmentation":  # windows of 448 pixels take their time
        words += ["--limit", "24" if task == "classification" else "2"]
    assert bench(*words, "--no-check") == 0
    rows, problems = read_all(tmp_path)
    assert not problems and sorted(r.unit for r in rows) == sorted(f"{task}/{name}" for name in names)
    for row in rows:
        assert row.data.protocol.name.removesuffix("+set") == preset
        for name, metric in row.data.metrics.items():
            assert row.statistic(name).of(row.samples) == pytest.approx(metric.value, rel=1e-12)
        assert len(next(iter(row.samples.values()))) == row.data.task.n


def test_the_paper_suite_resolves_and_every_unit_has_the_preset() -> None:
    suite = suites()["paper"]
    assert suite["protocol"] == "paper" and len(suite["units"]) == 19
    for word in suite["units"]:
        (unit,) = units(word)
        task = load_task(unit.task)
        protocol = load_protocol(unit.task, task.schemas, protocol_file(unit.task), "paper", None, unit.dataset)
        assert protocol.origins and all(origin.source for origin in protocol.origins.values())


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A calibration of half a second."""
    monkeypatch.setattr("benchmark.forecast.forecast.CALIBRATION_S", 0.5)


def test_plan_before_anything_is_downloaded(capsys: pytest.CaptureFixture[str], tmp_path: Path, hurried: None) -> None:
    """The paper suite for a model whose weights are not here, on data that are not here."""
    assert bench("plan", "--suite", "paper", "--model", "tipsv2-b", "--data", str(tmp_path), "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    lines = {u["unit"]: u for u in plan["units"]}
    assert len(lines) == 19 and "one random block" in plan["note"]
    assert lines["classification/imagenet1k"]["live"] == 10 * 1250 * 1024
    assert lines["classification/imagenet1k"]["shared"] == 50_000, "the test pictures of zero-shot classification"
    assert lines["instance_retrieval/uned"]["forwards"] == 241_986 + 1_397_126
    assert lines["text_to_image_retrieval/coco"]["shared"] == 5_000
    assert lines["linear_segmentation/ade20k"]["head_steps"] == 40_000
    assert lines["linear_segmentation/ade20k"]["live"] >= 40_000 * 16 + 2_000
    assert all(u["seconds"] > 0 for u in plan["units"] if u["forwards"] - u["shared"] + u["live"])
    assert plan["fast"]["forwards"] < plan["forwards"] / 2 and plan["fast"]["seconds"] < plan["seconds"]


def test_plan_counts_windows_of_the_pictures_there_are(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, hurried: None
) -> None:
    words = ["plan", "--model", "pixels", "--model", "random-vit", "--task", "pc59", "--protocol", "notebook"]
    assert bench(*words, "--data", str(data), "--results", str(tmp_path), "--json") == 0
    pixels, vit, _ = map(json.loads, capsys.readouterr().out.splitlines())  # the last: what both decode
    assert pixels["units"][0]["note"].startswith("n/a")
    assert vit["units"][0]["live"] == 3 * 2, "24 × 32 pixels become 448 × 597: two windows each"
