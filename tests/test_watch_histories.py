"""bench watch: histories, failures, training states, two watchers, kill -9."""

from __future__ import annotations

import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from recipe_fixtures import tiny
from rows import write_rows
from safetensors.numpy import load_file, save, save_file
from test_watch import EXAMPLE, STATE, TASKS, WEIGHTS, Clock, Scorer, checkpoint, watch_once, watcher

from adapters.tipsv2.recipe.trainer import train
from benchmark.cli import main
from benchmark.cli.watch import exit_code
from benchmark.errors import BenchError, UsageError
from benchmark.rows.row import Row
from benchmark.watch.checkpoints import find, is_training_state
from benchmark.watch.history import History, only_watcher
from benchmark.watch.watcher import default_out


def test_a_checkpoint_written_again_is_scored_again(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "run", "latest")
    scorer, clock = Scorer({"latest": 0.6}), Clock()
    watcher(tmp_path, scorer, clock).run()
    save_file({"w": np.zeros(300, np.float32)}, folder / "model.safetensors")
    history = watcher(tmp_path, scorer, clock).run()
    assert scorer.calls == ["latest", "latest"] and len(history.entries) == 2


def test_a_failure_is_kept_and_the_next_checkpoint_still_scored(tmp_path: Path) -> None:
    for name in ("step-1", "step-2"):
        checkpoint(tmp_path / "run", name)

    class Failing(Scorer):
        def __call__(self, weights: Path, results: Path) -> tuple[list[Row], list[str]]:
            if weights.name == "step-1":
                raise BenchError("step-1: weights are NaN. Train again")
            return super().__call__(weights, results)

    history = watcher(tmp_path, Failing({"step-2": 0.6}), Clock()).run()
    assert history.entries[0].failures == ("step-1: weights are NaN. Train again",)
    assert len(history.entries[1].points) == 2


