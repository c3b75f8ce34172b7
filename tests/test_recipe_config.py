"""Configs: one clear line for what does not fit; the packaged ones hold the paper's numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_fixtures import tiny
from torch.utils.flop_counter import FlopCounterMode

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import RecipeConfig, TeacherConfig
from adapters.tipsv2.recipe.config_file import CONFIGS, parse_override, read_config
from adapters.tipsv2.recipe.cost import estimate, step_flops
from adapters.tipsv2.recipe.distill import projector_config, warms_up
from adapters.tipsv2.recipe.model import Pretrainer, checkpoint_activations
from adapters.tipsv2.recipe.optim import make_optimizer
from adapters.tipsv2.recipe.rehearsal import StepMemory, content_free, rehearse
from adapters.tipsv2.recipe.schedule import learning_rate, ramp, teacher_temperature
from adapters.tipsv2.recipe.step import backward
from adapters.tipsv2.recipe.teacher import Teacher
from benchmark.errors import UsageError


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[loss]\nweigth = 1", r"unknown key 'loss\.weigth'.*All: adapters/tipsv2/recipe/config.py"),
        ("[loss]\npatch_los = 'ibot'", r"'loss\.patch_los'.*Did you mean 'loss\.patch_loss'"),
        ("[model]\nwidth = 'big'", r"mine\.toml: model\.width = 'big' is str; it must be int"),
        ("[loss]\npatch_loss = 'mae'", r"loss\.patch_loss = 'mae'; it must be one of 'none', 'ibot', 'ibot\+\+'"),
        ("[views]\nglobal_scale = [0.1]", r"views\.global_scale = \[0\.1\]; it must be a list like \[0\.0, 0\.0\]"),
        ("[views]\nglobal_size = 100", r"views\.global_size = 100 must be whole patches"),
        ("[model]\nheads = 5", r"model\.width = 768 must be divisible by model\.heads = 5"),
        ("model = 3", r"\[model\] must be a table"),
        ("[model]\nheads = 0", r"model\.heads = 0 must be at least 1"),
        ("[model]\npatch_size = 0", r"model\.patch_size = 0 must be at least 1"),
        ("[model]\nnum_cls = 1", r"model\.num_cls = 1, but loss\.captions = .pairs."),
        ("[train]\nlog_every = 0", r"train\.log_every = 0 must be at least 1"),
        ("[data]\nmax_bad = -1", r"data\.max_bad = -1 must be at least 0"),
        ("[optim]\nlr = nan", r"optim\.lr = nan must be at least 0"),
        ("[optim]\nbetas = [0.9, 1.0]", r"optim\.betas = \[0\.9, 1\.0\] must lie in \[0, 1\)"),
        ("[ema]\nmomentum = 2.0", r"ema\.momentum = 2\.0 must lie in \[0, 1\]"),
        ("[views]\nglobal_scale = [1.0, 0.4]", r"views\.global_scale = \[1\.0, 0\.4\] must be two shares"),
        ("[views]\nratio = [0.0, 1.0]", r"views\.ratio = \[0\.0, 1\.0\] must be two ratios above 0"),
        ("[views]\nlocal_crops = 0", r"views\.local_crops = 0, but the DINO loss reads them"),
        ("loss = {ssl_every = 4}\ntrain = {batch_size = 8, accumulate = 4}", r"but a micro-batch holds 2 of"),
        ("head = {balance = 'sinkhorn'}\ntrain = {accumulate = 4}", r"a micro-batch would be balanced alone"),
        ("[data]\nsynthetic_weights = [0.0, 0.0]", r"data\.synthetic_weights = .* one of them above"),
        ("[train]\naccumulate = 3", r"must be divisible by train\.accumulate = 3"),
        ("extends = 'none.toml'", r"extends 'none\.toml', but .* does not exist"),
        ("[model", r"mine\.toml: not a readable TOML file"),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_unknown_packaged_name_lists_the_close_ones() -> None:
    with pytest.raises(UsageError, match="unknown training config 'tipsv2-mni'.*'tipsv2-mini'"):
        read_config("tipsv2-mni")


def test_a_config_cannot_extend_itself(tmp_path: Path) -> None:
    write(tmp_path, "extends = 'b.toml'", "a.toml")
    with pytest.raises(UsageError, match="extends itself"):
        read_config(write(tmp_path, "extends = 'a.toml'", "b.toml"))


def test_overrides_win_and_are_typed() -> None:
    config = read_config("tipsv2-mini", dict([parse_override("train.steps=7"), parse_override("loss.patch_loss=ibot")]))
    assert (config.train.steps, config.loss.patch_loss) == (7, "ibot")
    with pytest.raises(UsageError, match="is not KEY=VALUE"):
        parse_override("steps")
    with pytest.raises(UsageError, match="name.steps: name = 'tipsv2-mini' is no table of tipsv2-mini.toml"):
        read_config("tipsv2-mini", {"name.steps": 7})


@pytest.mark.parametrize("name", sorted(p.stem for p in CONFIGS.glob("*.toml")))
def test_every_packaged_config_reads_under_its_own_name(name: str) -> None:
    assert read_config(name).name == name


def test_paper_stages_hold_the_confirmed_numbers() -> None:
    low, high = read_config("g-224"), read_config("g-448")
    assert (low.train.steps, low.train.batch_size, low.views.global_size, low.views.local_size) == (
        90000,
        8192,
        224,
        98,
    )
    assert (high.train.steps, high.train.batch_size, high.views.global_size, high.views.local_size) == (
        9000,
        4096,
        448,
        140,
    )
    for config in (low, high):
        assert (config.loss.contrastive, config.loss.dino, config.loss.patch) == (1, 1, 2)
        assert (config.views.local_crops, config.loss.mask_ratio, config.ema.scope) == (6, 0.75, "head")
        assert (config.head.balance, config.optim.name) == ("center", "adafactor")
    assert not read_config("distil-l").teacher.mask


@pytest.mark.parametrize("stage", ["mini-64", "mini"])
def test_minis_differ_in_the_loss_alone_at_the_same_flops(stage: str) -> None:
    """clip-mini takes more steps, because a step of it is cheaper; its warm-up is as long in samples per FLOP."""
    full, ibot, clip = (read_config(f"{n}-{stage}") for n in ("tipsv2", "tips", "clip"))
    for other in (ibot, clip):
        same: dict[str, Any] = {"name": full.name, "loss": full.loss, "init_from": full.init_from}
        train = dataclasses.replace(other.train, steps=full.train.steps)
        optim = dataclasses.replace(other.optim, warmup=full.optim.warmup)
        assert dataclasses.replace(other, **same, train=train, optim=optim) == full
        spent = other.train.steps * step_flops(other) / (full.train.steps * step_flops(full))
        assert spent == pytest.approx(1, abs=0.005)
    assert clip.optim.warmup == pytest.approx(full.optim.warmup, abs=1e-4)
    assert clip.loss.patch_loss == "none" and ibot.loss.patch_loss == "ibot" and full.loss.patch_loss == "ibot++"


def test_digest_ignores_where_a_run_runs_and_sees_what_changes_weights() -> None:
    base = tiny()
    assert tiny(train__log_every=5, data__workers=2, train__checkpoint_every=3).digest() == base.digest()
    assert tiny(optim__lr=2e-3).digest() != base.digest()


@pytest.fixture
def unrehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked here is no memory of a step, which takes seconds at paper scale."""
    monkeypatch.setattr("adapters.tipsv2.recipe.cost.rehearse", lambda *_: StepMemory(0, 0, 0, 0, 0, 0, 0, 0))


