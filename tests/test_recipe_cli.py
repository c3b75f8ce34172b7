"""`bench train` and `bench distill` from the command line; the engine's rows while training."""

from __future__ import annotations

import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command import bench
from recipe_fixtures import TINY, tiny, write_toml

from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.publish import command, publish
from adapters.tipsv2.recipe.rehearsal import StepMemory
from adapters.tipsv2.recipe.trainer import train
from benchmark.errors import UsageError
from benchmark.system.digest import sha256_file


def test_train_then_distill_from_a_toml_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_toml(tmp_path / "tiny.toml", TINY)
    assert bench("train", str(config), "--out", str(tmp_path / "t"), "--set", "train.steps=2") == 0
    out = capsys.readouterr().out
    assert "step 2/2" in out
    assert "images/s  ETA" in out
    assert str(tmp_path / "t" / "final") in out
    words = ("distill", str(config), "--teacher", str(tmp_path / "t" / "final"), "--out", str(tmp_path / "d"))
    assert bench(*words, "--set", "train.steps=2") == 0
    assert json.loads((tmp_path / "d" / "final" / "recipe.json").read_text())["teacher"]["path"]
    assert (tmp_path / "d" / "losses.png").stat().st_size > 1000


def test_dry_run_prints_what_it_takes_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    held = StepMemory(*[5 << 30] * 8)  # told from the step itself, which takes seconds; tests/test_recipe_config.py
    monkeypatch.setattr("adapters.tipsv2.recipe.cost.rehearse", lambda *_: held)
    assert bench("train", "g-224", "--dry-run", "--devices", "512") == 0
    out = capsys.readouterr().out
    for part in ("90000 steps of 8192 on 512 device(s)", "1,557.6 M trained", "TFLOP per step", "GiB", "device-days"):
        assert part in out
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("train", "tipsv2-mni") == 2
    assert bench("train", "tipsv2-mini", "--set", "loss.weigth=1") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 2
    assert "Did you mean 'tipsv2-mini'" in errors[0]
    assert "'loss.weigth'" in errors[1]


def test_the_engine_is_asked_for_the_scenes_suite_and_its_rows_are_logged(tmp_path: Path) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []

    def run(models: list[str], tasks: Sequence[str] = (), **options: Any) -> Any:
        asked.append((models, {"tasks": tasks, **options}))
        row = types.SimpleNamespace(unit="depth/scenes", main=types.SimpleNamespace(value=1.5))
        note = types.SimpleNamespace(unit="normals/scenes", text="no targets")
        return types.SimpleNamespace(rows=[row], failures=[note])

    train(tiny(train__steps=4, train__evaluate_every=2, train__validate_every=2), tmp_path, quiet=True, run=run)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "evaluation" in line]
    assert [r["step"] for r in rows] == [2, 4]
    assert rows[0]["evaluation"] == {"depth/scenes": 1.5}
    assert rows[0]["failures"] == {"normals/scenes": "no targets"}
    assert asked[0][1]["suite"] == "scenes" and not asked[0][1]["tasks"]
    held_out = [line["validation"] for line in lines if "validation" in line]
    assert set(held_out[0]) == {f"{k}/{d}" for k in ("alt", "synthetic-0", "synthetic-1") for d in ("i2t", "t2i")}


def test_the_published_command_holds_what_differs_from_the_packaged_config() -> None:
    assert command(read_config("clip-mini-64")) == "bench train clip-mini-64"
    changed = read_config("tips-mini", {"train.dtype": "bfloat16"})
    assert command(changed) == "bench train tips-mini --set train.dtype=bfloat16"


def test_what_a_config_asks_for_and_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="init_from = 'nowhere': no such folder. Train the stage before it first"):
        train(tiny(init_from="nowhere"), tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match="teacher.path = 'nowhere': no such folder"):
        train(tiny(teacher__path="nowhere"), tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match="train.evaluate_every = 2 needs the engine. Train with `bench train`"):
        train(tiny(train__evaluate_every=2), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists(), "said before anything is made"


def test_a_file_in_the_place_of_a_runs_folder_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="a run cannot be written there .is a file.*--out"):
        train(tiny(), tmp_path / "out", quiet=True)


def test_a_finished_run_is_published_as_the_adapter_reads_it(tmp_path: Path) -> None:
    from benchmark import load_encoder

    first = train(tiny(train__steps=3, train__log_every=1), tmp_path / "runs" / "first", quiet=True)
    second = tiny(name="second", train__steps=2, train__log_every=1, init_from=str(first))
    train(second, tmp_path / "runs" / "second", quiet=True)
    folder = publish(tmp_path / "runs" / "second", tmp_path / "out")
    made = json.loads((folder / "run.json").read_text())
    assert [(s["name"], s["command"], s["steps"]) for s in made["stages"]] == [
        ("tiny", "bench train tiny.toml", 3),
        ("second", "bench train second.toml", 2),
    ]
    assert made["sha256"] == sha256_file(folder / "model.safetensors")
    assert all((folder / "stages" / name / "metrics.jsonl").is_file() for name in ("tiny", "second"))
    encoder = load_encoder("tipsv2-mini", weights=str(folder))
    assert encoder.card.embed_dim == 16
    assert encoder.encode_text(["a red square"]).shape == (1, 16)
