"""One's own data in CI: suite files, and --task wherever checkpoints are watched, compared and checked."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from command import told
from rows import write_rows

from benchmark.compare.compare import compare
from benchmark.engine.suites import choose, identity, label
from benchmark.errors import UsageError
from benchmark.rows.row import read_all

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "my_task"
TWO = ("linear_segmentation", "depth")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite of two own tasks and one of ours, and two checkpoints of the smallest model."""
    place = tmp_path_factory.mktemp("own")
    runpy.run_path(str(EXAMPLES / "make_data.py"))["main"](place / "data")
    for name in ("zero_shot_classification", "text_to_image_retrieval", "depth"):
        text = (EXAMPLES / f"{name}.toml").read_text()
        (place / "tasks").mkdir(exist_ok=True)
        (place / "tasks" / f"{name}.toml").write_text(
            text.replace('"my_data/', '"../data/').replace('"data/', '"../data/')
        )
    (place / "suite.toml").write_text(
        'title = "mine"\nlimit = 8\ntolerance = 5\n'
        'tasks = ["tasks/zero_shot_classification.toml",\n'
        '{ task = "tasks/text_to_image_retrieval.toml", limit = 6, tolerance = 1.5 }]\n'
    )
    shutil.copytree(ROOT / "adapters" / "weights" / "clip-mini", place / "run" / "step-1")
    return place


def test_a_suite_file_says_tasks_presets_limits_and_tolerances(own: Path) -> None:
    found = choose((), str(own / "suite.toml"))
    labels, captions = found.units
    assert labels.path == str((own / "tasks" / "zero_shot_classification.toml").resolve())
    assert (labels.limit, captions.limit) == (8, 6)
    assert found.tolerances == {"zero_shot_classification/my-fruit": 5.0, "text_to_image_retrieval/my-album": 1.5}
    assert identity(found) == [f"{labels}, 8 samples", f"{captions}, 6 samples"]
    assert label(["a/b.toml", "depth/nyuv2"], "my/suite.toml") == "suite.toml, b.toml, depth/nyuv2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('task = "depth"\n', r"s.toml:1: this is a task, no suite: --task .*s.toml"),
        ("title = 'x'\n", r"s.toml:1: 'tasks' is missing or empty"),
        ('tasks = []\n', r"'tasks' is missing or empty"),
        ('limit = 3\n\ntaks = ["depth/scenes"]\n', r"s.toml:3: unknown field 'taks' in a suite. Did you mean"),
        ('tasks = [\n "depth/scenes",\n {task = "normals", protcol = "fast"}]', r"s.toml:3: unknown field 'protcol'"),
        ('tasks = ["depth/scenes"]\nlimit = 1', r"s.toml:2: limit = 1 is below 2"),
        ('tasks = ["depth/scenes"]\nlimit = true', r"s.toml:2: limit = True is bool, must be int"),
        ('tasks = ["depth/scenes"]\ntolerance = nan', r"tolerance = nan must be 0 or more"),
        ('tasks = ["depth/scenes", {limit = 4}]', r"is no task"),
        ('tasks = ["depth/scenes", 7]', r"7 in tasks is no task"),
        ('tasks = "depth/scenes"', r"tasks = 'depth/scenes' is str, must be list"),
        ('tasks = ["depth/scenes", "scenes"]', r"depth/scenes is in tasks twice"),
        ('tasks = ["deth"]', r"unknown task or dataset 'deth'"),
        ('tasks = ["no.toml"]', r"no.toml: no such file"),
        ('tasks = ["depth/scenes"', r"is not TOML"),
    ],
)  # fmt: skip
def test_mistakes_in_a_suite_file_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        choose((), str(tmp_path / "s.toml"))


