"""The leaderboard's files: what a board holds, what ties, what is left out; the same rows give the same bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import row_data, save_json, simulate, write_row, write_rows

from benchmark.errors import UsageError
from benchmark.leaderboard import build
from benchmark.leaderboard.collect import collect
from benchmark.leaderboard.standing import joint_draws, largest_t, standings
from benchmark.rows.row import read_all, read_row
from benchmark.rows.shipped import FOLDER

ROOT = Path(__file__).parents[1]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def page_data(results: Path) -> dict[str, Any]:
    """The JSON inside leaderboard.html."""
    html = (results / "leaderboard.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S).group(1))


def test_a_board_never_mixes_protocols_or_datasets(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.5}, ["depth"])
    write_row(tmp_path, "a", "depth", protocol_name="paper")
    write_row(tmp_path, "c", "depth", n=60)
    boards, problems = collect(tmp_path)
    assert problems == []
    assert sorted([e.name for e in b.entries] for b in boards) == [["a"], ["a", "b"], ["c"]]


def test_the_best_is_first_whichever_way_the_metric_points(tmp_path: Path) -> None:
    write_rows(tmp_path, {"weak": 0.3, "strong": 0.8, "middle": 0.5}, ["depth", "linear_segmentation"])
    for board in collect(tmp_path)[0]:
        assert [e.name for e in board.entries] == ["strong", "middle", "weak"]
        assert [e.standing.rank for e in board.entries] == [1, 2, 3]


def test_a_row_that_an_older_version_resampled_otherwise_is_named_and_left_out(tmp_path: Path) -> None:
    write_rows(tmp_path, {"older": 0.6, "newer": 0.6, "newest": 0.5}, ["depth"])
    for name in ("newer", "newest"):
        row = read_row(next((tmp_path / name / "depth" / "scenes").iterdir()))
        data = {**row.data.json(), "created": "2026-11-25T08:00:00Z"}
        data["metrics"]["RMSE"]["statistic"]["cluster"] = "thing"
        save_json(row.folder, data, {**row.samples, "thing": np.arange(120) // 10})
    boards, problems = collect(tmp_path)
    assert [e.name for e in boards[0].entries] == ["newer", "newest"]
    assert len(problems) == 1 and "older" in problems[0] and "resampled RMSE in another way" in problems[0]


def test_equal_models_tie_with_the_best_and_weaker_ones_do_not(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6, "twin": 0.6, "weak": 0.4}, ["linear_segmentation"], n=300)
    tied = {e.name: e.standing.tied for e in collect(tmp_path)[0][0].entries}
    assert tied == {"a": True, "twin": True, "weak": False}


def test_ties_are_called_at_the_promised_rate() -> None:
    """Of pairs with no true difference at most about 5 % lose their tie."""
    rng = np.random.default_rng(0)
    lost = 0
    for _ in range(400):
        noise = rng.standard_normal((2, 200))
        moves = (noise - noise.mean(1, keepdims=True)) / 200
        lost += not all(s.tied for s in standings(noise.mean(1), moves, True))
    assert lost <= 32


@pytest.mark.parametrize(("rows", "shared"), [(20, 0.0), (20, 0.7)])
def test_equal_models_are_rarely_called_worse_than_the_best_of_many(rows: int, shared: float) -> None:
    """Of boards of equal models at most about 5 % name one that is worse, though the best is chosen after looking."""
    rng, boards, wrong = np.random.default_rng(1), 150, 0
    for _ in range(boards):
        noise = np.sqrt(shared) * rng.standard_normal((1, 200)) + np.sqrt(1 - shared) * rng.standard_normal((rows, 200))
        moves = (noise - noise.mean(1, keepdims=True)) / 200
        wrong += not all(s.tied for s in standings(noise.mean(1), moves, True))
    assert wrong / boards <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / boards)


def test_equal_models_on_few_samples_are_rarely_called_worse_either() -> None:
    """The limit that largest_t sets for 12 samples is passed by about 5 % of boards of 20 equal rows."""
    rng, (one, other) = np.random.default_rng(5), np.triu_indices(20, 1)

    def board() -> tuple[np.ndarray, np.ndarray]:
        values = rng.standard_normal((20, 12))
        return values.mean(1), (values - values.mean(1, keepdims=True)) / 12

    moves = [board()[1] for _ in range(4)]
    limit = np.mean([np.quantile(largest_t(m, joint_draws(m), 12), 0.95) for m in moves])
    passed = 0
    for means, m in (board() for _ in range(1000)):
        errors = np.sqrt(((m[one] - m[other]) ** 2).sum(1))
        passed += np.abs((means[one] - means[other]) / errors).max() > limit
    assert passed / 1000 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


def test_a_worse_model_among_many_is_still_told_from_the_best() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((20, 400))
    moves = (noise - noise.mean(1, keepdims=True)) / 400
    values = np.where(np.arange(20) < 10, 1.0, 0.5) + noise.mean(1)
    assert [s.tied for s in standings(values, moves, True)] == [True] * 10 + [False] * 10


def test_a_row_and_its_copy_tie_and_few_clusters_tell_nothing_apart() -> None:
    moves = np.random.default_rng(0).standard_normal((2, 100)) / 1000
    twins = standings(np.array([1.0, 1.0, 0.0]), moves[[0, 0, 1]], True)
    assert [(s.rank, s.tied) for s in twins] == [(1, True), (1, True), (3, False)]
    assert all(s.tied for s in standings(np.array([1.0, 0.0]), moves, True, independent=9))


def test_boards_of_very_many_rows_are_adjusted_over_all_pairs() -> None:
    noise = np.random.default_rng(0).standard_normal((160, 100))
    moves = (noise - noise.mean(1, keepdims=True)) / 100
    assert all(s.tied for s in standings(noise.mean(1), moves, True))
    assert not standings(noise.mean(1) - np.eye(160)[3] * 2, moves, True)[3].tied


def test_rank_spread_is_wide_for_equal_models_and_nothing_for_distant_ones() -> None:
    rng = np.random.default_rng(0)
    moves = rng.standard_normal((3, 100)) / 100
    near, far = (
        standings(np.array([1.0, 1.0, -9.0]), moves, True)[:2],
        standings(np.array([1.0, 5.0, -9.0]), moves, True),
    )
    assert all(0.4 < s.rank_sd < 0.6 for s in near)
    assert all(s.rank_sd == 0 for s in far)


def test_files_that_are_no_rows_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    write_rows(tmp_path, {"good": 0.6}, ["depth", "normals"])
    damaged = write_row(tmp_path, "damaged", "depth")
    (damaged / "samples.parquet").write_bytes(b"PAR1 nothing")
    (write_row(tmp_path, "half", "depth") / "result.json").unlink()
    cut = write_row(tmp_path, "cut", "depth") / "result.json"
    cut.write_text(cut.read_text()[:200])
    no_number = {"metrics": {"RMSE": {"value": float("nan"), "ci95": [0, 1]}}}
    damages: dict[str, dict[str, Any]] = {"newer": {"schema": 99}, "older": {"schema": 0}, "nan": no_number}
    for name, changes in damages.items():
        file = write_row(tmp_path, name, "depth") / "result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    foreign = tmp_path / "foreign" / "depth" / "scenes" / "x-1" / "result.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"accuracy": 1}')
    built = build(tmp_path)
    text = "\n".join(built.problems)
    for name in ("damaged", "half", "cut", "newer", "older", "nan", "foreign"):
        assert f"/{name}/" in text, name
    assert built.rows == 2
    data = page_data(tmp_path)
    assert [m["name"] for m in data["models"]] == ["good"] and len(data["problems"]) == 7
    assert not any(str(tmp_path) in line for line in data["problems"])


def test_a_row_of_other_samples_under_the_same_digest_is_left_out(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth")
    outcome = simulate("depth", 0.6, 120, "b")
    outcome.samples["id"][0] = "elsewhere"
    from benchmark.rows.row import row_folder

    data = row_data("b", "depth", outcome)
    save_json(row_folder(tmp_path, "b", "depth", "scenes", "fast", data["protocol"]["hash"]), data, outcome.samples)
    boards, problems = collect(tmp_path)
    assert [e.name for e in boards[0].entries] == ["a"]
    assert len(problems) == 1 and "its samples are not those of" in problems[0]


def test_a_board_of_a_part_of_the_data_is_marked(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.5}, ["depth"])
    folder = write_row(tmp_path / "other", "a", "depth", n=20)
    data = json.loads((folder / "result.json").read_text())
    data["task"]["limit"] = 20
    (folder / "result.json").write_text(json.dumps(data))
    shutil.copytree(folder, tmp_path / "a" / "depth" / "scenes" / folder.name.replace("fast-", "fast-limit20-"))
    shutil.rmtree(tmp_path / "other")
    build(tmp_path)
    assert {b["n"]: b["part"] for b in page_data(tmp_path)["boards"]} == {120: False, 20: True}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    write_rows(tmp_path / "results", {"a": 0.6, "b": 0.55}, ["depth", "linear_segmentation", "classification"])
    first, second = build(tmp_path / "results", tmp_path / "one"), build(tmp_path / "results", tmp_path / "two")
    assert [p.read_bytes() for p in first.paths] == [p.read_bytes() for p in second.paths]


def test_the_committed_leaderboard_is_what_the_committed_rows_give(tmp_path: Path) -> None:
    """From the shipped rows and published numbers alone, whatever else a user keeps in results/."""
    mine = tmp_path / "results"
    shutil.copytree(ROOT / "results" / FOLDER, mine / FOLDER)
    for name in ("published.csv", "measured_elsewhere.csv"):
        shutil.copy(ROOT / "results" / name, mine)
    built = build(mine, reference=mine / FOLDER)
    assert built.problems == () and built.rows >= 9
    for made in built.paths:
        assert made.read_bytes() == committed(made.name), (
            f"{made.name} is stale: run bench leaderboard --force and commit it"
        )


def committed(name: str) -> bytes:
    """results/NAME; git's copy where the user has rows, so that the file on disk is rightly another one."""
    if not list((ROOT / "results").glob("*/*/*/*/result.json")):
        return (ROOT / "results" / name).read_bytes()
    return subprocess.run(["git", "-C", str(ROOT), "show", f":results/{name}"], capture_output=True, check=True).stdout


