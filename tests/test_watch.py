"""Watching checkpoints: which are whole, that each is scored once, what survives kill -9, what is a regression."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rows import write_rows
from safetensors.numpy import save, save_file

from benchmark.cli import main
from benchmark.cli.watch import exit_code
from benchmark.errors import UsageError
from benchmark.rows.row import Row, read_all
from benchmark.watch.checkpoints import damage, find, step_of
from benchmark.watch.report import markdown
from benchmark.watch.steps import progress_of
from benchmark.watch.watcher import Plan, Watcher

TASKS = ("linear_segmentation", "depth")
WEIGHTS: dict[str, Any] = {"w": np.arange(256, dtype=np.float32)}
STATE = {f"{part}/encoder.w": WEIGHTS["w"] for part in ("student", "teacher", "optimizer")}
EXAMPLE = Path(__file__).parents[1] / "examples" / "ci" / "weights_of_state.py"


class Clock:
    """Time that passes only while somebody sleeps; `then` runs after each sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.then: list[object] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.then:
            self.then.pop(0)()  # type: ignore[operator]


class Scorer:
    """Stands for the engine: writes simulated rows whose skill is the one in the checkpoint's name."""

    def __init__(self, skills: dict[str, float]) -> None:
        self.skills, self.calls = skills, list[str]()

    def __call__(self, weights: Path, results: Path) -> tuple[list[Row], list[str]]:
        self.calls.append(weights.name)
        write_rows(results, {f"mini@{weights.name}": self.skills[weights.name]}, TASKS)
        return read_all(results)[0], []


def checkpoint(folder: Path, name: str) -> Path:
    """A whole checkpoint: a folder with one safetensors file."""
    (folder / name).mkdir(parents=True)
    save_file(WEIGHTS, folder / name / "model.safetensors")
    return folder / name


def watcher(tmp_path: Path, scorer: Scorer, clock: Clock, **plan: object) -> Watcher:
    plan = {"once": True, "settle": 5.0, "every": 5.0, **plan}
    made = Plan(tmp_path / "run", "mini", "scenes", tmp_path / "out", tmp_path / "results", **plan)  # type: ignore[arg-type]
    return Watcher(made, scorer, say=lambda line: None, sleep=clock.sleep, clock=clock)