@pytest.mark.usefixtures("unrehearsed")
def test_dry_run_counts_the_published_parameters_without_building_them() -> None:
    cost = estimate(read_config("g-224"), devices=512)
    assert cost.vision_params == pytest.approx(1.136e9, rel=0.01)
    assert cost.text_params == pytest.approx(389e6, rel=0.01)
    assert cost.samples == 90000 * 8192
    assert estimate(read_config("distil-b")).vision_params == pytest.approx(86e6, rel=0.01)


def test_dry_run_cuts_weights_and_gradients_by_the_shards_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"weights": 8, "averages": 1, "state": 4, "gradients": 8, "teacher": 0, "backwards": 30, "stepped": 0}
    held = StepMemory(**{k: v * 2**30 for k, v in size.items()}, pairs=0)
    asked: list[int] = []

    def rehearsed(config: RecipeConfig, batch: int, teacher: Any, shards: int) -> StepMemory:
        asked.append(shards)
        return held

    monkeypatch.setattr("adapters.tipsv2.recipe.cost.rehearse", rehearsed)
    whole, copies = (estimate(read_config("g-224", {"train.shards": n}), devices=16) for n in (0, 4))
    assert (whole.weights_gib, copies.weights_gib) == (12 / 16 + 1, 12 / 4 + 1)
    estimate(read_config("g-224", {"train.shards": 4, "train.accumulate": 2}), devices=16)
    assert asked == [16, 4, 1], "over micro-batches gradients are summed whole"
    with pytest.raises(UsageError, match="shards = 3 must divide the number of processes, 16"):
        estimate(read_config("g-224", {"train.shards": 3}), devices=16)