def test_the_shipped_rows_hold_what_their_samples_give() -> None:
    rows, problems = read_all(ROOT / "results" / FOLDER)
    assert problems == [] and {"tipsv2-mini", "random-vit", "pixels"} <= {r.model for r in rows}
    assert len([r for r in rows if r.model == "tipsv2-mini"]) == 9
    for row in rows:
        assert row.statistic().of(row.samples) == pytest.approx(row.main.value, rel=1e-12), row.folder


def test_a_row_of_ones_own_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    mine, shipped = tmp_path / "results", tmp_path / "shipped"
    write_rows(shipped, {"mini": 0.6, "floor": 0.2}, ["depth", "normals"])
    write_row(mine, "mini", "depth", 0.6)
    found = {(e.name, b.unit): e.shipped for b in collect(mine, shipped)[0] for e in b.entries}
    assert found == {
        ("mini", "depth/scenes"): False, ("mini", "normals/scenes"): True,
        ("floor", "depth/scenes"): True, ("floor", "normals/scenes"): True,
    }  # fmt: skip
    build(mine, reference=shipped)
    lines = csv.DictReader((mine / "leaderboard.csv").open())
    assert sum(r["source"] == "shipped with densebench" for r in lines) == 3
    assert "floor †" in (mine / "leaderboard.md").read_text()
    assert {r["shipped"] for r in page_data(mine)["rows"]} == {True, False}
    assert all(r["folder"].startswith("reference/") for r in page_data(mine)["rows"] if r["shipped"])


