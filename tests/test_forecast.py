"""`bench plan`: the forwards it counts, and their sizes, are those that a run makes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import miniatures
import numpy as np
import pytest
import torch
from command import told
from small import Noise, SmallEncoder, made

from adapters.floors import Pixels
from benchmark.contracts import LabelData, Method, Need, Tap, View
from benchmark.contracts.progress import silent
from benchmark.engine import costs
from benchmark.engine.options import RunOptions
from benchmark.engine.run import run
from benchmark.engine.session import Session
from benchmark.forecast import forecast as plan
from benchmark.forecast.lines import Forecast, Line
from benchmark.forecast.schedule import OVERHEAD_S, schedule
from benchmark.forecast.stand_in import absent_data
from benchmark.protocol import load_protocol
from benchmark.registry import Unit, load_task, protocol_file
from tasks import dense


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """(height, width) in whole patches -> pictures that `pixels` has encoded."""
    found: Counter[tuple[int, int]] = Counter()
    encode = Pixels.encode_image

    def counting(self, images, *request):
        found[-(-images.shape[2] // 8) * 8, -(-images.shape[3] // 8) * 8] += len(images)
        return encode(self, images, *request)

    monkeypatch.setattr(Pixels, "encode_image", counting)
    monkeypatch.setattr(plan, "CALIBRATION_S", 0.05)
    return found


def room(folder: Path, task: str) -> str:
    """A depth or normals task: four training pictures, three test pictures, all of 24 × 32."""
    for split, count, first in (("train", 4, 0), ("test", 3, 10)):
        for i in range(count):
            miniatures.save_jpeg(folder / split / "i" / f"{i}.jpg", first + i)
            depth = 1 + miniatures.mask(i, 4).astype(np.float32)
            maps = depth if task == "depth" else np.stack([depth * 0, depth * 0, -depth], -1)
            (folder / split / "m").mkdir(parents=True, exist_ok=True)
            np.save(folder / split / "m" / f"{i}.npy", maps)
    tables = "".join(f'[{s}]\nimages = "{s}/i"\n{task} = "{s}/m"\n' for s in ("train", "test"))
    (folder / "t.toml").write_text(f'task = "{task}"\nname = "room"\n{tables}')
    return str(folder / "t.toml")


@pytest.mark.parametrize(
    ("task", "preset", "more"),
    [
        ("depth", "fast", {}),
        ("depth", "paper", {}),
        ("depth", "paper", {"test_square": "true", "train_square": "true"}),
        ("depth", "dinov2", {"crop": "[16, 16]"}),
        ("normals", "paper", {"head": "linear", "with_cls": "true", "resize": "40"}),
    ],
)
def test_a_dense_head_is_shown_what_was_planned(tmp_path, seen, task, preset, more):
    steps = {} if preset == "fast" else {"steps": "3", "batch_size": "2", "warmup_steps": "1"}
    options = RunOptions(
        protocol=preset,
        overrides={**steps, **more},
        results=tmp_path / "r",
        cache=tmp_path / "c",
        workers=0,
        check=False,
    )
    word = room(tmp_path, task)
    (line,) = plan.forecast(["pixels"], [word], None, options)[0].lines
    seen.clear()
    assert not run("pixels", [word], options=options).failures
    assert line.todo == dict(seen) and line.forwards + line.live == sum(seen.values())


def test_a_loaded_head_is_planned_without_a_step(tmp_path):
    task = load_task("depth")
    (tmp_path / "head.npz").write_bytes(b"")
    preset = {"head_weights": str(tmp_path / "head.npz"), "resize": "0", "flip_test": "true"}
    p = load_protocol("depth", task.schemas, protocol_file("depth"), "dpt", preset).values
    method = task.method(p)
    assert method.live_forwards(SmallEncoder().card, [(480, 640)] * 3, 0) == {(480, 640): 6} and not method.head_steps()


def test_crops_of_a_sweep_are_no_more_than_the_training_pictures_there_are():
    task = load_task("classification")
    p = load_protocol("classification", task.schemas, protocol_file("classification"), "paper").values
    (forwards,) = task.method(p).live_forwards(SmallEncoder().card, [(24, 32)], 100).values()
    assert forwards == p.steps * (100 - max(1, round(100 * p.holdout)))


def test_whole_pictures_are_planned_at_their_own_shape():
    task = load_task("zero_shot_segmentation")
    p = load_protocol(task.name, task.schemas, protocol_file(task.name), "paper").values
    found = task.method(p).live_forwards(SmallEncoder().card, [(480, 640), (640, 480)], 0)
    assert found == {(448, 597): 1, (597, 448): 1}


def session_of(encoder: SmallEncoder, cache: Path) -> Session:
    return Session.of(encoder, RunOptions(cache=cache, store="float32", batch_size=8, workers=0), "cpu")


def test_what_is_stored_already_is_not_planned_and_what_a_pass_still_lacks_is(tmp_path):
    """The pictures' CLS are there, for the first unit; the patches of the same pass, for the second, are not."""
    encoder, images = SmallEncoder(), Noise(4)
    data = {"test": made(LabelData, images=images)}

    class Tapped(Method):
        def needs(self, card, data):
            return {"it": Need(images, View("encoder"), Tap(self.protocol))}

        def run(self, context):
            raise NotImplementedError

    def unit(session, tap, planned):
        return plan._line(Unit("a", tap), Tapped(tap), data, session, planned)[0]

    first, planned = session_of(encoder, tmp_path), dict[Any, Any]()
    lines = [unit(first, tap, planned) for tap in ("cls", "patches")]
    assert [(line.forwards, line.shared) for line in lines] == [(4, 0), (4, 4)]
    first = session_of(encoder, tmp_path)
    first.planner.add([need := Need(images, View("encoder"), Tap("cls"))])
    first.extractor.run(first.planner.of(need))
    again, planned = session_of(encoder, tmp_path), {}
    lines = [unit(again, tap, planned) for tap in ("cls", "patches")]
    assert [(line.forwards, line.shared, sum(line.todo.values())) for line in lines] == [(0, 0, 0), (4, 0, 4)]


