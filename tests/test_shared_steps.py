"""Steps of a head that several workers make: what a trainer reads is what it would have made itself, whoever dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from training_context import Deep

from benchmark.contracts import StepInput
from benchmark.contracts.progress import silent
from benchmark.engine import shared_steps
from benchmark.engine.jobs import JobMaker
from benchmark.engine.options import RunOptions
from benchmark.engine.session import Session
from benchmark.engine.shared_steps import Pieces, Trainer, help_train
from benchmark.errors import BenchError
from benchmark.registry import units

STEPS = 23


class Numbers:
    """Steps of 64 pictures, so two a piece: random tensors, one of them with its axes in another order in memory."""

    steps, pictures = STEPS, 64

    def __init__(self, fails_at: int = -1, seconds: float = 0.0) -> None:
        self.made_here: list[int] = []
        self.fails_at, self.seconds = fails_at, seconds

    def made(self, steps: Iterable[int]) -> Iterator[StepInput]:
        for step in steps:
            if step == self.fails_at:
                raise BenchError(f"picture {step}: cannot be read")
            time.sleep(self.seconds)
            self.made_here.append(step)
            draw = torch.Generator().manual_seed(step)
            maps = torch.randn(2, 4, 4, 3, generator=draw).permute(0, 3, 1, 2)
            yield {"maps": maps, "labels": torch.full((2,), step, dtype=torch.int32)}


def pieces(place: Path, source: Numbers, key: str = "key", who: str = "other") -> Pieces:
    found = Pieces(source, place / "heads", place, key)
    found.who = who
    return found


def right(found: Iterable[StepInput], start: int = 0) -> bool:
    """Whether `found` are all steps from `start` on, in order, value and layout."""
    steps = list(found)
    expected = list(Numbers().made(range(start, STEPS)))
    assert len(steps) == len(expected)
    same = all(torch.equal(a[name], b[name]) for a, b in zip(steps, expected) for name in ("maps", "labels"))
    return same and {step["maps"].stride() for step in steps} == {(48, 1, 12, 3)}


def test_what_others_made_is_read_and_the_rest_is_made(tmp_path: Path) -> None:
    """Pieces of one that ended in the midst, a damaged one and one of another run among them."""
    broken = Numbers(fails_at=9)
    pieces(tmp_path, broken).arrive(0)
    with pytest.raises(BenchError, match="picture 9"):
        help_train(broken, pieces(tmp_path, broken), 60)
    assert broken.made_here == list(range(2, 9))  # the trainer's own piece is left to it, step 8 is lost with step 9
    other = Numbers()
    assert help_train(other, pieces(tmp_path, other, key="elsewhere"), 0.0) == 0, "no time, nothing begun"
    mine = Numbers()
    at = pieces(tmp_path, mine, who="me")
    content = at.file(2).read_bytes()
    at.file(2).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    pieces(tmp_path, other, key="elsewhere").save(5, [*other.made([10, 11])])
    trainer = Trainer(mine, at)
    assert right(trainer.read(0))
    assert sorted(mine.made_here) == [0, 1, 4, 5, *range(8, STEPS)] and trainer.makers == {"other"}
    assert not list((tmp_path / "heads").iterdir()) and not list((tmp_path / "running").iterdir())
    assert help_train(other, pieces(tmp_path, other), 60) == 0, "nobody trains any more"
    pieces(tmp_path, other).save(1, [*other.made([2, 3])])
    assert not list((tmp_path / "heads").iterdir()), "a helper that comes late leaves nothing"


def test_a_trainer_goes_on_where_another_was_killed(tmp_path: Path) -> None:
    first = Numbers()
    read = Trainer(first, pieces(tmp_path, first)).read(0)
    for _ in range(8):
        next(read)
    helper = Numbers()
    assert help_train(helper, pieces(tmp_path, helper), 60) == 8  # of the pieces 4 to 11: it is at 3
    read.close()
    second = Numbers()
    assert right(Trainer(second, pieces(tmp_path, second)).read(5), 5)
    assert second.made_here == [5, 6, 7]


def test_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two helpers beside the trainer, whose files may take little room: every step comes once, none is made twice."""
    monkeypatch.setattr(shared_steps, "AHEAD", 4000)  # four pieces or so
    makers = [Numbers(seconds=0.01) for _ in range(3)]
    ended = threading.Event()

    def help_on(source: Numbers) -> None:
        while not ended.is_set():
            help_train(source, pieces(tmp_path, source), 0.05)
            time.sleep(0.002)

    helpers = [threading.Thread(target=help_on, args=(source,)) for source in makers[1:]]
    for helper in helpers:
        helper.start()
    trainer = Trainer(makers[0], pieces(tmp_path, makers[0], who="me"))
    assert right(trainer.read(0))
    ended.set()
    for helper in helpers:
        helper.join()
    assert sorted(step for source in makers for step in source.made_here) == list(range(STEPS))
    assert trainer.makers == {"other"}


def test_a_full_disk_is_the_helpers_line_and_the_trainer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Numbers()
    pieces(tmp_path, source).arrive(0)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(BenchError, match="the disk is full"):
            help_train(source, pieces(tmp_path, source), 60)
    mine = Numbers()
    assert right(Trainer(mine, pieces(tmp_path, mine)).read(0))


SHORT = {
    "depth": {"steps": "4", "batch_size": "2", "warmup_steps": "1", "bins": "8", "resize": "48"},
    "normals": {"steps": "4", "batch_size": "2", "warmup_steps": "1", "channels": "8", "resize": "48"},
    "linear_segmentation": {"steps": "4", "batch_size": "2", "short_side": "32", "crop": "32", "window": "32",
                            "stride": "32"},
    "classification": {"epochs": "1", "epoch_length": "4", "batch": "6"},
}  # fmt: skip


@pytest.mark.parametrize("task", SHORT)
def test_a_head_that_was_helped_is_that_of_one_process(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(protocol="paper", limit=24, overrides={f"{task}.{k}": v for k, v in SHORT[task].items()})
    job = JobMaker(options, "fast", silent).make(units(f"{task}/scenes")[0])
    session = Session.of(Deep(), options, "cpu")
    session.plan(job)
    calm, took = session.run(job, tmp_path / "calm")
    monkeypatch.setattr(shared_steps, "PICTURES", 1)
    (tmp_path / "helped" / "steps").mkdir(parents=True)
    (tmp_path / "helped" / "steps" / "at").write_text("0")
    assert session.help_train(job, tmp_path / "helped", "key", 60) == 3
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    helped, helped_took = session.run(job, tmp_path / "helped", shared="key")
    assert job.method.crop_forwards(session.encoder.card, [(48, 64)], 24)
    assert (took.trained_by, helped_took.trained_by) == (None, 2)
    assert calm.details == helped.details and calm.files["curve.csv"] == helped.files["curve.csv"]
    for name, column in calm.samples.items():
        np.testing.assert_array_equal(column, helped.samples[name], name)