def test_damaged_shipped_rows_are_named_and_own_rows_stay(tmp_path: Path) -> None:
    mine, shipped = tmp_path / "results", tmp_path / "shipped"
    write_row(mine, "mini", "depth")
    (write_row(shipped, "floor", "depth") / "result.json").write_text("{")
    boards, problems = collect(mine, shipped)
    assert [e.name for b in boards for e in b.entries] == ["mini"] and "/floor/" in problems[0]


def test_hostile_names_stay_text_in_every_file(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    write_row(tmp_path, name, "depth")
    write_row(tmp_path, "=1+1", "depth")
    build(tmp_path)
    html = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert "alert(1)" in html and "<script>alert" not in html
    assert name in [m["name"] for m in page_data(tmp_path)["models"]]
    assert "<script>" not in (tmp_path / "leaderboard.md").read_text()
    assert "'=1+1" in [r["model"] for r in csv.DictReader((tmp_path / "leaderboard.csv").open())]


def test_the_page_allows_its_own_scripts_only_and_asks_for_nothing(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth")
    build(tmp_path)
    html = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    assert policy.startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.S)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(scripts) == 2
    assert not re.search(r'(src|href)="(?!#|data:)', html)


def test_pictures_beside_a_row_are_in_the_page(tmp_path: Path) -> None:
    folder = write_row(tmp_path, "a", "depth")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "worst-1.png").write_bytes(PNG)
    build(tmp_path)
    (picture,) = page_data(tmp_path)["rows"][0]["pictures"]
    assert picture["name"] == "worst-1" and base64.b64decode(picture["src"].partition(",")[2]) == PNG


def test_published_numbers_alone_make_a_page_and_no_result_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no result to show"):
        build(tmp_path)
    head = "model,model_id,task,dataset,metric,value,source,note\n"
    (tmp_path / "published.csv").write_text(head + "X,x,depth,nyuv2,RMSE,0.3,a paper,\n")
    build(tmp_path)
    assert page_data(tmp_path)["published"][0]["value"] == 0.3
    assert "published" in (tmp_path / "leaderboard.csv").read_text()


def test_rows_that_differ_in_seed_only_stand_beside_each_other(tmp_path: Path) -> None:
    folder = write_row(tmp_path, "a", "depth")
    write_row(tmp_path / "other", "a", "depth", seed=1)
    twin = next((tmp_path / "other" / "a" / "depth" / "scenes").iterdir())
    twin.rename(folder.with_name(folder.name.replace("fast-", "fast-seed1-")))
    assert sorted(e.name for e in collect(tmp_path)[0][0].entries) == ["a", "a · seed1"]