def test_gradients_are_held_in_their_shards_and_summed_as_they_come() -> None:
    config = tiny(model__width=64, head__prototypes=256, train__batch_size=2)
    whole, halves = (rehearse(config, 2, None, shards) for shards in (1, 2))
    assert whole.gradients == halves.gradients
    # few activations: a step takes most after the last pass, when all gradients are there
    assert whole.stepped - halves.stepped == pytest.approx(whole.gradients / 2, rel=0.01)
    assert 0 < whole.backwards - halves.backwards < whole.gradients / 2, (
        "of the last pass some are not there at its peak"
    )


@pytest.mark.usefixtures("unrehearsed")
def test_dry_run_counts_the_frozen_teacher_or_names_one_that_is_not_there() -> None:
    config = read_config("distil-b")
    known, absent = estimate(config), estimate(read_config("distil-b", {"teacher.path": "runs/none/final"}))
    assert known.teacher_gib == pytest.approx(1.136e9 * 4 / 2**30, rel=0.01)
    assert "google/tipsv2-g14, 1,136" in "\n".join(known.lines())
    assert "runs/none/final is not there: neither its memory" in "\n".join(absent.lines())
    per_image = (known.flops_per_step - absent.flops_per_step) / config.train.batch_size
    assert per_image == pytest.approx(2 * 1.136e9 * 258, rel=0.05)  # two for each parameter and token, and attention