def test_a_failed_checkpoint_is_said_to_be_unscored(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", "step-1")

    def failing(weights: Path, results: Path) -> tuple[list[Row], list[str]]:
        raise BenchError("weights are NaN. Train again")

    said: list[str] = []
    watch = watcher(tmp_path, failing, Clock())  # type: ignore[arg-type]
    watch.say = said.append
    watch.run()
    assert said == ["step-1: could not be scored (0 s)", "step-1: weights are NaN. Train again"]
    heading = (tmp_path / "out" / "summary.md").read_text().splitlines()[0]
    assert heading == "## mini on scenes: 0 checkpoints scored, 1 could not be scored, none with a regression"


def test_a_training_state_is_told_by_its_tensors(tmp_path: Path) -> None:
    """As a folder or a file of any name; a model that is named like a state, and a folder with both, are none."""
    for name, tensors in (("state.safetensors", WEIGHTS), ("step-1.safetensors", STATE)):
        save_file(tensors, tmp_path / name)
    for name, tensors in (("step-2", STATE), ("step-3", WEIGHTS), ("step-4", STATE)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "state.safetensors")
    save_file(WEIGHTS, tmp_path / "step-4" / "model.safetensors")
    (tmp_path / "step-5.safetensors").write_bytes(save(STATE)[:20])
    states = sorted(c.name for c in find(tmp_path) if is_training_state(c))
    assert states == ["step-1.safetensors", "step-2"]


def test_a_training_run_is_scored_at_its_checkpoints_and_states_of_before_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint is exported first, also of a run that is going on; one without its tokeniser cannot be."""
    train(tiny(train__steps=4), tmp_path / "run", quiet=True)
    (tmp_path / "run" / "step-00000002" / "tokenizer.model").unlink()
    seen: dict[str, set[str]] = {}

    def score(weights: Path, results: Path) -> tuple[list[Row], list[str]]:
        seen[weights.name.rsplit("-", 1)[0]] = set(load_file(weights / "model.safetensors"))
        return Scorer({weights.name: 0.6})(weights, results)

    monkeypatch.setattr("benchmark.watch.watcher.engine_scorer", lambda *a, **k: score)
    watch_once(tmp_path / "run", tmp_path / "out", *(w for task in TASKS for w in ("--task", f"{task}/scenes")))
    assert sorted(seen) == ["final", "step-00000004"] and seen["final"] == seen["step-00000004"]
    lines = [line for line in capsys.readouterr().out.splitlines() if "training state" in line]
    assert len(lines) == 1 and "passed over: 1." in lines[0] and "--prepare" in lines[0]
    junit = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert junit.attrib["errors"] == "0"


def test_training_states_alone_are_no_success_and_no_error_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "run" / "step-1").mkdir(parents=True)
    save_file(STATE, tmp_path / "run" / "step-1" / "state.safetensors")
    watch = watcher(tmp_path, Scorer({}), Clock())
    history = watch.run()
    assert watch.unreadable(history) == [] and exit_code(history, []) == 1


def test_prepare_gets_the_training_states_and_the_example_makes_models_of_them(tmp_path: Path) -> None:
    final = train(tiny(), tmp_path / "run", quiet=True)
    states = sorted(p.name for p in (tmp_path / "run").glob("step-*"))
    made: dict[str, set[str]] = {}
    said: list[str] = []

    def score(weights: Path, results: Path) -> tuple[list[Row], list[str]]:
        made[weights.name.rsplit("-", 1)[0]] = set(load_file(weights / "model.safetensors"))
        return Scorer({weights.name: 0.6})(weights, results)

    python, script, like = (shlex.quote(str(p)) for p in (sys.executable, EXAMPLE, final))
    command = f"{python} {script} {{checkpoint}} {{out}} --like {like}"
    watch = watcher(tmp_path, score, Clock(), prepare=command)  # type: ignore[arg-type]
    watch.say = said.append
    history = watch.run()
    assert [e.failures for e in history.entries] == [()] * (len(states) + 1)
    assert sorted(made) == ["final", *states] and not any("passed over" in line for line in said)
    assert all(names == made["final"] for names in made.values())


def test_reports_are_written_for_people_and_for_ci(tmp_path: Path) -> None:
    for name in ("step-1", "step-2"):
        checkpoint(tmp_path / "run", name)
    watcher(tmp_path, Scorer({"step-1": 0.6, "step-2": 0.45}), Clock()).run()
    out = tmp_path / "out"
    assert "step-2 | step-1 |" in (out / "summary.md").read_text()
    assert (out / "trend.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [r["verdict"] for r in rows if r["checkpoint"] == "step-2"] == ["worse", "worse"]
    junit = ElementTree.parse(out / "junit.xml").getroot()
    assert (junit.attrib["tests"], junit.attrib["failures"]) == ("4", "2")


def test_two_watchers_of_one_folder_are_refused(tmp_path: Path) -> None:
    with only_watcher(tmp_path), pytest.raises(UsageError, match="another bench watch"), only_watcher(tmp_path):
        pass


def test_a_history_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", "step-1")
    watched = watcher(tmp_path, Scorer({"step-1": 0.6}), Clock())
    watched.run()
    watched.plan.model = "other"
    with pytest.raises(UsageError, match="keeps the history of model mini. Give another --out for model other"):
        watched.run()


@pytest.mark.parametrize("change", [{"limit": 20}, {"seed": 1}, {"dtype": "bfloat16"}, {"protocol": "paper"}])
def test_a_history_of_other_scoring_options_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    checkpoint(tmp_path / "run", "step-1")
    asked = {"limit": None, "seed": 0, "dtype": "auto", "protocol": None}
    scorer = Scorer({"step-1": 0.6})
    watcher(tmp_path, scorer, Clock(), scoring=asked).run()
    watcher(tmp_path, scorer, Clock(), scoring=asked).run()
    ((name, value),) = change.items()
    with pytest.raises(UsageError, match=f"keeps the history of {name} {asked[name]}. Give .* for {name} {value}"):
        watcher(tmp_path, scorer, Clock(), scoring={**asked, **change}).run()
    assert scorer.calls == ["step-1"]


def test_a_history_of_another_folder_is_refused_and_follows_a_move(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", "step-1")
    scorer = Scorer({"step-1": 0.6})
    watcher(tmp_path, scorer, Clock()).run()
    other = watcher(tmp_path, scorer, Clock())
    checkpoint(tmp_path / "other", "step-1")
    other.plan.folder = tmp_path / "other"
    with pytest.raises(UsageError, match=r"keeps the history of folder \.\./run"):
        other.run()
    (tmp_path / "new").mkdir()
    for name in ("run", "out"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    assert len(watcher(tmp_path / "new", scorer, Clock()).run().entries) == 1 and scorer.calls == ["step-1"]


def test_two_runs_of_one_folder_name_have_histories_of_their_own(tmp_path: Path) -> None:
    a, b = (default_out(tmp_path / run / "checkpoints", tmp_path / "results") for run in ("a", "b"))
    assert a != b and a.name.startswith("checkpoints-") and a.parent == tmp_path / "results" / "watch"


def test_another_baseline_or_tolerance_compares_what_is_there_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "results", {"weak": 0.3, "good": 0.6}, TASKS)
    checkpoint(tmp_path / "run", "step-1")
    scorer = Scorer({"step-1": 0.45})

    def verdicts(**plan: object) -> set[str]:
        watcher(tmp_path, scorer, Clock(), **plan).run()
        (entry,) = History.open(
            tmp_path / "out", "mini", "scenes", watcher(tmp_path, scorer, Clock())._scoring()
        ).entries
        return {p.verdict for p in entry.points}

    assert verdicts(baseline="weak") == {"better"}
    assert verdicts(baseline="good") == {"worse"}
    assert "worse" not in verdicts(baseline="good", tolerance=60.0)
    assert scorer.calls == ["step-1"]
    next((tmp_path / "out" / "rows").rglob("result.json")).unlink()
    with pytest.raises(UsageError, match="has gone, so step-1 cannot be compared"):
        verdicts(baseline="weak")


def test_kill_minus_nine_loses_no_scored_checkpoint(tmp_path: Path) -> None:
    """Killed while the second checkpoint is being scored: the first is not scored again, the second is."""
    for name in ("step-1", "step-2"):
        checkpoint(tmp_path / "run", name)
    script = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from pathlib import Path
from test_watch import Scorer
from benchmark.watch.watcher import Plan, Watcher, default_out
scorer = Scorer({{"step-1": 0.6, "step-2": 0.6}})
def score(weights, results):
    if weights.name == "step-2":
        Path({str(tmp_path / "second")!r}).touch()
        time.sleep(3600)  # until it is killed
    return scorer(weights, results)
root = Path({str(tmp_path)!r})
plan = Plan(root / "run", "mini", "scenes", root / "out", root / "results", settle=0.05, every=0.05, once=True)
Watcher(plan, score).run()
"""
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "second").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "second").exists()
    scorer = Scorer({"step-1": 0.6, "step-2": 0.6})
    history = watcher(tmp_path, scorer, Clock()).run()
    assert scorer.calls == ["step-2"]
    assert [e.name for e in history.entries] == ["step-1", "step-2"]


def test_a_folder_without_a_checkpoint_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    words = ["watch", str(tmp_path / "run"), "--model", "pixels", "--once", "--results", str(tmp_path / "results")]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1 and "no checkpoint was found" in capsys.readouterr().err
