"""What a command says while it works: bars for heads, lines without a terminal, and where its seconds went."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command import told
from test_names import here  # noqa: F401

from benchmark.cli import bars
from benchmark.cli.tables import clock_line
from benchmark.heads.bins import fit_bins
from benchmark.heads.knn import topk_search
from benchmark.heads.logistic import fit_logistic


class Bar:
    done = 0

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        """Not counted."""


def test_a_bar_ends_with_its_head() -> None:
    """A path of penalties stops early where two in a row are no better; its bar would stand there for ever."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((60, 4)).astype(np.float32))
    y, held = rng.integers(0, 2, 60), np.arange(60) % 4 == 0
    penalties = [10.0**e for e in range(2, -8, -1)]
    bar = Bar()
    head = fit_logistic(x, y, 2, penalties, held, progress=bar)
    assert bar.done == len(penalties) + 1 > len(head.history), "this path stops early"
    bar = Bar()
    depth = torch.from_numpy(rng.uniform(1, 3, 60))
    fit_bins(x, depth, held, 0.5, 4.0, 8, learning_rates=(1e-2, 1e-3), steps=7, batch=16, progress=bar)
    assert bar.done == 3 * 7
    bar = Bar()
    topk_search(x, x, 3, progress=bar)
    assert bar.done == 60


def test_without_a_terminal_waiting_is_told_and_rows_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    with bars.bars() as (new, say):
        bar = new("encoding mini", 500)
        for _ in range(13):  # of 10 s and 10 pictures each
            now[0] += 10
            bar.advance(10)
        say("mini: depth/scenes: RMSE 1.4 m")
        now[0] += 59
        bar.advance(10)
        now[0] += 1
        bar.note("loss 0.1")
        bar.advance(360)
    assert capsys.readouterr().err.splitlines() == [
        "1 min: encoding mini 60/500, about 7 min left",
        "2 min: encoding mini 120/500, about 6 min left",
        "mini: depth/scenes: RMSE 1.4 m",
        "3 min: encoding mini 500/500 loss 0.1",
    ]


def test_a_run_says_each_row_and_its_seconds_add_up(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, error = told(capsys, "run", "--model", "pixels", "--task", "toys.toml", "--no-check")
    assert code == 0 and len(re.findall(r"^pixels: instance_retrieval/\S+: mean R@1 \d", error, re.M)) == 1, error
    whole, parts = re.search(r"this command: ([\d.]+) s = (.+)", said).groups()  # type: ignore[union-attr]
    assert float(whole) == pytest.approx(sum(float(p.split()[1]) for p in parts.split(" + ")), abs=0.051)
    code, said, error = told(capsys, "run", "--model", "pixels", "--task", "toys.toml", "--no-check", "--json")
    assert code == 0 and error == "" and said.count("\n") == 1


def test_the_clock_adds_up_whatever_is_rounded() -> None:
    line = clock_line({"data": 40.04, "models": 3.44, "tasks": 120.06}, 171.96)
    assert line == "this command: 172.0 s = data 40.0 + models 3.4 + tasks 120.1 + rest 8.5"
    assert clock_line({}, 0.0) == "this command: 0.0 s = 0.0"
