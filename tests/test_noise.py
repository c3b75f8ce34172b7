"""The noise floor: what is repeated, what is recorded, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rows import write_row

from benchmark.compare import noise_floor as noise
from benchmark.errors import BenchError
from benchmark.rows.row import Row, read_row


def moved(tmp_path: Path, moves: dict[str, float], drop: str = "") -> object:
    """Stands for the engine: one depth row whose value moves by `moves[variation]`; `drop` gives no row."""

    def rows(model: str, tasks: object, suite: str, variation: noise.Variation, limit: int | None) -> list[Row]:
        row = read_row(write_row(tmp_path / "scratch", model, "depth"))
        moved = replace(row.main, value=1.0 + moves.get(variation.name, 0.0))
        row = replace(row, data=replace(row.data, metrics={"RMSE": moved}))
        return [] if variation.name == drop else [row]

    return rows


def test_the_floor_is_the_largest_move_and_the_largest_over_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "_rows", moved(tmp_path, {"batch size 7": 0.02, "1 thread": -0.03}))
    found = noise.measure("mini", "scenes", results=tmp_path)
    (key,) = found
    assert key.startswith("depth/scenes@") and found[key] == pytest.approx(0.03)
    monkeypatch.setattr(noise, "_rows", moved(tmp_path, {"bfloat16": 0.01}))
    assert noise.measure("other", "scenes", results=tmp_path)[key] == pytest.approx(0.03)
    kept = json.loads((tmp_path / noise.FILE).read_text())["floors"][key]
    assert {m: pytest.approx(v["floor"]) for m, v in kept.items()} == {"mini": 0.03, "other": 0.01}
    assert set(kept["mini"]["runs"]) == {v.name for v in noise.VARIATIONS}
    assert noise.read(tmp_path)[key] == pytest.approx(0.03)


def test_a_variation_without_a_number_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_rows", moved(tmp_path, {}, drop="2 threads"))
    with pytest.raises(BenchError, match="no number under 2 threads"):
        noise.measure("mini", "scenes", results=tmp_path)
    assert noise.read(tmp_path) == {}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / noise.FILE).write_text('{"floors": {"depth/scenes@1": {"mini": 3}}}')
    with pytest.raises(BenchError, match=r"noise.json: cannot be read as noise floors"):
        noise.read(tmp_path)


def test_variations_really_reach_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen: list[tuple[object, object, int]] = []

    def run(model: str, tasks: object, **options: object) -> object:
        seen.append((options.get("batch_size"), options.get("dtype"), torch.get_num_threads()))
        return type("Report", (), {"failures": [], "rows": []})()

    monkeypatch.setattr("benchmark.engine.run.run", run)
    before = torch.get_num_threads()
    for variation in noise.VARIATIONS:
        noise._rows("mini", (), "scenes", variation, None)
    assert [s[0] for s in seen] == [None, 1, 7, None, None, None]
    assert [s[1] for s in seen][-1] == "bfloat16" and [s[2] for s in seen][3:5] == [1, 2]
    assert torch.get_num_threads() == before


def test_a_floor_of_a_part_of_the_data_is_none_of_the_whole(tmp_path: Path) -> None:
    whole = read_row(write_row(tmp_path, "a", "depth"))
    part = replace(whole, data=replace(whole.data, task=replace(whole.data.task, limit=5)))
    assert noise.key_of(part) == f"{noise.key_of(whole)} of 5"
