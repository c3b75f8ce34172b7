"""A package beside densebench brings an encoder, a task and a data set, of a kind of its own (tests/plugin)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import contextlib, io, json, sys
from benchmark.cli import main
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words) or 0
        except SystemExit as e:
            code = e.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package and a broken one are installed."""
    place, copy = tmp_path_factory.mktemp("plug-ins"), tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(ROOT / "tests" / "plugin", copy)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(place), str(copy)], check=True)
    broken = place / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (place / "script.py").write_text("print('a row of its own')\nraise SystemExit(7)\n")
    points = {
        "densebench.tasks": "lost = no_such_module:TASK\nended = script:TASK",
        "densebench.datasets": "odd = json:JSONDecoder",
    }
    (broken / "entry_points.txt").write_text("".join(f"[{group}]\n{line}\n" for group, line in points.items()))
    return place


def bench(installed: Path, folder: Path, *commands: str) -> list[tuple[int, str, str]]:
    """(exit code, standard output, standard error) of commands that one new process runs in `folder`."""
    path = os.pathsep.join([str(ROOT), str(installed)])
    env = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "200"}
    asked = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=asked, capture_output=True, text=True, cwd=folder, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_what_a_package_brings_is_listed_shown_planned_checked_run_compared_and_shown(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "other" / "toy_pairs").mkdir(parents=True)
    (tmp_path / "other" / "toy_pairs" / "broken").write_text("3")
    run = "run --task toy_pairs --json --results rows --model"
    shown = bench(
        installed, tmp_path, "ls tasks", "ls datasets", "ls models", "show toy_correspondence", "show toy_pairs",
        "plan --model toy-colours --task toy_correspondence", "check --model toy-colours", "data verify toy_pairs",
    )  # fmt: skip
    said = ("toy_pairs", "toy_correspondence", "toy-colours", "PCK@0.1", "Toy pairs", "48", "passed", "targets")
    for (code, text, why), words in zip(shown, said, strict=True):
        assert code == 0 and words in text, text + why
    made = bench(
        installed, tmp_path, f"{run} toy-colours --model pixels", f"{run} toy-colours", f"{run} toy-colours --limit 6",
        "compare pixels toy-colours --results rows", "leaderboard --results rows --out page",
        f"{run} toy-colours --data other", f"{run} toy-colours --data other --max-bad 1",
        "run --model toy-colours --task toy_correspondence/scenes", "run --model toy-colours --task lost",
    )  # fmt: skip
    codes, out, err = zip(*made)
    first, again, part, left = ([json.loads(line) for line in out[i].splitlines()] for i in (0, 1, 2, 6))
    assert {row["model"]["name"]: row["task"]["n"] for row in first} == {"toy-colours": 96, "pixels": 96}
    scores = [row["metrics"]["PCK"]["value"] for row in first]
    assert scores[0] == 100 and scores[1] < 60
    assert [row["created"] for row in again] == [first[0]["created"]], "a finished row is read, not made again"
    assert part[0]["task"]["n"] == 24 and part[0]["task"]["limit"] == 6
    assert codes[3] == 0 and "toy_correspondence/toy_pairs" in out[3] and "better" in out[3], out[3] + err[3]
    page = (tmp_path / "page" / "leaderboard.csv").read_text(encoding="utf-8")
    assert codes[4] == 0 and "toy_correspondence" in page and "toy_pairs" in page
    assert codes[5] != 0 and "source/03: is damaged" in err[5]
    assert left[0]["task"]["n"] == 92 and left[0]["n_bad"] == 1 and "source/03" in left[0]["bad"][0]
    assert codes[7] == 2 and "scenes has no toy_correspondence" in err[7]
    assert codes[8] == 2 and "lost" in err[8]


def test_a_package_that_cannot_be_loaded_is_named_and_left_out(installed: Path, tmp_path: Path) -> None:
    (code, out, err), (other, rows, said) = bench(installed, tmp_path, "ls tasks", "ls datasets --json")
    assert code == 0 and "depth" in out and "a row of its own" not in out
    assert "ended = script:TASK of group densebench.tasks cannot be loaded: calls sys.exit(7)" in err
    assert other == 0 and all(json.loads(line) for line in rows.splitlines())
    assert "odd = json:JSONDecoder of group densebench.datasets is no benchmark.contracts.DatasetSource" in err + said
    assert "lost = no_such_module:TASK of group densebench.tasks cannot be loaded: No module named" in err
    assert "Traceback" not in err
