"""The training loop: resumable to the step, deterministic, honest about divergence; schedules, augmentation, losses."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import bench
from miniatures import nyu_bts
from small import Noise, SmallEncoder
from torch import nn

from benchmark.contracts import DepthData
from benchmark.errors import BenchError, DataError
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from benchmark.rows.row import read_all
from tasks.training import augment, losses
from tasks.training.batches import Batches
from tasks.training.checkpoint import NAME
from tasks.training.curve import ROWS, curve_files
from tasks.training.fields import TrainedHead
from tasks.training.frozen import Frozen, to_size
from tasks.training.loop import fit, initialise
from tasks.training.schedule import first_momentum, learning_rate

ROOT = Path(__file__).parents[1]


def preset(name: str, dataset: str | None = None, task: str = "depth", **values: Any) -> Any:
    found = load_protocol(task, load_task(task).schemas, protocol_file(task), name, None, dataset)
    return replace(found.values, **values)


@dataclass(frozen=True)
class Planes(DepthData):
    """Noise pictures whose depth is 1 … 3 m by their own first colour."""

    images: Any
    broken: int = -1
    digest: str = "planes"

    def target(self, index: int) -> np.ndarray:
        if index == self.broken:
            raise DataError(f"depth/{index}.png: cannot be read. Replace the file")
        return (1 + self.images.load(index)[..., 0] / 127.5).astype(np.float32)


class Bar:
    def __init__(self) -> None:
        self.done, self.notes = 0, list[str]()

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        self.notes.append(text)


def toy_loss(head: nn.Module, batch: Any, step: int) -> torch.Tensor:
    return ((head(batch.images.mean((2, 3)))[:, 0] - batch.targets.mean((1, 2))) ** 2).mean()


def train(folder: Path, p: TrainedHead, loss: Any = toy_loss, bar: Bar | None = None) -> tuple[nn.Module, list[float]]:
    head = initialise(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), p.init, 0)
    data = Planes(Noise(7, 24, 32))
    return head, fit(head, p, Batches(data, p, 0).read, loss, folder, "key", bar or Bar(), "cpu")


def test_a_run_that_was_stopped_ends_with_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.training.loop.LEAST_S", 0.0)
    monkeypatch.setattr("tasks.training.loop.SHARE", 0.0)
    p = preset("dinov2", steps=12, batch_size=2, warmup_steps=3, learning_rate=0.05, border_crop="none", crop=())
    whole, curve = train(tmp_path / "whole", p)

    def stop(head: nn.Module, batch: Any, step: int) -> torch.Tensor:
        if step == 7:
            raise KeyboardInterrupt
        return toy_loss(head, batch, step)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", p, stop)
    bar = Bar()
    resumed, again = train(tmp_path / "parts", p, bar=bar)
    assert again == curve and bar.done == 12 and len(bar.notes) == 5 and bar.notes[-1].startswith("loss ")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    finished = Bar()
    assert train(tmp_path / "parts", p, stop, finished)[1] == curve and finished.done == 12


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_used(tmp_path):
    p = preset("dinov2", steps=3, batch_size=2, border_crop="none", crop=())
    _, curve = train(tmp_path, p)
    head = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    bar = Bar()
    fit(head, p, Batches(Planes(Noise(7, 24, 32)), p, 0).read, toy_loss, tmp_path, "other key", bar, "cpu")
    assert len(bar.notes) == 3
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:50])
    assert train(tmp_path, p)[1] == curve


def test_a_loss_that_is_no_number_stops_the_run_in_one_line(tmp_path):
    p = preset("dinov2", steps=9, batch_size=2, border_crop="none", crop=())
    broken = lambda head, batch, step: toy_loss(head, batch, step) * (math.nan if step == 4 else 1)  # noqa: E731
    with pytest.raises(BenchError, match=r"stopped at step 5 of 9: the loss is nan.*--set learning_rate=1e-05") as e:
        train(tmp_path, p, broken)
    assert "\n" not in str(e.value)


def test_an_unreadable_map_is_named(tmp_path):
    p = preset("dinov2", steps=9, batch_size=2, border_crop="none", crop=())
    with pytest.raises(DataError, match=r"depth/3.png: cannot be read"):
        list(Batches(Planes(Noise(7, 24, 32), broken=3), p, 0).read(0))


def test_every_picture_comes_once_before_any_comes_again():
    p = preset("dinov2", steps=7, batch_size=2)
    batches = Batches(Planes(Noise(7)), p, 0)
    rows = [row for step in range(7) for row in batches.rows(step)]
    assert sorted(rows[:7]) == sorted(rows[7:]) == list(range(7)) and rows[:7] != rows[7:]


@dataclass(frozen=True)
class Decoded(Noise):
    cheap: bool = False  # read in worker processes


def test_workers_give_the_batches_that_this_process_gives(monkeypatch):
    p = preset("dinov2", steps=10, batch_size=2, border_crop="none", crop=(20, 28))
    here = list(Batches(Planes(Noise(5, 24, 32)), p, 3).read(0))
    for method in ("spawn",) if "jax" in sys.modules else ("fork", "spawn"):
        monkeypatch.setattr("tasks.training.batches.start_method", lambda method=method: method)
        there = list(Batches(Planes(Decoded(5, 24, 32)), p, 3).read(0))
        assert len(here) == len(there) == 10
        assert all(torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in zip(here, there))
    later = next(Batches(Planes(Noise(5, 24, 32)), p, 3).read(6))
    assert torch.equal(later.images, here[6].images)


def test_kill_and_the_same_command_again_give_the_undisturbed_row(tmp_path, monkeypatch):
    """SIGKILL in the middle of training, from the command line."""
    nyu_bts(tmp_path / "data")

    words = ["run", "--model", "random-vit", "--task", "depth/nyuv2", "--protocol", "dinov3", "--no-check"]
    words += ["--device", "cpu"]  # a GPU adds in no fixed order when it up-samples backwards
    for field in ("steps=150", "batch_size=2", "bins=16", "warmup_steps=5", "flip_test=false"):
        words += ["--set", field]
    words += ["--data", str(tmp_path / "data"), "--results"]

    def here(name: str) -> int:
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / name))
        return bench(*words, str(tmp_path / f"results-{name}"))

    settings = {**os.environ, "BENCH_CACHE": str(tmp_path / "killed"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmark.cli", *words, str(tmp_path / "results-killed")]
    killed = subprocess.Popen(command, env=settings, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "killed" / "heads").glob(f"*/{NAME}")) and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    stopped_early = killed.wait() == -signal.SIGKILL
    assert here("whole") == here("killed") == 0
    first, second = (read_all(tmp_path / f"results-{name}")[0][0] for name in ("whole", "killed"))
    assert stopped_early, "training ended before it could be killed: raise steps"
    assert first.data.metrics == second.data.metrics
    assert (first.folder / "curve.csv").read_bytes() == (second.folder / "curve.csv").read_bytes()
    assert not list((tmp_path / "killed" / "heads").glob("*/*"))


def test_cosine_is_mmcvs_with_its_warm_up():
    p = preset("dinov2")
    assert learning_rate(p, 0) == pytest.approx(1e-7)
    middle = 0.5 * (1 + math.cos(math.pi / 3))
    assert learning_rate(p, 12800) == pytest.approx(1e-4 * middle, rel=1e-6)
    assert learning_rate(p, 6400) == pytest.approx(1e-4 * 0.5 * (1 + math.cos(math.pi / 6)) * 0.5005, rel=1e-6)
    assert learning_rate(p, 38399) < 1e-11
    assert first_momentum(p, 0) == pytest.approx(0.95) and first_momentum(p, 11519) == pytest.approx(0.85)
    assert first_momentum(p, 38399) == pytest.approx(0.95)


def test_quarter_cosine_is_probe3ds():
    p = preset("paper", "navi")
    assert [learning_rate(p, s) for s in (0, 3750, 7500, 50000)] == pytest.approx([5e-6, 5e-4 * 0.505, 5e-4, 5e-6])
    assert learning_rate(p, 28750) == pytest.approx(5e-4 * (0.99 * math.cos(math.pi / 4) + 0.01))
    assert first_momentum(p, 100) == 0.9


def test_one_cycle_is_dinov3s():
    p = preset("dinov3")
    assert learning_rate(p, 0) == pytest.approx(3e-7)
    assert learning_rate(p, 6400) == pytest.approx(3e-7 + 3e-4 * 0.5 * (1 + math.cos(math.pi / 6)) * 0.5)
    assert learning_rate(p, 38399) == pytest.approx(3e-4 / 25000)
    assert first_momentum(p, 12799) == 0 and first_momentum(p, 12800) == pytest.approx(0.85)


def test_schedules_hold_when_steps_are_fewer_than_the_warm_up():
    for name, dataset in (("dinov2", None), ("dinov3", None), ("paper", "navi")):
        p = preset(name, dataset, steps=3)
        assert all(0 < learning_rate(p, s) < p.learning_rate and 0 <= first_momentum(p, s) < 1 for s in range(3))


def test_picture_and_map_are_changed_together():
    """A picture that shows its own depth still shows it after every geometric change."""
    p = preset("dinov2", border_crop="nyu", crop=(30, 40), colour_p=0.0, rotate_p=0.0, resized_crop_p=0.5,
               resized_crop_area=0.5)  # fmt: skip
    image = np.random.default_rng(0).integers(1, 256, (48, 64, 3), dtype=np.uint8)
    for seed in range(20):
        picture, depth = augment.augmented(image, image[..., 0].astype(np.float32), p, np.random.default_rng(seed))
        assert picture.shape == (30, 40, 3) and np.array_equal(picture[..., 0], depth)


def test_rotation_turns_both_and_leaves_unknown_corners_invalid():
    image = np.full((40, 60, 3), 200, np.uint8)
    image[:, 30:] = 100
    picture, depth = augment.rotated(image, np.where(image[..., 0] == 200, 2.0, 1.0), 20)
    assert depth[0, 0] == 0 and set(np.unique(depth)) == {0, 1, 2}
    inside = (depth > 0) & ((picture[..., 0] == 200) | (picture[..., 0] == 100))
    agree = (picture[..., 0] == 200) == (depth == 2)
    assert inside.mean() > 0.7 and agree[inside].mean() > 0.99


def test_mirroring_turns_the_sign_of_a_normals_x():
    normals = np.zeros((2, 3, 3), np.float32)
    normals[0, 0] = (0.6, 0, -0.8)
    assert augment.mirrored_map(normals)[0, 2] == pytest.approx((-0.6, 0, -0.8))


def test_nyu_border_is_dinov2s_rows_and_columns():
    cut = augment.border_cut(np.arange(480 * 640).reshape(480, 640))
    assert cut.shape == (427, 565) and cut[0, 0] == 45 * 640 + 43


def test_colour_changes_follow_their_formulas():
    pixels = np.random.default_rng(0).uniform(1, 255, (5, 6, 3)).astype(np.float32)
    rng = np.random.default_rng(7)
    gamma, brightness = rng.uniform(0.9, 1.1), rng.uniform(0.75, 1.25)
    expected = np.clip(pixels**gamma * brightness * rng.uniform(0.9, 1.1, 3), 0, 255)
    assert augment.gamma_colour(pixels, (0.1, 0.25, 0.1), np.random.default_rng(7)) == pytest.approx(expected)
    assert augment.jitter_colour(pixels, (0.0, 0.0, 0.0, 0.0), rng) == pytest.approx(pixels, abs=1e-3)
    changed = augment.jitter_colour(pixels, (0.2,) * 4, rng)
    assert changed.min() >= 0 and changed.max() <= 255 and np.abs(changed - pixels).max() > 5


def test_sig_loss_of_hand_computed_gaps():
    truth = torch.tensor([[[1.0, 2.0, 0.0]]])
    guess = torch.tensor([[[math.e * 1.001 - 0.001, 2.001 - 0.001, 9.0]]])  # log gaps 1 and 0
    valid = truth > 0
    assert float(losses.sig_loss(guess, truth, valid)) == pytest.approx(math.sqrt(0.25 + 0.15 * 0.25), rel=1e-5)
    assert float(losses.sig_loss(guess, truth, valid, False)) == pytest.approx(math.sqrt(0.15) / 2, rel=1e-5)
    assert float(losses.sig_loss(guess, truth, truth > 5)) == 0


def test_gradient_loss_of_a_hand_computed_map():
    """A log gap of 1 in one corner pixel: seen over two pixels down and across at stride 1, and at no other stride."""
    truth = torch.ones(1, 4, 4)
    guess = truth.clone()
    guess[0, 3, 3] = math.e * 1.001 - 0.001
    assert float(losses.gradient_loss(guess, truth, truth > 0)) == pytest.approx(2 / 16, rel=1e-5)
    truth[0, 1, 3] = 0  # its partner across the rows is invalid: only the columns are left
    assert float(losses.gradient_loss(guess, truth, truth > 0)) == pytest.approx(1 / 15, rel=1e-5)


def test_released_gradient_loss_compares_pictures_two_apart():
    """A log gap of 1 in one pixel of the last of four pictures: at stride 1 alone, over 4 · 4 valid pixels."""
    truth = torch.ones(4, 2, 2)
    guess = truth.clone()
    guess[3, 1, 1] = math.e * 1.001 - 0.001
    released = losses.gradient_loss(guess, truth, truth > 0, "released")
    assert float(released) == pytest.approx(1 / 16, rel=1e-5)
    assert float(losses.gradient_loss(guess[2:], truth[2:], truth[2:] > 0, "released")) == 0  # as on DINOv2's devices


def test_a_loss_is_averaged_over_the_pictures_of_each_device():
    """Four pictures guessed 1, 1, 2 and 2 times too far: pairs have no variance, the batch has."""
    truth = torch.ones(4, 3, 3)
    guess = torch.tensor([1.0, 1.0, 2.0, 2.0])[:, None, None] * truth
    gap = math.log(2.001 / 1.001)
    over = {size: float(losses.over_groups(losses.sig_loss, guess, truth, truth > 0, size)) for size in (0, 2, 4)}
    assert over[2] == pytest.approx(math.sqrt(0.15) * gap / 2, rel=1e-4)
    assert over[0] == over[4] == pytest.approx(math.sqrt(0.25 + 0.15 * 0.25) * gap, rel=1e-4)
    assert [preset(name).loss_group for name in ("dinov2", "dinov3", "paper", "dpt")] == [2, 2, 0, 0]


def test_normal_losses_of_known_angles():
    truth = torch.full((1, 1, 2, 3), math.nan)
    truth[0, 0, 0] = torch.tensor([0.0, 0.0, 1.0])
    guess = torch.zeros(1, 4, 1, 2)
    guess[0, :, 0, 0] = torch.tensor([3.0, 0.0, 0.0, 0.5])  # 90° off, κ = 1.51
    assert float(losses.normal_loss(guess[:, :3], truth, "angular")) == pytest.approx(math.pi / 2)
    assert float(losses.normal_loss(guess[:, :3], truth, "l2")) == pytest.approx(2)
    expected = 1.51 * math.pi / 2 + math.log(1 + math.exp(-1.51 * math.pi)) - math.log(1.51**2 + 1)
    assert float(losses.normal_loss(guess, truth, "uncertainty")) == pytest.approx(expected, rel=1e-5)
    assert float(losses.normal_loss(guess, truth * torch.nan, "uncertainty")) == 0


def test_a_padded_map_is_cut_or_stretched():
    """A 12 × 16 picture on patches of 8 lies in 16 × 16, two rows below its top."""
    maps = torch.arange(16.0)[None, None, :, None].expand(1, 1, 16, 16)
    cut = to_size(maps, (12, 16), (12, 16), (2, 2), 8, preset("dinov2", unpad=True))
    assert torch.equal(cut[0, 0, :, 0], torch.arange(2.0, 14.0))
    stretched = to_size(maps, (12, 16), (12, 16), (2, 2), 8, preset("dinov2"))
    assert stretched[0, 0, 0, 0] < 0.5 and stretched[0, 0, -1, 0] > 14.5


def test_layers_come_from_image_requests_and_train():
    found = Frozen(SmallEncoder(), (0, 1), "cpu").layers(torch.rand(2, 3, 16, 24))
    assert [patches.shape for _, patches in found] == [(2, 6, 2, 3)] * 2 and found[0][0].shape == (2, 6)
    assert torch.allclose(found[0][1], 2 * found[1][1])
    weight = torch.ones(6, requires_grad=True)
    torch.autograd.backward((found[0][0] @ weight).sum())
    assert weight.grad is not None


def test_a_batch_too_large_for_memory_is_encoded_in_halves():
    images, small = torch.rand(5, 3, 16, 24), SmallEncoder(fail_above=2)
    (whole,), (halves,) = (Frozen(encoder, (), "cpu").layers(images) for encoder in (SmallEncoder(), small))
    assert max(small.batches) <= 2 and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, halves))


def test_curves_are_thinned_to_means():
    p = preset("dinov2", steps=5000)
    files = curve_files([float(i) for i in range(5000)], p)
    rows = files["curve.csv"].decode().splitlines()
    assert rows[0] == "step,loss,learning_rate" and len(rows) - 1 <= ROWS
    assert rows[1].startswith("3,1,") and rows[-1].startswith("5000,")
    assert files["curve.png"].startswith(b"\x89PNG")


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    one: Any = initialise(lambda: nn.Conv2d(32, 64, 3), "lecun", 1)
    torch.manual_seed(6)
    two: Any = initialise(lambda: nn.Conv2d(32, 64, 3), "lecun", 1)
    normal: Any = initialise(lambda: nn.Conv2d(32, 64, 3), "normal", 1)
    assert torch.equal(one.weight, two.weight) and not one.bias.any()
    assert float(one.weight.detach().std()) == pytest.approx(math.sqrt(1 / (32 * 9)), rel=0.05)
    assert float(normal.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
