"""The leaderboard of several folders, in a clone, and what stands below a board."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import bench, told
from rows import row_data, save_json, simulate, write_row, write_rows
from test_leaderboard import PNG, page_data

from benchmark.contracts import Measurement
from benchmark.errors import UsageError
from benchmark.leaderboard import build
from benchmark.leaderboard.agreement import disagreement
from benchmark.leaderboard.collect import collect
from benchmark.leaderboard.merge import without_places
from benchmark.rows.row import row_folder
from benchmark.statistics.statistic import Statistic

ROOT = Path(__file__).parents[1]


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository whose leaderboard is tracked, as ours is, with a row that came later."""
    results = tmp_path / "clone" / "results"
    write_row(results, "a", "depth")
    build(results)
    git(tmp_path, "init", "-q", str(tmp_path / "clone"))
    git(tmp_path / "clone", "add", "-f", "results/leaderboard.html", "results/leaderboard.md")
    git(tmp_path / "clone", "commit", "-qm", "page")
    write_row(results, "b", "depth")
    return results


def test_a_tracked_leaderboard_is_never_written_over(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (clone / "leaderboard.html").read_bytes()
    code, out, err = told(capsys, "leaderboard", "--results", str(clone), "--no-reference")
    assert code == 0 and f"{clone}/leaderboard/leaderboard.html" in out
    assert [line.split(": ")[1].split(",")[0] for line in err.splitlines()] == ["left as it is"] * 2
    assert (clone / "leaderboard.html").read_bytes() == before
    assert "leaderboard.html" not in git(clone, "status", "--porcelain", "-uno")
    assert len(page_data(clone / "leaderboard")["rows"]) == 2
    with pytest.raises(UsageError, match="git tracks it and it would be overwritten"):
        build(clone, out=clone)
    assert build(clone, out=clone, force=True).paths[0].read_bytes() != before


def test_a_tracked_leaderboard_that_would_not_change_is_the_one(clone: Path) -> None:
    shutil.rmtree(clone / "b")
    built = build(clone)
    assert built.kept == () and built.paths[0] == clone / "leaderboard.html"


def test_a_results_folder_that_is_itself_a_repository_is_asked_too(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth")
    build(tmp_path)
    git(tmp_path, "init", "-q", ".")
    git(tmp_path, "add", "leaderboard.html")
    write_row(tmp_path, "b", "depth")
    assert build(tmp_path).kept == (tmp_path / "leaderboard.html",)


def test_files_that_git_ignores_or_does_not_know_are_replaced(clone: Path, tmp_path: Path) -> None:
    git(clone, "rm", "-q", "--cached", "leaderboard.html", "leaderboard.md")
    assert build(clone).paths[0] == clone / "leaderboard.html"
    assert len(page_data(clone)["rows"]) == 2


def test_shipped_pictures_stay_when_ones_own_row_has_none(tmp_path: Path) -> None:
    mine, shipped = tmp_path / "mine", tmp_path / "shipped"
    folder = write_row(shipped, "mini", "depth")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "worst-1_RMSE-0.9_a.png").write_bytes(PNG)
    own = write_row(mine, "mini", "depth")
    build(mine, reference=shipped)
    (row,) = page_data(mine)["rows"]
    assert not row["shipped"] and row["drawn"] and [p["name"] for p in row["pictures"]] == ["worst-1_RMSE-0.9_a"]
    (own / "pictures").mkdir()
    (own / "pictures" / "best-1_RMSE-0.1_b.png").write_bytes(PNG)
    build(mine, reference=shipped)
    (row,) = page_data(mine)["rows"]
    assert not row["drawn"] and [p["name"] for p in row["pictures"]] == ["best-1_RMSE-0.1_b"]


def test_folders_of_several_machines_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "here" / "results", tmp_path / "there" / "results"
    write_rows(a, {"one": 0.6, "both": 0.5}, ["depth"])
    write_rows(b, {"two": 0.4, "both": 0.5}, ["depth", "normals"])
    words = ["--rows", str(a), "--rows", str(b), "--rows", f"{b}/.", "--out", str(tmp_path / "out"), "--no-reference"]
    code, out, err = told(capsys, "leaderboard", *words)
    assert code == 0 and "5 rows on 2 boards" in out and not err
    folders = {row["folder"].split("/")[0] for row in page_data(tmp_path / "out")["rows"]}
    assert folders == {"here", "there"}
    assert str(tmp_path) not in (tmp_path / "out" / "leaderboard.html").read_text()


def test_a_row_that_two_folders_have_with_other_values_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_row(a, "same", "depth")
    write_row(b, "same", "depth")
    write_row(a, "other", "depth", 0.6)
    write_row(b, "other", "depth", 0.5)
    words = ["--rows", str(a), "--rows", str(b), "--out", str(tmp_path / "out"), "--no-reference"]
    code, _, err = told(capsys, "leaderboard", *words)
    (line,) = err.splitlines()
    assert (
        code == 0 and line.startswith(f"{b}/other/depth/scenes/") and "the same row with other values: RMSE is" in line
    )
    assert f"in {a}/other/" in line
    data = page_data(tmp_path / "out")
    assert (
        len(data["rows"]) == 2 and data["problems"][0].startswith("b/other/") and "in a/other/" in data["problems"][0]
    )
    turned = collect([b, a])[0][0]
    assert {e.row.folder.parents[3] for e in turned.entries} == {b}


def test_of_two_rows_the_one_that_is_not_stale_is_shown(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    file = write_row(a, "mini", "depth", 0.4) / "result.json"
    data = json.loads(file.read_text())
    data["model"]["code"] = {"adapters.clip": "1"}
    file.write_text(json.dumps(data))
    write_row(b, "mini", "depth", 0.6)
    boards, (line,) = collect([a, b])
    assert boards[0].entries[0].row.folder.is_relative_to(b) and line.startswith(str(a)) and "stale" in line


def test_a_folder_of_rows_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys, "leaderboard", "--rows", str(tmp_path / "nowhere"))
    assert code == 2 and "--rows" in err and "no such folder" in err and err.count("\n") == 1


def two_metrics(results: Path, model: str, skill: float, other: float, name: str = "δ1") -> None:
    """A depth row with a second metric of which more is better."""
    outcome = simulate("depth", skill, 40, model)
    outcome.samples = {**outcome.samples, "near": np.full(40, other)}
    outcome.measurements.append(Measurement(name, Statistic("mean", ("near",), scale=100.0), True, "%"))
    data: dict[str, Any] = row_data(model, "depth", outcome)
    folder = row_folder(results, model, "depth", "scenes", "fast", data["protocol"]["hash"])
    save_json(folder, data, outcome.samples)


def test_a_board_says_where_its_metrics_disagree(tmp_path: Path) -> None:
    two_metrics(tmp_path, "a", 0.8, 0.5)
    two_metrics(tmp_path, "b", 0.6, 0.7)
    two_metrics(tmp_path, "c", 0.4, 0.1)
    build(tmp_path)
    said = "Ordered by RMSE, which disagrees with δ1 on 1 of 3 pairs of models (first by it: b)"
    assert page_data(tmp_path)["boards"][0]["disagrees"] == said
    assert f"\n{said}.\n" in (tmp_path / "leaderboard.md").read_text()
    entries = collect(tmp_path)[0][0].entries
    assert disagreement([(e.name, e.row) for e in entries if e.name != "b"]) == ""


def test_a_ceiling_stands_below_a_board_and_ranks_nothing(tmp_path: Path) -> None:
    two_metrics(tmp_path, "a", 0.8, 0.5, "ceiling of RMSE")
    two_metrics(tmp_path, "b", 0.6, 0.75, "ceiling of RMSE")
    build(tmp_path)
    (board,) = page_data(tmp_path)["boards"]
    assert board["ceiling"] == {"RMSE": [50.0, 75.0]} and board["disagrees"] == ""
    assert "|  | *ceiling* | 50.0000 – 75.0000 |  |  |" in (tmp_path / "leaderboard.md").read_text()
    assert [e.name for e in collect(tmp_path)[0][0].entries] == ["a", "b"]


def test_equal_values_disagree_with_nothing(tmp_path: Path) -> None:
    two_metrics(tmp_path, "a", 0.8, 0.5)
    two_metrics(tmp_path, "b", 0.6, 0.5)
    build(tmp_path)
    assert page_data(tmp_path)["boards"][0]["disagrees"] == ""
    assert "disagrees" not in (tmp_path / "leaderboard.md").read_text()


def test_the_files_say_which_version_made_them_and_how_new_the_rows_are(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth")
    write_row(tmp_path, "b", "depth", created="2026-11-25T08:00:00Z")
    write_row(tmp_path, "c", "depth", created="lately")
    build(tmp_path)
    data = page_data(tmp_path)
    assert data["newest"] == "2026-11-25" and re.fullmatch(r"\d+\.\d+.*|source", data["version"])
    assert f"densebench {data['version']}, newest row of 2026-11-25" in (tmp_path / "leaderboard.md").read_text()


def test_our_own_clone_stays_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a row of one's own the page goes beside the committed one; git ignores it."""
    shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*-mini*", "random-vit"))
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git(tmp_path, "init", "-q", ".")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    monkeypatch.chdir(tmp_path)
    write_row(Path("results"), "mine", "depth")
    assert bench("leaderboard") == 0
    assert git(tmp_path, "status", "--porcelain") == ""
    assert len(page_data(tmp_path / "results" / "leaderboard")["models"]) > 1


def test_lines_lose_nothing_but_the_folders_they_name() -> None:
    line = "result.json: is damaged: RMSE is 1.5; results are made again"
    assert without_places(line, {Path("."): "", Path("results"): "", Path("r"): ""}) == line
    assert without_places(f"results/a/{line}", {Path("results"): ""}) == f"a/{line}"
    both = {Path("/home/me/x"): "x", Path("/home/me/y"): "y"}
    assert without_places("/home/me/x/a: 3 in /home/me/y/a, not /home/me/y", both) == "x/a: 3 in y/a, not y"