def test_a_checkpoint_scored_by_an_older_densebench_is_said_to_be_stale(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", "step-1")
    scorer, clock, said = Scorer({"step-1": 0.6, "step-2": 0.6}), Clock(), list[str]()
    watcher(tmp_path, scorer, clock).run()
    for file in (tmp_path / "out").rglob("result.json"):
        data = json.loads(file.read_text())
        file.write_text(json.dumps({**data, "task": {**data["task"], "version": 0}}))
    checkpoint(tmp_path / "run", "step-2")
    later = watcher(tmp_path, scorer, clock)
    later.say = said.append
    later.run()
    stale = [line for line in said if line.startswith("step-2: ‡ stale")]
    assert len(stale) == 2 and all("the row was made by 0" in line for line in stale), said


def test_a_folder_that_training_deletes_while_it_is_listed_is_passed_over(tmp_path, monkeypatch):
    for name in ("step-1", "step-2"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "x.safetensors").write_bytes(b"")
    listed = os.scandir

    def scandir(path="."):
        if Path(path) == tmp_path / "step-1" / "model":
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [c.name for c in find(tmp_path)] == ["step-2"]


def test_steps_order_checkpoints_not_their_names(tmp_path: Path) -> None:
    for name in ("step-1000", "step-200", "step-30"):
        checkpoint(tmp_path, name)
    assert [c.name for c in find(tmp_path)] == ["step-30", "step-200", "step-1000"]
    assert step_of("model-00012.safetensors") == 12 and step_of("final") is None


NAMES = {  # as the libraries write them -> (number, of what)
    "epoch=3-step=1000-val_loss=0.25.safetensors": "step 1000",  # Lightning
    "epoch=4-step=1250-val_loss=0.9.safetensors": "step 1250",
    "epoch=9-step=1000-v1": "step 1000",
    "epoch=0-train_loss_step=0.25-step=100": "step 100",
    "val_loss_step=3-step=100": "step 100",
    "checkpoint-500": "step 500",  # transformers
    "checkpoint-1000/vit-b16": "step 1000",
    "checkpoint-500-bf16": "step 500",
    "iter_1000.pth": "step 1000",  # mmengine
    "best_mIoU_iter_8000": "step 8000",
    "best_coco_bbox_mAP_epoch_12": "epoch 12",
    "epoch_10": "epoch 10",  # open_clip
    "checkpoint-10.pth.tar": "step 10",  # timm: it does not say of what
    "step-00001000": "step 1000",  # litgpt
    "iter-000100-ckpt": "step 100",
    "step_2000_fp16.safetensors": "step 2000",
    "epoch_2_of_100": "epoch 2",
    "vit_epoch10_step500_of_1000": "step 500",
    "model-step-500-00001-of-00002.safetensors": "step 500",
    "global_step1000": "step 1000",  # DeepSpeed
    "ep3-ba1000-rank0": "step 1000",  # Composer
    "checkpoint_2_1000": "step 1000",  # fairseq: epoch and updates
    "model_0012499": "step 12499",  # detectron2
    "0012499": "step 12499",
    "10k_steps": "step 10000",
    "clip-vit-b32_e16": "epoch 16",
    **dict.fromkeys(
        ("last", "last-v1", "model_best", "epoch_latest", "final", "vit-b16", "exp2", "timestep_5"), "None"
    ),
    **dict.fromkeys(("model-00001-of-00003.safetensors", "laion2b_s34b_b79k", "run-2024-05-01"), "None"),
    **dict.fromkeys(("max_steps_100", "weights.10-0.25", "model_v2"), "None"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_step_of_a_checkpoint_is_what_its_name_says_of_it(name: str) -> None:
    assert str(progress_of(name)) == NAMES[name]


def test_names_that_say_nothing_are_ordered_by_time_and_the_page_says_which(tmp_path: Path) -> None:
    """An epoch among steps is on another scale: its time places it as well."""
    names = ("step_2000_fp16", "step_900_fp16", "model_best", "epoch_7", "last")
    for name, age in zip(names, (20, 40, 30, 25, 10)):
        os.utime(checkpoint(tmp_path / "run", name) / "model.safetensors", (10**9 - age, 10**9 - age))
    right = ["step_900_fp16", "model_best", "epoch_7", "step_2000_fp16", "last"]
    assert [c.name for c in find(tmp_path / "run")] == right
    scorer = Scorer(dict.fromkeys(right, 0.6))
    watcher(tmp_path, scorer, Clock()).run()
    assert scorer.calls == right
    page, table = (tmp_path / "out" / "summary.md").read_text(), (tmp_path / "out" / "history.csv").read_text()
    plain = page.replace("\\", "")
    assert "In the order of the step in their names; model_best, epoch_7, last: by time" in plain
    assert [(r["step"], r["ordered_by"]) for r in csv.DictReader(table.splitlines())][::2] == [
        ("900", "step"), ("", "time"), ("", "time"), ("2000", "step"), ("", "time")
    ]  # fmt: skip


def test_a_checkpoint_that_comes_late_is_compared_with_the_one_before_it_in_training(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", "step-100")
    checkpoint(tmp_path / "run", "step-300")
    scorer = Scorer({"step-100": 0.6, "step-200": 0.6, "step-300": 0.45})
    watcher(tmp_path, scorer, Clock()).run()
    checkpoint(tmp_path / "run", "step-200")
    history = watcher(tmp_path, scorer, Clock()).run()
    late = history.entries[-1]
    assert late.name == "step-200" and "step-100" in late.baseline
    assert "| step-200 | step-100 | " in markdown(history), "by its name, not by that of the folder of its rows"


def test_hidden_unfinished_and_pickled_files_are_no_checkpoints(tmp_path: Path) -> None:
    checkpoint(tmp_path, ".step-1.part")
    checkpoint(tmp_path, "step-2.tmp")
    (tmp_path / "step-3.pt").write_bytes(b"x")
    (tmp_path / "logs").mkdir()
    assert find(tmp_path) == []


def test_truncated_files_are_seen_at_every_length(tmp_path: Path) -> None:
    whole = save(WEIGHTS)
    path = tmp_path / "step-1.safetensors"
    for length in (0, 4, 8, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert damage(find(tmp_path)[0]) is not None, length
    path.write_bytes(whole)
    assert damage(find(tmp_path)[0]) is None
    path.write_bytes(whole + b"x")
    assert damage(find(tmp_path)[0]) is not None


def test_an_npz_pair_is_one_checkpoint_and_needs_both_halves(tmp_path: Path) -> None:
    np.savez(tmp_path / "a_vision.npz", **WEIGHTS)
    assert [c.name for c in find(tmp_path)] == ["a_vision.npz"]
    assert damage(find(tmp_path)[0]) == "a_text.npz: is missing"
    np.savez(tmp_path / "a_text.npz", **WEIGHTS)
    assert len(find(tmp_path)) == 1 and damage(find(tmp_path)[0]) is None
    half = (tmp_path / "a_text.npz").read_bytes()[:-30]
    (tmp_path / "a_text.npz").write_bytes(half)
    assert "a_text.npz" in (damage(find(tmp_path)[0]) or "")


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "step-1")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-2-of-2.safetensors"}}')
    assert "model-2-of-2.safetensors" in (damage(find(tmp_path)[0]) or "")


def test_each_checkpoint_is_scored_once_and_the_injected_regression_is_caught(tmp_path: Path) -> None:
    for name in ("step-1", "step-2", "step-3"):
        checkpoint(tmp_path / "run", name)
    scorer, clock = Scorer({"step-1": 0.6, "step-2": 0.61, "step-3": 0.45}), Clock()
    history = watcher(tmp_path, scorer, clock).run()
    assert scorer.calls == ["step-1", "step-2", "step-3"]
    assert [bool(e.regressions) for e in history.entries] == [False, False, True]
    assert {p.unit for p in history.entries[2].regressions} == {"linear_segmentation/scenes", "depth/scenes"}
    watcher(tmp_path, scorer, clock).run()
    assert len(scorer.calls) == 3


def test_a_baseline_is_compared_with_every_checkpoint(tmp_path: Path) -> None:
    write_rows(tmp_path / "results", {"good": 0.6}, TASKS)
    for name in ("step-1", "step-2"):
        checkpoint(tmp_path / "run", name)
    history = watcher(tmp_path, Scorer({"step-1": 0.45, "step-2": 0.45}), Clock(), baseline="good").run()
    assert [len(e.regressions) for e in history.entries] == [2, 2]


@pytest.mark.parametrize("baseline", ["nobody", "published"])
def test_a_baseline_that_cannot_be_tested_is_said_before_scoring(tmp_path: Path, baseline: str) -> None:
    checkpoint(tmp_path / "run", "step-1")
    scorer = Scorer({"step-1": 0.5})
    with pytest.raises(UsageError, match=baseline):
        watcher(tmp_path, scorer, Clock(), baseline=baseline).run()
    assert scorer.calls == []


def test_a_growing_checkpoint_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path, whole = tmp_path / "run" / "step-1.safetensors", save(WEIGHTS)
    path.write_bytes(whole[:100])
    scorer, clock = Scorer({"step-1.safetensors": 0.6}), Clock()
    grow = [lambda: path.write_bytes(whole[:300]), lambda: path.write_bytes(whole)]
    seen_at: list[float] = []
    clock.then = [*grow, *[lambda: None] * 9]
    watch = watcher(tmp_path, scorer, clock, once=False, idle=20.0, every=3.0)
    score = watch.score
    watch.score = lambda w, r: (seen_at.append(clock.now), score(w, r))[1]
    watch.run()
    assert scorer.calls == ["step-1.safetensors"]
    assert seen_at[0] >= 6 + 5  # whole at 6 s, and 5 s without a change


def test_a_half_written_checkpoint_is_an_error_for_ci_when_asked_once(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step-1.safetensors").write_bytes(save(WEIGHTS)[:100])
    watch = watcher(tmp_path, Scorer({}), Clock())
    history = watch.run()
    assert history.entries == [] and len(watch.unreadable(history)) == 1
    junit = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert junit.attrib["errors"] == "1"


def watch_once(run: Path, out: Path, *words: object) -> int:
    """Exit code of `bench watch RUN --once`."""
    with pytest.raises(SystemExit) as done:
        main(["watch", str(run), "--model", "tipsv2-mini", "--once", "--settle", "0", "--every", "0.05",
              "--out", str(out), *map(str, words)])  # fmt: skip
    return int(done.value.code or 0)


@pytest.mark.parametrize(("name", "errors"), [("", "0"), ("step-1.pt", "1")])
def test_a_folder_with_nothing_to_score_is_no_success(
    tmp_path: Path, name: str, errors: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty, or holding nothing but a pickle."""
    (tmp_path / "run").mkdir()
    if name:
        (tmp_path / "run" / name).write_bytes(b"x")
    assert watch_once(tmp_path / "run", tmp_path / "out") == 1
    assert ElementTree.parse(tmp_path / "out" / "junit.xml").getroot().attrib["errors"] == errors
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("0 checkpoints scored, none with a regression; also history.csv, junit.xml")


def test_pickles_beside_checkpoints_are_no_error(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run", "step-1")
    (tmp_path / "run" / "optimizer.pt").write_bytes(b"x")
    watch = watcher(tmp_path, Scorer({"step-1": 0.6}), Clock())
    history = watch.run()
    assert exit_code(history, watch.unreadable(history)) == 0


def test_a_checkpoint_that_nothing_was_compared_with_its_baseline_is_no_success(tmp_path: Path) -> None:
    write_rows(tmp_path / "results", {"good": 0.6}, TASKS, n=60)  # other data: every pair is refused
    checkpoint(tmp_path / "run", "step-1")
    said: list[str] = []
    watch = watcher(tmp_path, Scorer({"step-1": 0.6}), Clock(), baseline="good")
    watch.say = said.append
    history = watch.run()
    assert "2 tasks scored, nothing compared" in said[0] and len(history.entries[0].refused) == 1
    assert exit_code(history, watch.unreadable(history)) == 1


def test_what_another_baseline_says_of_checkpoints_scored_before_is_announced(tmp_path: Path) -> None:
    """Their exit code is about them too: without a word nobody knows why it is 1 or 3."""
    write_rows(tmp_path / "results", {"good": 0.6}, TASKS)
    write_rows(tmp_path / "results", {"other-data": 0.6}, TASKS, n=60)
    checkpoint(tmp_path / "run", "step-1")
    scorer = Scorer({"step-1": 0.45})
    watcher(tmp_path, scorer, Clock()).run()
    said: list[str] = []
    for baseline in ("good", "other-data"):
        watch = watcher(tmp_path, scorer, Clock(), baseline=baseline)
        watch.say = said.append
        history = watch.run()
    assert len(scorer.calls) == 1 and said[0].startswith("compared again")
    assert said[1].startswith("step-1: worse: depth/scenes")
    assert "nothing compared" in said[3] and said[4] == f"step-1: {history.entries[0].refused[0]}"


def test_a_damaged_row_of_the_baseline_is_no_success(tmp_path: Path) -> None:
    write_rows(tmp_path / "results", {"good": 0.6}, TASKS)
    next((tmp_path / "results" / "good" / "depth").rglob("result.json")).unlink()
    checkpoint(tmp_path / "run", "step-1")
    watch = watcher(tmp_path, Scorer({"step-1": 0.6}), Clock(), baseline="good")
    history = watch.run()
    assert "half-written" in history.entries[0].refused[0] and exit_code(history, []) == 1
