"""`bench train` and `bench distill` from the command line; the engine's rows while training."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from recipe_fixtures import TINY, tiny

from adapters.tipsv2.recipe import evaluation
from adapters.tipsv2.recipe.publish import publish
from adapters.tipsv2.recipe.trainer import train
from benchmark.cli import main


def write_toml(path: Path, table: dict[str, Any]) -> Path:
    lines = [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    for section, values in table.items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    path.write_text("\n".join(lines))
    return path


def bench(*words: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    return int(done.value.code or 0)


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


def test_the_engine_is_asked_for_the_scenes_suite_and_its_rows_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []

    def run(models: list[str], **options: Any) -> Any:
        asked.append((models, options))
        row = types.SimpleNamespace(unit="depth/scenes", main={"value": 1.5})
        note = types.SimpleNamespace(unit="normals/scenes", text="no targets")
        return types.SimpleNamespace(rows=[row], failures=[note])

    monkeypatch.setitem(sys.modules, "fake_engine", types.SimpleNamespace(run=run))  # type: ignore[misc]
    monkeypatch.setattr(evaluation, "ENGINE", ("fake_engine", "run"))
    train(tiny(train__steps=4, train__evaluate_every=2, train__validate_every=2), tmp_path, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "evaluation" in line]
    assert [r["step"] for r in rows] == [2, 4]
    assert rows[0]["evaluation"] == {"depth/scenes": 1.5}
    assert rows[0]["failures"] == {"normals/scenes": "no targets"}
    assert asked[0][1]["suite"] == "scenes"
    held_out = [line["validation"] for line in lines if "validation" in line]
    assert set(held_out[0]) == {f"{k}/{d}" for k in ("alt", "synthetic-0", "synthetic-1") for d in ("i2t", "t2i")}


def test_a_finished_run_is_published_as_the_adapter_reads_it(tmp_path: Path) -> None:
    from benchmark import load_encoder

    train(tiny(train__steps=2, train__log_every=1), tmp_path / "run", quiet=True)
    folder = publish(tmp_path / "run", tmp_path / "out")
    assert json.loads((folder / "run.json").read_text())["command"] == "bench train tiny"
    encoder = load_encoder("tipsv2-mini", weights=str(folder))
    assert encoder.card.embed_dim == 16
    assert encoder.encode_text(["a red square"]).shape == (1, 16)  # type: ignore[attr-defined]
