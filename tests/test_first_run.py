"""The first run: a model refuses before pictures are there, a row is there before all are, again costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmark import run
from benchmark.cli import main
from benchmark.contracts.progress import silent
from benchmark.engine.ahead import Ahead
from benchmark.engine.jobs import Job, JobMaker
from benchmark.engine.options import RunOptions
from benchmark.engine.report import Hooks
from benchmark.engine.session import Session
from benchmark.errors import BenchError
from benchmark.registry import units
from tasks.scenes import kinds

FEW = {"size": "16", "n_train": "40", "n_test": "12", "n_retrieval": "24"}
WORDS = ["instance_retrieval/scenes", "depth/scenes"]  # of two splits, then of others
READ = ["retrieval", "test", "train"]
HEAVY = {"torch", "jax", "transformers", "safetensors", "pandas", "sklearn", "scipy.sparse", "scipy.special"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were asked for so far."""
    splits: list[str] = []
    rendered = kinds.rendered

    def noting(split: str, *more: Any) -> Path:
        splits.append(split)
        return rendered(split, *more)

    monkeypatch.setattr(kinds, "rendered", noting)
    return splits


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The splits that were asked for; none comes before the test has ended."""
    splits: list[str] = []
    over = threading.Event()

    def waiting(split: str, *more: Any) -> Path:
        splits.append(split)
        bar = more[-1]("rendering", 1)
        while not over.wait(0.02):
            bar.advance(0)
        raise BenchError("the test has ended")

    monkeypatch.setattr(kinds, "rendered", waiting)
    yield splits
    over.set()


def few(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"dataset_options": FEW, "results": tmp_path / "results", "cache": tmp_path / "cache", **more}


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("pixels", ["--weights", __file__], "reads no weights"),
        ("pixels", ["--backend", "jax"], "has no jax backend"),
        ("random-vit", ["--gelu", "erf"], "has no such choice"),
        ("no.such.module:build", [], "cannot import"),
    ],
)
def test_a_model_refuses_before_any_picture_is_there(model, more, said, endless, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--model", model, "--task", "depth/scenes", "--results", str(tmp_path), *more])
    assert ended.value.code in (1, 2) and said in capsys.readouterr().err
    assert len(set(endless)) <= 1, "of one split they may be begun; of no other after the refusal"


def test_pictures_are_made_while_the_model_is_opened(asked, tmp_path, monkeypatch) -> None:
    opening = Session.open

    def open_late(*words: Any) -> Session:
        until = time.monotonic() + 60
        while "test" not in asked and time.monotonic() < until:
            time.sleep(0.01)
        seen.extend(asked)
        return opening(*words)

    seen: list[str] = []
    monkeypatch.setattr(Session, "open", open_late)
    report = run("pixels", ["zero_shot_segmentation/scenes", "depth/scenes"], **few(tmp_path))
    assert "test" in seen and [row.unit for row in report.rows] == ["depth/scenes"]


def test_pictures_of_jobs_that_the_model_cannot_do_are_not_made(asked, tmp_path, monkeypatch) -> None:
    maker = JobMaker(RunOptions(**few(tmp_path)), "fast", silent)
    retrieval, texts = (maker.make(units(name)[0]) for name in (WORDS[0], "zero_shot_segmentation/scenes"))
    rendered, told = kinds.rendered, threading.Event()
    monkeypatch.setattr(kinds, "rendered", lambda *words: told.wait(60) and rendered(*words))
    with Ahead(silent) as ahead:
        ahead.begin([retrieval, texts])
        ahead.keep([retrieval])
        threading.Timer(0.1, told.set).start()
        ahead.threads[0].join()
    assert asked == ["retrieval"]


def test_pictures_that_no_job_wants_are_not_made(tmp_path, monkeypatch) -> None:
    """Those of jobs whose rows another run has made meanwhile."""
    asked, began, left = [], threading.Event(), threading.Event()

    class Noting(Ahead):
        def keep(self, jobs: Sequence[Job]) -> None:
            super().keep(jobs)
            if not jobs:
                left.set()

    def held(split: str, *more: Any) -> Path:
        asked.append(split)
        began.set()
        left.wait(60)
        raise BenchError("the block was left")

    monkeypatch.setattr(kinds, "rendered", held)
    maker = JobMaker(RunOptions(**few(tmp_path)), "fast", silent)
    retrieval, depth = (maker.make(units(word)[0]) for word in WORDS)
    with Noting(silent) as ahead:
        ahead.begin([retrieval, depth])
        began.wait(60)
    assert asked == ["retrieval"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_pictures_that_nobody_waits_for_any_more_leave_nothing_half_made(interrupted, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    job = JobMaker(RunOptions(cache=tmp_path), "fast", silent).make(units("depth/scenes")[0])  # four thousand of them
    with suppress(KeyboardInterrupt), Ahead(silent) as ahead:
        ahead.begin([job])
        until = time.monotonic() + 60
        while not list(tmp_path.rglob("images.npy")) and time.monotonic() < until:
            time.sleep(0.01)
        begun = list(tmp_path.rglob("*.part"))
        if interrupted:
            raise KeyboardInterrupt
        ahead.keep(())
    assert begun and not list(tmp_path.rglob("*.npy")) and not list(tmp_path.rglob("*.part"))


def test_a_row_is_there_before_the_pictures_of_the_next_job_are(asked, tmp_path, monkeypatch) -> None:
    first_row, rendered = threading.Event(), kinds.rendered
    held = []

    def slow(split: str, *more: Any) -> Path:
        if split == "train":
            held.append(first_row.wait(60))
        return rendered(split, *more)

    monkeypatch.setattr(kinds, "rendered", slow)
    report = run("pixels", WORDS, hooks=Hooks(row=lambda row: first_row.set()), **few(tmp_path))
    assert len(report.rows) == 2 and held and all(held)
    assert sorted(set(asked)) == READ

    asked.clear()
    again = run("pixels", WORDS, **few(tmp_path))
    assert again.reused == 2 and asked == []

    places = {name: str(tmp_path / name) for name in ("results", "cache")}
    code = (
        "import sys, benchmark.cli.run, benchmark.cli.tables; from pathlib import Path; from benchmark import run;"
        f"assert run('pixels', {WORDS}, dataset_options={FEW}, **{places}).reused == 2;"
        "from benchmark.registry import load_task, tasks; [load_task(name) for name in tasks()];"
        "from benchmark.rows.tables import write_tables; assert len(write_tables(Path(sys.argv[1]))) == 2;"
        f"print({HEAVY} & set(sys.modules))"
    )
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code, places["results"]], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "set()\n", "what is there needs no heavy import"


def test_pictures_that_cannot_be_made_fail_their_own_jobs(asked, tmp_path, monkeypatch) -> None:
    rendered = kinds.rendered

    def broken(split: str, *more: Any) -> Path:
        if split == "train":
            raise BenchError("no space left")
        return rendered(split, *more)

    monkeypatch.setattr(kinds, "rendered", broken)
    report = run("pixels", ["depth/scenes", "instance_retrieval/scenes"], **few(tmp_path))
    assert [row.unit for row in report.rows] == ["instance_retrieval/scenes"]
    assert [(str(note.unit), note.text) for note in report.failures] == [("depth/scenes", "no space left")]
