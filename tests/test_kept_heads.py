"""--save-heads: a trained head is kept beside its row, reads its own encoder alone, and is drawn on new pictures."""

from __future__ import annotations

import io
import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import told
from PIL import Image

from benchmark.engine.loading import load_encoder
from benchmark.engine.run import no_heads, run
from benchmark.errors import DataError, UsageError
from benchmark.heads.kept import read_head, refuse_another
from benchmark.look import head as look_head
from benchmark.look.head import look_with_head
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file, units
from benchmark.rows.row import read_row

EXAMPLES = Path(__file__).parents[1] / "examples" / "my_task"
ENCODER = """
from small import SmallEncoder
def build(spec):
    return SmallEncoder("mine")
def wider(spec):
    return SmallEncoder("wider", width=7)
def larger(spec):
    return SmallEncoder("larger", image_size=64)
"""
TASKS = ("linear_segmentation", "depth", "normals", "classification")
WORDS = [f"{task}.toml" for task in TASKS]
QUICK = {
    "linear_segmentation.penalties": "[1e-2]", "linear_segmentation.pixels_at_most": "64", "depth.bin_steps": "50",
    "linear_segmentation.judged_images": "3", "classification.ks": "[1, 5]", "classification.headline_k": "5",
    "classification.penalties": "[1e-1]", "classification.judged_images": "3", "depth.penalties": "[1e-1]",
}  # fmt: skip
PLAIN: dict[str, Any] = {"check": False, "results": "rows"}
HOW: dict[str, Any] = {**PLAIN, "overrides": QUICK}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    there = tmp_path_factory.mktemp("heads")
    runpy.run_path(str(EXAMPLES / "make_data.py"))["main"](there / "data")
    for task in TASKS:
        shutil.copy(EXAMPLES / f"{task}.toml", there)
    (there / "mine.py").write_text(ENCODER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(there)
        plain = run("mine.py:build", "normals.toml", **PLAIN).rows[0]
        assert not list(there.rglob("*.safetensors"))
        kept = run("mine.py:build", WORDS, **HOW, save_heads=True)
        assert kept.reused == 0 and len(kept.rows) == 4
        (again,) = (row for row in kept.rows if row.unit == plain.unit)
        assert again.main.value == plain.main.value and again.data.id == plain.data.id
        assert run("mine.py:build", WORDS, **HOW, save_heads=True).reused == 4
    return there


def head_of(folder: Path, task: str) -> Path:
    return next(folder.glob(f"rows/*/{task}/*/*/head.safetensors"))


@pytest.mark.parametrize("task", TASKS)
def test_the_file_says_which_encoder_it_reads_and_by_which_protocol(folder: Path, task: str) -> None:
    head, meta = read_head(head_of(folder, task))
    row = json.loads((head_of(folder, task).parent / "result.json").read_text())
    assert meta["weights"] == row["model"]["weights"]["sha256"] and meta["protocol_hash"] == row["protocol"]["hash"]
    assert (
        json.loads(meta["transform"]) == row["model"]["transform"]
        and meta["task"] == f"{task}/{row['task']['dataset']}"
    )
    weight, bias = head.arrays["weight"], head.arrays["bias"]
    assert len(weight) == len(bias) and {"view", "view_size"} <= head.use.keys()


def test_on_test_pictures_the_head_says_what_the_task_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same maps as the task's own, to the rounding of stored features."""
    monkeypatch.chdir(folder)
    seen: dict[str, list[np.ndarray]] = {}
    real = look_head._data

    def spied(head: Any, photos: Any, found: Any) -> Any:
        seen[head.kind] = found
        return real(head, photos, found)

    monkeypatch.setattr(look_head, "_data", spied)
    geometry = [folder / f"data/geometry/images/{i}.jpg" for i in (0, 4)]
    pictures = sorted(folder.glob("data/segmentation/test/images/*.jpg"))[:2]
    apples = sorted(folder.glob("data/classification/test/apple/*.jpg"))[:2]
    for task, photos in zip(TASKS, (pictures, geometry, geometry, apples)):
        png = look_with_head(head_of(folder, task), photos, "mine.py:build")
        assert Image.open(io.BytesIO(png)).width > 600
    samples = read_row(head_of(folder, "linear_segmentation").parent).samples
    for photo, found in zip(pictures, seen["segmentation"]):
        mask = np.asarray(Image.open(photo.parents[1] / "masks" / f"{photo.stem}.png"))
        hits = [int(((found == c) & (mask == c)).sum()) for c in range(3)]
        at = [Path(name).name for name in samples["id"]].index(photo.name)
        assert np.abs(np.array(hits) - samples["intersection"][at]).max() <= 3
    depths = read_row(head_of(folder, "depth").parent).samples
    names = [Path(name).name for name in depths["id"]]
    number = next(i for i in range(24) if f"{i}.jpg" in names)
    look_with_head(head_of(folder, "depth"), [folder / f"data/geometry/images/{number}.jpg"], "mine.py:build")
    truth = np.asarray(Image.open(folder / f"data/geometry/depth/{number}.png")) / 1000
    theirs = depths["rmse"][names.index(f"{number}.jpg")]
    assert np.sqrt(((seen["depth"][0] - truth) ** 2).mean()) == pytest.approx(theirs, rel=1e-2)
    classes = read_head(head_of(folder, "classification"))[0].use["names"]
    assert [classes[int(scores.argmax())] for scores in seen["labels"]] == ["apple", "apple"]
    assert seen["normals"][0].shape == (64, 64, 3)


def test_it_is_refused_for_any_other_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    photo = [folder / "data/geometry/images/0.jpg"]
    for model, said in (("wider", "whose weights are"), ("larger", "whose transform are"), (None, "Name it: --model")):
        with pytest.raises(UsageError, match=said):
            look_with_head(head_of(folder, "depth"), photo, model and f"mine.py:{model}")


def test_what_is_no_head_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("damaged.safetensors").write_bytes(head_of(folder, "depth").read_bytes()[:200])
    for file, photo, code, said in (
        ("damaged.safetensors", "mine.py", 1, "cannot be read as a head"),
        ("none.safetensors", "mine.py", 2, "no such file"),
        (str(head_of(folder, "depth")), "none.jpg", 2, "none.jpg: no such picture"),
    ):
        found, _, error = told(capsys, "look", photo, "--head", file, "-m", "mine.py:build")
        assert (found, len(error.splitlines())) == (code, 1) and said in error
    photo = str(folder / "data/geometry/images/0.jpg")
    found, out, _ = told(
        capsys, "look", photo, photo, "--head", str(head_of(folder, "depth")), "-m", "mine.py:build", "--out", "x.png"
    )
    assert found == 0 and out.strip() == "x.png" and Path("x.png").is_file()


def test_a_flipped_bit_is_refused(folder: Path, tmp_path: Path) -> None:
    content = bytearray(head_of(folder, "depth").read_bytes())
    content[-40] ^= 1
    (tmp_path / "head.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="does not agree with its checksum"):
        read_head(tmp_path / "head.safetensors")


def test_a_row_made_again_with_the_same_values_keeps_its_head(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    kept = head_of(folder, "normals").read_bytes()
    (row,) = run("mine.py:build", "normals.toml", **PLAIN, force=True).rows
    assert (row.folder / "head.safetensors").read_bytes() == kept


def test_a_task_that_trains_no_head_is_done_without_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(folder)
    how = {
        **HOW,
        "overrides": {"classification.linear": "false", "classification.ks": "[1]", "classification.headline_k": "1"},
    }
    assert run("mine.py:build", "classification.toml", **how, save_heads=True).reused == 0
    assert run("mine.py:build", "classification.toml", **how, save_heads=True).reused == 1
    assert (
        "--save-heads: no head is kept of classification/" in caplog.text
        and " by fast+set: it trains none" in caplog.text
    )


def test_presets_whose_heads_are_not_kept_are_named() -> None:
    def job(word: str, preset: str) -> Any:
        (unit,) = units(word)
        task = load_task(unit.task)
        protocol = load_protocol(unit.task, task.schemas, protocol_file(unit.task), preset)
        return SimpleNamespace(unit=unit, protocol=protocol, method=task.method(protocol.values))

    none = [job("zero_shot_classification/imagenet1k", "fast"), job("in_context_segmentation/ade20k", "hummingbird")]
    said = no_heads([*none, job("depth/navi", "paper"), job("linear_segmentation/ade20k", "dinov2")])
    assert "no head is kept of in_context_segmentation/ade20k by hummingbird:" in said and "zero_shot" not in said
    assert not no_heads([job("depth/navi", "fast"), job("classification/imagenet1k", "paper")])


def test_a_head_is_refused_by_other_code_of_its_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    _, meta = read_head(head_of(folder, "normals"))
    encoder = load_encoder("mine.py:build")
    refuse_another(Path("head"), meta, encoder)
    monkeypatch.setattr(encoder, "card", replace(encoder.card, code_version="another"))
    with pytest.raises(UsageError, match=r"whose code are 1\+.*; those of mine.* are another"):
        refuse_another(Path("head"), meta, encoder)
