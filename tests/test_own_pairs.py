"""One's own pairs for correspondence: a table of points, its mistakes named with their lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import miniatures as mini
import pytest

from benchmark import run
from benchmark.errors import DataError
from tasks.datasets.user import open_task


def own(folder: Path, lines: str, name: str = "pairs.csv") -> Any:
    for i in range(3):
        mini.save_jpeg(folder / "images" / f"{i}.jpg", i, 24, 32)
    (folder / name).write_text(lines)
    (folder / "t.toml").write_text(
        f'task = "correspondence"\nname = "mine"\n[test]\nimages = "images"\npairs = "{name}"\n'
    )
    return open_task(folder / "t.toml").dataset.data("correspondence", "test")


HEAD = "source,target,source_x,source_y,target_x,target_y"


def test_an_own_picture_that_cannot_be_read_is_left_out_as_any_other(tmp_path: Path) -> None:
    own(tmp_path, rows := f"{HEAD}\n0,1,1,1,3,1\n0,2,1,1,3,1\n")
    (tmp_path / "images" / "1.jpg").write_bytes((tmp_path / "images" / "1.jpg").read_bytes()[:200])
    assert (tmp_path / "pairs.csv").read_text() == rows
    words: dict[str, Any] = {"results": tmp_path / "r", "cache": tmp_path / "c", "check": False, "device": "cpu"}
    report = run("pixels", str(tmp_path / "t.toml"), max_bad=1, **words)
    assert [(row.data.task.n, row.data.n_bad) for row in report.rows] == [(1, 1)]
    (note,) = run("pixels", str(tmp_path / "t.toml"), **words, force=True).failures
    assert "1.jpg" in note.text and "object at" not in note.text


def test_own_pairs_are_read_from_a_table(tmp_path: Path) -> None:
    rows = f"{HEAD},category,extent\n0.jpg,2.jpg,1,2,3,4.5,cup,12\n2,0,0,0,32,24,,\n0,2.jpg,5,6,7,8,cup,12\n"
    data = own(tmp_path, rows)
    assert data.pairs.tolist() == [[0, 1], [1, 0]] and len(data.images) == 2 and list(data.categories) == ["cup", ""]
    assert data.points(0)[1].tolist() == [[3, 4.5], [7, 8]] and data.extent(0) == 12 and data.extent(1) == 32
    lines = [{"source": "0", "target": "2", "source_x": 1, "source_y": 2, "target_x": 3, "target_y": 4.5}]
    assert own(tmp_path, json.dumps(lines[0]) + "\n", "pairs.jsonl").points(0)[0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0,9,1,1,1,1\n", "pairs.csv:2: no picture '9'"),
        ("0,1,1,1,33,1\n", "pairs.csv:2: 33, 1 lies outside of 1.jpg, which is 32x24"),
        ("0,1,-1,1,3,1\n", "pairs.csv:2: -1, 1 lies outside of 0.jpg"),
        ("0,1,x,1,3,1\n", "pairs.csv:2: source_x is 'x', must be a number of pixels"),
        ("0,1,nan,1,3,1\n", "pairs.csv:2: source_x is 'nan'"),
        ("0,1,1,1,3,1\n0,1,1,1,3,1\n", "pairs.csv:3: this point .* is in .*pairs.csv:2 too"),
        ("", "pairs.csv: holds no pair"),
    ],
)
def test_mistakes_in_own_pairs_are_named_with_their_line(rows: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        own(tmp_path, f"{HEAD}\n{rows}")


def test_own_pairs_of_two_extents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pairs.csv:3: has another category or extent"):
        own(tmp_path, f"{HEAD},extent\n0,1,1,1,3,1,9\n0,1,2,1,3,1,8\n")
    for wrong in ("-4", "0"):
        with pytest.raises(DataError, match=f"extent {wrong} must be above 0"):
            own(tmp_path, f"{HEAD},extent\n0,1,1,1,3,1,{wrong}\n")
    with pytest.raises(DataError, match="has no 'target_y'"):
        own(tmp_path, "source,target,source_x,source_y,target_x,target_y\n0,1,1,1,3,\n")
