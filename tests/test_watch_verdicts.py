"""What the verdict of a watch is about: the last state of a checkpoint, the right one before it, chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file
from scipy.special import ndtr
from test_watch import WEIGHTS, Clock, Scorer, checkpoint, watcher

from benchmark.cli.watch import exit_code
from benchmark.compare.compare import UnitComparison, _judge
from benchmark.statistics.multiple import minimum_detectable_effect
from benchmark.watch.checkpoints import damage, find
from benchmark.watch.history import Entry, History, Point
from benchmark.watch.report import cases, markdown, verdict
from benchmark.watch.watcher import Plan, Watcher

POINT = Point("depth/scenes", "fast-1", "RMSE", "m", False, 0.5, (0.4, 0.6), "no difference", 0.0, 1.0)
WORSE = Point("depth/scenes", "fast-1", "RMSE", "m", False, 0.9, (0.8, 1.0), "worse", 0.4, 0.001)


def history(*entries: Entry) -> History:
    return History(Path("out"), "mini", "scenes", entries=list(entries))


@pytest.mark.parametrize(
    "before", [{"points": (WORSE,)}, {"failures": ("depth/scenes: out of memory",)}, {"refused": ("depth/scenes: x",)}]
)
def test_a_checkpoint_written_anew_is_judged_by_what_it_holds_now(before: dict[str, tuple[Point | str, ...]]) -> None:
    old = Entry("last.safetensors", "s1", None, "", **before)  # type: ignore[arg-type]
    fine, other = (Entry(name, "s2", None, "", (POINT,)) for name in ("last.safetensors", "b"))
    found = history(old, other, fine)
    assert exit_code(history(old, other), []) != 0 and exit_code(found, []) == 0
    assert verdict(found) == "2 checkpoints scored, none with a regression"
    assert [(c.suite, c.outcome) for c in cases(found)] == [("b", "passed"), ("last.safetensors", "passed")]
    page = markdown(history(Entry("step-1", "s", 1, "", (POINT,)), *found.entries)).replace("\\", "")
    assert "names; b, last.safetensors: by time" in page
    assert "last.safetensors (written anew since)" in page
    assert not any(line.startswith("- ") for line in page.splitlines())
    assert exit_code(history(fine, other, old), []) == exit_code(history(old), [])  # the other way: it is worse now


@pytest.mark.parametrize(
    ("verdict", "sign"),
    [("worse", "▼"), ("better", "▲"), ("no difference", "="), ("undecided", "?"), ("too little data", "?")],
)
def test_every_verdict_has_a_sign_that_the_page_explains(verdict: str, sign: str) -> None:
    page = markdown(history(Entry("step-1", "s", 1, "", (replace(POINT, verdict=verdict),))))
    assert f"| 0.5000 {sign} |" in page
    assert f"{sign} {verdict if sign != '?' else 'undecided or too few samples to tell'}" in page


def test_until_regression_does_not_stop_at_one_that_was_written_anew(tmp_path: Path) -> None:
    """Neither beside the run nor after a restart."""
    checkpoint(tmp_path / "run", "step-2")
    (there,) = find(tmp_path / "run")
    watch = watcher(tmp_path, Scorer({}), Clock(), until_regression=True, once=False)
    for stamp, done in (("of before", False), (there.stamp(), True)):
        assert watch._done(history(Entry("step-2", stamp, 2, "", (WORSE,))), 0.0) is done


def test_shards_without_their_index_are_waited_for(tmp_path: Path) -> None:
    """Numbers of a name that are no shards say nothing."""
    (tmp_path / "step-1").mkdir()
    (tmp_path / "epoch_2_of_100.safetensors").write_bytes(save(WEIGHTS))
    reasons = []
    for i in (2, 1, 3):
        save_file(WEIGHTS, tmp_path / "step-1" / f"model-0000{i}-of-00003.safetensors")
        reasons.append({c.name: damage(c) for c in find(tmp_path)})
    assert [r["step-1"] and r["step-1"].split(": ")[1] for r in reasons] == [
        "1 of 3 shards are there", "2 of 3 shards are there", None
    ]  # fmt: skip
    assert [r["epoch_2_of_100.safetensors"] for r in reasons] == [None] * 3


@pytest.mark.parametrize(
    ("name", "scored", "before"),
    [
        ("ema-step-200", ["ema-step-100", "step-100"], "ema-step-100"),
        ("step-200", ["step-100", "ema-step-100"], "step-100"),
        ("step_200_ema", ["step_100_ema", "step_100"], "step_100_ema"),
        ("ema_model_0000200", ["ema_model_0000100", "model_0000100"], "ema_model_0000100"),
        ("run1-step-200", ["run1-step-100", "run2-step-150"], "run1-step-100"),
        ("seed=1-epoch=1-step=30", ["seed=1-epoch=0-step=10", "seed=2-epoch=1-step=20"], "seed=1-epoch=0-step=10"),
        (
            "epoch=1-step=30-val_loss=0.25",
            ["epoch=0-step=10-val_loss=0.25", "epoch=1-step=20-val_loss=0.3"],
            "epoch=1-step=20-val_loss=0.3",
        ),
        ("step-30-20260103", ["step-10-20260101", "step-20-20260102", "ema-step-20"], "step-20-20260102"),
        ("ema-step-200", ["step-100", "step-150"], "step-150"),  # none is called alike
        ("ema-step-200", ["ema-step-300", "step-100"], "step-100"),  # one that is, but of later
        ("epoch_7", ["epoch_8", "epoch_6", "step_900"], "epoch_6"),
        ("last", ["last", "ema-last"], "last"),
        ("final", ["step-1", "step-2"], "step-2"),
        ("step-1", ["step-2"], None),
    ],
)
def test_the_checkpoint_before_is_one_that_is_called_alike(name: str, scored: list[str], before: str | None) -> None:
    watch = Watcher(Plan(Path("run"), "mini", "scenes", Path("out"), Path("results")), lambda w, r: ([], []))
    found = watch._previous(name, history(*(Entry(n, "s", None, "", (POINT,)) for n in scored)))
    assert found == (before and str(watch._rows_at(before, "s")))


def called_worse(checkpoints: int, tasks: int, tolerance: float = 0.0) -> float:
    """Share of checkpoints with a task called worse: no true difference, standard error 1."""
    z = np.random.default_rng(0).standard_normal((checkpoints, tasks))
    worse = 0
    for row, ps in zip(z, 2 * ndtr(-np.abs(z))):
        units = [
            UnitComparison(
                str(i), "", "m", "%", True, 100, 100, 50.0, 50 + d, d, (d - 1.96, d + 1.96), p, p, "", 1.0, 0.0,
                tolerance, "no difference",
            )
            for i, (d, p) in enumerate(zip(row, ps))
        ]  # fmt: skip
        worse += any(u.verdict == "worse" for u in _judge(units))
    return worse / checkpoints


def test_the_page_says_how_many_are_called_worse_by_chance_and_that_many_are() -> None:
    compared = [Entry(f"step-{i}", "s", i, "good", (POINT,)) for i in range(40)]
    few = Entry("step-40", "s", 40, "good", (replace(POINT, verdict="too little data"),))
    alone = Entry("step-0", "s0", 0, "", (replace(POINT, verdict=""),))
    assert "of 40 compared checkpoints at most about 1 would be called worse by chance" in markdown(
        history(alone, *compared, few)
    )
    assert "by chance" not in markdown(history(alone))
    share = called_worse(1000, 9)
    assert abs(share - 0.025) < 3 * 0.005, share  # three standard errors
    assert called_worse(1000, 9, minimum_detectable_effect(1.0, tests=9)) < 0.004  # docs/tutorials/ci.md: 1 in 700