def test_dry_run_counts_the_training_of_the_teachers_projector(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 steps of the g teacher's forward pass; its weights and optimiser are the most that a device holds."""
    for gib, most in ((9, 9), (1, 3)):
        sizes = {True: gib << 30, False: 3 << 30}  # of weights; activations take as much again
        held = {frozen: StepMemory(size, 0, 0, 0, 0, 2 * size, 0, 0) for frozen, size in sizes.items()}
        monkeypatch.setattr("adapters.tipsv2.recipe.cost.rehearse", lambda c, *_, held=held: held[c.model.frozen])
        warm = estimate(read_config("distil-l"))
        text = "\n".join(warm.lines())
        assert ("and the most memory" in text) == (most == gib)
        assert (warm.weights_gib, warm.activations_gib) == (most, most)
        assert warm.teacher_gib == pytest.approx(0 if most == gib else 4.23, abs=0.01)
    config = read_config("distil-l")
    for part in ("2,000 steps of 8,192, 16.38 M samples, 32.5 M trained", "753.66 M", "TFLOP per step"):
        assert part in text, text
    first = projector_config(config)
    frozen = estimate(first)
    assert (frozen.vision_params, frozen.text_params, frozen.samples) == (0, 0, 2000 * 8192)
    assert frozen.head_params > warm.head_params, "of the teacher's width"
    student = config.train.steps * step_flops(config) / (989e12 * 0.4 * 86400)
    assert warm.device_days == pytest.approx(student + frozen.device_days)
    tokens = 2 * 258 + 6 * 51  # whole view clean and masked, six crops; no text and no backward pass
    assert step_flops(first) / 8192 == pytest.approx(2 * 1.136e9 * tokens, rel=0.05)
    absent = estimate(read_config("distil-l", {"teacher.path": "runs/none/final"}))
    assert "is trained first, and not counted either" in "\n".join(absent.lines())
    assert not warms_up(read_config("distil-l", {"loss.dino": 0.0, "loss.patch": 0.0})), "no loss reads a projector"


@pytest.mark.parametrize(
    ("frozen", "changes"),
    [
        (True, {"train__accumulate": 2, "train__activation_checkpointing": True}),
        (True, {"ema__scope": "full", "loss__ssl_every": 2}),
        (False, {"train__accumulate": 2}),
        (False, {"ema__scope": "full", "loss__dino": 0.0, "loss__patch": 0.0}),
    ],
)
def test_flops_are_those_that_a_step_computes(frozen: bool, changes: dict[str, Any]) -> None:
    config = tiny(
        model__width=64, model__text_depth=2, head__prototypes=256, head__hidden=64, model__frozen=frozen, **changes
    )
    student, batch = stepping(config)
    if config.train.activation_checkpointing:
        checkpoint_activations(student)
    student.encoder.set_attn_implementation("eager")  # a CPU's fused kernel is not counted
    with FlopCounterMode(display=False) as seen:
        moved = batch.to(torch.device("cpu"))
        backward(student, Teacher(config, student), moved, config, 0, torch.autocast("cpu", enabled=False))
    assert step_flops(config) == pytest.approx(seen.get_total_flops(), rel=0.015)


def test_flops_follow_the_passes() -> None:
    clip = step_flops(tiny(loss__dino=0.0, loss__patch_loss="none"))
    full = step_flops(tiny())
    assert step_flops(tiny(ema__scope="full")) > full > clip
    assert step_flops(tiny(train__activation_checkpointing=True)) > full


def test_learning_rate_warms_up_and_ends_at_its_floor() -> None:
    optim = tiny(optim__lr=1.0, optim__warmup=0.1, optim__final_lr=0.0).optim
    rates = [learning_rate(s, 100, optim) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.01
    flat = tiny(optim__lr=1.0, optim__schedule="trapezoid", optim__decay=0.2).optim
    assert [learning_rate(s, 100, flat) for s in (50, 79)] == [1.0, 1.0]
    assert learning_rate(90, 100, flat) == pytest.approx(0.5)


def test_teacher_temperature_and_ramp_are_linear() -> None:
    head = tiny(head__teacher_warmup_temperature=0.04, head__teacher_temperature=0.08, head__teacher_warmup=0.5).head
    assert teacher_temperature(25, 100, head) == pytest.approx(0.06)
    assert teacher_temperature(99, 100, head) == pytest.approx(0.08)
    assert [ramp(s, 100, 0.2) for s in (0, 10, 50)] == [0.0, 0.5, 1.0]
    assert ramp(0, 100, 0.0) == 1.0


def stepping(config: RecipeConfig) -> tuple[Pretrainer, Batch]:
    """A student, and a batch for it."""
    student = Pretrainer(config)
    student.initialise(0)
    batch = content_free(config, config.train.batch_size)
    for tensor in (batch.images, batch.local, *batch.texts, batch.mask, batch.captioned):
        tensor.fill_(1)
    batch.ssl_rows.copy_(torch.arange(len(batch.ssl_rows)) * config.loss.ssl_every)
    return student, batch


def allocated(config: RecipeConfig, teacher: RecipeConfig | None) -> int:
    """The most bytes that tensors of two real steps take at a time, as torch's allocator says."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        student, batch = stepping(config)
        targets = Teacher(config, student, Pretrainer(teacher) if teacher else None)
        optimizer = make_optimizer(student.named_parameters(), config.optim)
        for step in range(2):
            optimizer.zero_grad(set_to_none=True)
            backward(student, targets, batch, config, step, torch.autocast("cpu", enabled=False))
            optimizer.step()
            targets.update(student, step)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    return int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())


@pytest.mark.parametrize(("width", "depth", "distilled"), [(32, 1, False), (96, 1, True), (96, 12, False)])
def test_dry_run_says_the_memory_that_a_step_takes(width: int, depth: int, distilled: bool) -> None:
    sizes: dict[str, Any] = {
        "model__width": width,
        "model__depth": depth,
        "head__prototypes": 10 * width,
        "train__batch_size": 64,
    }
    config = tiny(**sizes, optim__name="adamw" if width == 32 else "adafactor", train__dtype="float32")
    teacher = tiny(**sizes | {"model__width": 2 * width}) if distilled else None
    if teacher:
        config = dataclasses.replace(config, teacher=TeacherConfig(path="theirs"))
    said = rehearse(config, 64, teacher.model if teacher else None).peak
    assert said == pytest.approx(allocated(config, teacher), rel=0.1)