def test_sampled_pixels_are_read_where_they_are_asked_for():
    """A copy of all rows would grow with the pictures: labels alone are gathered, features stay in the store."""
    read: list[int] = []

    class Reader:
        def __init__(self, values):
            self.values = values

        def __len__(self):
            return len(self.values)

        def __getitem__(self, rows):
            out = self.values[rows]
            read.append(len(out))
            return out

    n, count = 96, 4
    taps = {"pixels": torch.arange(n * count * 2.0).reshape(n, count, 2), "cls": -torch.ones(n, 1, 2)}
    needs = {"train/pixels": Need(Noise(n), View("encoder"), Tap("pixels", count=count))}
    data = SimpleNamespace(images=Noise(n), target=lambda i: np.full((40, 48), i))
    context = SimpleNamespace(
        data={"train": data},
        seed=0,
        features=lambda need: Reader(taps[need.split("/")[1]]),
        progress=lambda *_: silent("", 0),
    )
    protocol: Any = SimpleNamespace(with_cls=True, holdout=0.1)
    found = dense.training_pixels(context, needs, protocol, lambda values, _: values % 2 == 1)
    assert not read and found.features.shape == (n // 2 * count, 4) and max(read) == 1
    rows = found.features[:]
    assert torch.equal(rows[:, :2], taps["pixels"][1::2].reshape(-1, 2)) and (rows[:, 2:] == -1).all()
    some = np.array([7, 0, 100])
    read.clear()
    assert torch.equal(found.features[some], rows[some]) and max(read) == 3
    assert (found.targets == np.repeat(np.arange(1, n, 2), count)).all()


def test_a_convex_head_on_stored_vectors_is_planned_with_its_rows_and_bytes(tmp_path):
    """`fast` classification: a row a training picture, and the memory its fit holds; the sweep has steps instead."""
    task, encoder = load_task("classification"), SmallEncoder()
    data = {s: made(LabelData, images=Noise(n), class_names=["a", "b"]) for s, n in (("train", 30), ("test", 7))}

    def line(preset, data, **changes):
        values = load_protocol(task.name, task.schemas, protocol_file(task.name), preset, changes).values
        return plan._line(Unit("classification", "a"), task.method(values), data, session_of(encoder, tmp_path), {})

    (with_head, held), (without, less) = line("fast", data), line("fast", data, linear="false")
    assert (with_head.head_rows, with_head.head_steps, without.head_rows) == (30, 0, 0)
    rows = 30 * 2 * encoder.card.embed_dim * 4
    assert held - less > rows
    counted = [absent_data("imagenet1k", "labels", split, None, {}) for split in ("train", "test")]
    large, held = line("fast", dict(zip(("train", "test"), counted)))
    assert large.head_rows == 1_281_167 and held < 4 * 2**30
    assert line("dinov2", data)[0].head_rows == 0


@pytest.fixture(scope="module")
def paper() -> Forecast:
    """The paper suite of tipsv2-b where every multiplication takes as long as every other."""

    def even(encoder: Any, sizes: set[tuple[int, int]], batch: int) -> dict[tuple[int, int], float]:
        return {size: 1e14 / costs.forward(encoder.card, size) for size in sizes}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "calibrate", even)
        (found,) = plan.forecast(["tipsv2-b"], [], "paper", RunOptions(data=Path("/nowhere")))
    return replace(found, load_s=10.0)


@pytest.mark.parametrize(("models", "workers"), [(100, 64), (70, 64), (64, 64), (1, 64), (3, 2)])
def test_a_schedule_is_near_the_least_there_can_be(paper: Forecast, models: int, workers: int) -> None:
    found = schedule([paper] * models, workers)
    assert found.bound <= found.makespan <= 1.1 * found.bound
    work = models * sum(line.seconds for line in paper.lines)
    assert found.total == pytest.approx(work + models * paper.load_s + found.jobs * OVERHEAD_S)
    assert found.longest == pytest.approx(max(seconds for _, seconds in found.path), rel=1e-3)
    assert found.path[0][0] == "load tipsv2-b" and found.path[-1][0] == "score classification/imagenet1k"
    assert all(
        re.fullmatch(r"encode [\d,]+ pictures for \w+/\w+( by \d models)?", words) for words, _ in found.path[1:-1]
    )


def test_a_schedule_of_one_worker_is_the_sum_of_its_pieces(paper: Forecast) -> None:
    found = schedule([paper], 1)
    assert found.makespan == pytest.approx(found.total) and found.idle == 0 and found.loads == 1
    nothing = schedule([replace(paper, lines=[Line("a/b", note="done")])], 8)
    assert (nothing.makespan, nothing.bound, nothing.path) == (0.0, 0.0, ())


def test_plan_prints_the_schedule(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CALIBRATION_S", 0.05)
    words = ["plan", "--model", "pixels", "--task", "classification/scenes", "--limit", "24", "--gpus", "2"]
    code, out, _ = told(capsys, *words)
    assert code == 0 and "on 2 workers: " in out and "longest chain: load pixels" in out
    code, out, _ = told(capsys, *words, "--json")
    assert json.loads(out.splitlines()[-1])["schedule"]["workers"] == 2