def test_a_suite_given_as_a_task_is_told_so(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = told(capsys, "run", "--model", "pixels", "--task", str(own / "suite.toml"))
    assert code == 2 and "this is a suite, no task: --suite" in error


def test_a_wrong_preset_in_a_suite_is_said_before_a_checkpoint_is_there(
    own: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "wrong.toml").write_text('tasks = [{ task = "tasks/depth.toml", protocol = "papr" }]')
    words = ("watch", str(own / "run"), "--model", "clip-mini", "--suite", str(own / "wrong.toml"), "--once")
    code, _, error = told(capsys, *words, "--settle", "0")
    assert code == 2 and "papr" in error and not results.exists()


def test_watch_scores_and_compares_own_data_alone(
    own: Path, results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The baseline has other rows too: they are no gap of this comparison."""
    suite = str(own / "suite.toml")
    assert told(capsys, "run", "--model", "clip-mini", "--suite", suite)[0] == 0
    assert {(r.unit, r.data.task.limit) for r in read_all(results)[0]} == {
        ("zero_shot_classification/my-fruit", 8), ("text_to_image_retrieval/my-album", 6),
    }  # fmt: skip
    write_rows(results, {"clip-mini": 0.6}, TWO)
    write_rows(results, {"clip-mini": 0.6}, ("text_to_image_retrieval",), dataset="my-album")  # without the limit
    out = tmp_path / "out"
    words = ("watch", str(own / "run"), "--model", "clip-mini", "--suite", suite, "--out", str(out), "--once")
    code, said, error = told(capsys, *words, "--settle", "0", "--baseline", "clip-mini")
    assert code == 0 and "nothing compared, 2 of too few samples to tell" in said, said + error
    assert "not compared" not in (out / "junit.xml").read_text()
    assert "clip-mini on suite.toml" in (out / "summary.md").read_text()
    (own / "suite.toml").write_text((own / "suite.toml").read_text().replace("limit = 6", "limit = 5"))
    code, _, error = told(capsys, *words, "--settle", "0")
    assert code == 2 and "keeps the history of tasks" in error and "5 samples" in error


def test_compare_takes_the_words_that_a_table_shows(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.4}, TWO)
    write_rows(tmp_path, {"a": 0.6, "b": 0.6}, ("classification",), dataset="fruit")
    for word, units in (
        ("depth", ["depth/scenes"]), ("scenes", ["depth/scenes", "linear_segmentation/scenes"]),
        ("fruit", ["classification/fruit"]), ("classification/fruit", ["classification/fruit"]),
    ):  # fmt: skip
        found = compare("a", "b", results=tmp_path, tasks=[word])
        assert [u.unit for u in found.units] == units and not found.refused and not found.unpaired
    with pytest.raises(UsageError, match="no row of normals/scenes on either side. There: classification/fruit, depth"):
        compare("a", "b", results=tmp_path, tasks=["normals/scenes"])
    with pytest.raises(UsageError, match="unknown task or dataset 'fruits'"):
        compare("a", "b", results=tmp_path, tasks=["fruits"])


def test_a_unit_of_the_suite_that_the_baseline_lacks_is_a_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.6}, TWO)
    write_rows(tmp_path, {"b": 0.6}, ("normals",))
    (tmp_path / "s.toml").write_text('tasks = ["depth/scenes", "normals/scenes"]')
    words = (
        "compare",
        "a",
        "b",
        "--results",
        str(tmp_path),
        "--suite",
        str(tmp_path / "s.toml"),
        "--fail-on-regression",
    )
    code, _, error = told(capsys, *words)
    assert code == 1 and "normals/scenes: not compared: a has no row of it" in error
    assert told(capsys, *words[:-3], "--task", "depth", "--fail-on-regression")[0] == 0


def test_tolerances_of_a_suite_are_each_in_their_own_unit(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.7, "b": 0.5}, TWO, n=200)
    assert {u.verdict for u in compare("a", "b", results=tmp_path).units} == {"worse"}
    (tmp_path / "s.toml").write_text(
        'tasks = ["linear_segmentation/scenes", { task = "depth/scenes", tolerance = 2.0 }]'
    )
    found = compare("a", "b", results=tmp_path, suite=str(tmp_path / "s.toml"))
    assert {u.unit: (u.verdict, u.tolerance) for u in found.units} == {
        "linear_segmentation/scenes": ("worse", 0.0), "depth/scenes": ("no difference", 2.0),
    }  # fmt: skip
    found = compare("a", "b", results=tmp_path, suite=str(tmp_path / "s.toml"), tolerance=0.0)  # said last, counts
    assert {u.verdict for u in found.units} == {"worse"}


def test_the_action_hands_over_tasks_a_line_each(tmp_path: Path) -> None:
    """Its script, run by bash beside a `bench` that prints its words."""
    action = yaml.safe_load((ROOT / ".github" / "actions" / "bench" / "action.yml").read_text())
    (step,) = [s for s in action["runs"]["steps"] if s.get("name") == "Score and compare"]
    (tmp_path / "bench").write_text(f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], sep='\\n')\n")
    (tmp_path / "bench").chmod(0o755)
    given = {"CHECKPOINTS": "run", "MODEL": "m", "RESULTS": "results", "OUTPUT": "out"}
    blank = dict.fromkeys(step["env"], "")

    def words(**more: str) -> list[str]:
        env = {**os.environ, **blank, **given, **more, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    found = words(TASKS="tasks/my task.toml\n\n  \nade20k\n", SUITE="s.toml", BASELINE="b")
    assert [v for k, v in pairwise(found) if k == "--task"] == ["tasks/my task.toml", "ade20k"]
    assert found[found.index("--suite") + 1] == "s.toml" and found[found.index("--baseline") + 1] == "b"
    assert not {"--task", "--suite", "--data"} & set(words())
    assert all(f"inputs.{name}" in str(step["env"]) for name in ("tasks", "suite", "data"))


def test_check_runs_own_tasks_on_a_few_samples(own: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [
        w for name in ("depth", "zero_shot_classification") for w in ("--task", str(own / "tasks" / f"{name}.toml"))
    ]
    code, said, _ = told(capsys, "check", "--model", "pixels", "--cheap", "--json", *tasks)
    depth, labels = (json.loads(line) for line in said.splitlines()[-2:])
    assert code == 0 and depth["name"] == "depth/my-room" and depth["value"].startswith("RMSE ") and depth["ok"]
    assert labels["value"] == "n/a: pixels has no text tower" and not results.exists()
    (own / "data" / "geometry" / "depth" / "0.png").rename(own / "data" / "moved.png")
    try:
        code, said, _ = told(capsys, "check", "--model", "pixels", "--cheap", *tasks)
    finally:
        (own / "data" / "moved.png").rename(own / "data" / "geometry" / "depth" / "0.png")
    assert code == 1 and "FAILED  depth/my-room" in said
    assert told(capsys, "check", "--model", "pixels", "--cheap", "--suite", "scnes")[0] == 2
