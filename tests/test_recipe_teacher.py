"""Head-only EMA, stop-gradient, masking: what reaches the teacher and what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recipe_fixtures import Squares, tiny
from torch.distributed.utils import _apply_to_tensors
from torch.utils._python_dispatch import TorchDispatchMode

from adapters.tipsv2.recipe import chunked
from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.centering import move_centers
from adapters.tipsv2.recipe.cosines import cosines
from adapters.tipsv2.recipe.ema import momentum_at
from adapters.tipsv2.recipe.loader import Collate, Positions
from adapters.tipsv2.recipe.masking import random_mask
from adapters.tipsv2.recipe.model import Pretrainer
from adapters.tipsv2.recipe.objective import pair_loss, self_supervised
from adapters.tipsv2.recipe.step import backward
from adapters.tipsv2.recipe.teacher import Teacher
from adapters.tipsv2.recipe.text import train_tokenizer

OFF = torch.autocast("cpu", enabled=False)


def prepared(**changes: Any) -> tuple[Pretrainer, Teacher, Batch]:
    config = tiny(**changes)
    source = Squares(96)
    texts = [str(t) for i in range(60) for t in (source.load(i).alt, *source.load(i).synthetic)]
    tokenizer = train_tokenizer(texts, 90, 16)
    student = Pretrainer(config)
    student.initialise(0)
    positions = Positions(source, config)
    batch, _, _ = Collate(tokenizer)([positions[i] for i in range(8)])
    assert batch is not None
    return student, Teacher(config, student), batch.to(torch.device("cpu"))


def test_only_the_projector_has_moving_averages() -> None:
    student, teacher, _ = prepared()
    assert teacher.vision is None
    assert {n.split(".")[0] for n, _ in teacher.named_parameters()} == {"heads"}
    assert sum(p.numel() for p in teacher.parameters()) == sum(p.numel() for p in student.heads.parameters())


def test_full_ema_averages_the_vision_tower_too() -> None:
    _, teacher, _ = prepared(ema__scope="full")
    assert {n.split(".")[0] for n, _ in teacher.named_parameters()} == {"heads", "vision"}


def test_averages_move_by_the_momentum_and_never_by_gradient() -> None:
    student, teacher, batch = prepared(ema__momentum=0.9, ema__final_momentum=0.9)
    before = {n: p.clone() for n, p in teacher.heads.named_parameters()}
    backward(student, teacher, batch, student.config, 0, OFF)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    with torch.no_grad():
        for p in student.heads.parameters():
            p.add_(1.0)
    teacher.update(student, 0)
    for name, average in teacher.heads.named_parameters():
        torch.testing.assert_close(average, before[name] + 0.1)


def test_no_gradient_reaches_the_shared_encoder_through_the_target() -> None:
    student, teacher, batch = prepared()
    clean = student(batch)
    assert not clean.cls.requires_grad
    assert not clean.patches.requires_grad
    assert all(not t.requires_grad for t in teacher(clean, batch, 0).values())


@pytest.mark.parametrize("scope", ["head", "full"])
def test_masked_input_never_reaches_the_teacher(scope: str) -> None:
    student, teacher, batch = prepared(ema__scope=scope)
    unmasked = teacher(student(batch), batch, 0)
    batch.mask = ~batch.mask
    remasked = teacher(student(batch), batch, 0)
    for name in ("cls", "patch"):
        assert torch.equal(unmasked[name], remasked[name])


def test_the_student_sees_the_mask_and_only_inside_the_patch_loss() -> None:
    student, _, batch = prepared()
    first, images = student(batch, "masked"), student(batch).images
    batch.mask = ~batch.mask
    assert not torch.allclose(student(batch, "masked"), first)
    assert torch.equal(student(batch).images, images)


def test_ibot_and_ibot_plus_plus_differ_by_the_visible_patches_alone() -> None:
    student, teacher, batch = prepared(loss__patch_loss="ibot", loss__dino=0.0)
    logits, target = student(batch, "masked"), teacher(student(batch), batch, 0)["patch"]
    plus = tiny(loss__patch_loss="ibot++", loss__dino=0.0)
    ones = torch.ones_like(batch.mask)
    full = self_supervised("patch", logits, target, ones, student.config, 5)
    every = self_supervised("patch", logits, target, batch.mask, plus, 5)
    masked = self_supervised("patch", logits, target, batch.mask, student.config, 5)
    torch.testing.assert_close(full["loss"], every["loss"])
    assert not torch.allclose(masked["loss"], every["loss"])


def test_contrastive_run_has_no_projector_and_no_targets() -> None:
    student, teacher, batch = prepared(loss__dino=0.0, loss__patch_loss="none")
    assert len(student.heads) == 0
    assert teacher(student(batch), batch, 0) == {}
    assert batch.local.shape[0] == 0


def test_mask_hides_exactly_the_ratio() -> None:
    masks = np.stack([random_mask(64, 0.75, np.random.default_rng(i)) for i in range(50)])
    assert (masks.sum(1) == 48).all()
    assert masks.mean(0).min() > 0.5
    assert masks.mean(0).max() < 0.98


def test_momentum_runs_from_start_to_end() -> None:
    assert momentum_at(0, 100, 0.9, 1.0) == pytest.approx(0.9)
    assert momentum_at(50, 100, 0.9, 1.0) == pytest.approx(0.95)
    assert momentum_at(100, 100, 0.9, 1.0) == pytest.approx(1.0)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, second, other = (Pretrainer(tiny()) for _ in range(3))
    first.initialise(3)
    torch.randn(7)
    second.initialise(3)
    other.initialise(4)
    a, b, c = (m.state_dict() for m in (first, second, other))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(
        a["encoder.vision_model.embeddings.cls_token"], c["encoder.vision_model.embeddings.cls_token"]
    )


@pytest.mark.parametrize("kind", ["ibot", "ibot++"])
def test_a_patch_loss_by_rows_has_the_gradient_of_the_whole_and_never_its_logits(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    student, teacher, batch = prepared(loss__patch_loss=kind, head__prototypes=96, train__accumulate=2)
    found = []
    for whole in (2**22, 0):
        student.zero_grad()
        monkeypatch.setattr(chunked, "WHOLE", whole)
        monkeypatch.setattr(chunked, "ROWS_AT_ONCE", 7 * 96)
        largest = Largest(96)
        with largest:
            terms = backward(student, teacher, batch, student.config, 3, OFF)
        centre: Any = teacher.targets["patch"]
        move_centers([centre])
        grads = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
        found.append((terms, grads, centre.center.clone(), largest.rows))
        centre.center.zero_()
    (terms, grads, centre_whole, rows), (again, by_rows, centre_rows, few) = found
    assert rows == 4 * 16 and few < rows, "rows of a micro-batch, and of the DINO loss at most"
    for name in ("loss", "patch", "assignment_patch"):
        torch.testing.assert_close(again[name], terms[name], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(centre_rows, centre_whole, rtol=1e-5, atol=1e-7)
    one, two = (torch.cat([grad.flatten() for grad in found.values()]) for found in (grads, by_rows))
    assert (two - one).norm() <= 1e-6 * one.norm()


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_cosines_and_their_gradients_are_those_of_normalised_prototypes(half: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(3, 5, 16, generator=generator), dim=-1).requires_grad_()
    prototypes = torch.randn(40, 16, generator=generator).mul_(3).requires_grad_()
    towards = torch.randn(3, 5, 40, generator=generator)
    found = []
    for product in (cosines, lambda f, p: f @ F.normalize(p, dim=-1).T):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            value = product(features, prototypes)
        found.append((value.detach().float(), *torch.autograd.grad((value * towards).sum(), (features, prototypes))))
    for ours, theirs in zip(*found):
        assert (ours - theirs).norm() <= (1e-2 if half else 1e-6) * theirs.norm()


class Largest(TorchDispatchMode):
    """The most rows of any tensor [..., prototypes] that is made meanwhile."""

    def __init__(self, prototypes: int) -> None:
        super().__init__()
        self.prototypes, self.rows = prototypes, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.ndim and out.shape[-1] == self.prototypes:
            self.rows = max(self.rows, out.numel() // self.prototypes)
        return out


@pytest.mark.parametrize(
    "changes",
    [{}, {"loss__ssl_every": 2, "head__balance": "sinkhorn"}, {"loss__dino": 0.0}, {"loss__patch": 0.0}],
    ids=["all", "half", "patch", "dino"],
)
def test_passes_run_back_one_by_one_give_the_gradient_of_their_sum(changes: dict[str, Any]) -> None:
    student, teacher, batch = prepared(**changes)
    terms = backward(student, teacher, batch, student.config, 3, OFF)
    ours = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    clean = student(batch)
    targets = teacher(clean, batch, 3)
    total = pair_loss(clean.images, clean.texts, clean.temperature, student.config, batch.captioned)
    for kind, what in (("cls", "crops"), ("patch", "masked")):
        if kind in targets:
            found = self_supervised(kind, student(batch, what), targets[kind], batch.mask, student.config, 3)
            total = total + found["loss"]
    total.backward()
    assert float(terms["loss"]) == pytest.approx(float(total.detach()), rel=1e-6)
    theirs = {n: p.grad for n, p in student.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    one, two = (torch.cat([found[n].flatten() for n in theirs]) for found in (theirs, ours))
    assert (two - one).norm() <= 1e-6 * one.norm()


@pytest.mark.parametrize("whole", [2**22, 0], ids=["whole", "by rows"])
def test_no_pass_hands_out_a_parameter_or_a_view(monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    """FSDP hooks every tensor that a forward gives: a parameter would keep the hooks of all steps."""
    student, _, batch = prepared(head__balance="center")
    monkeypatch.setattr(chunked, "WHOLE", whole)
    seen: list[torch.Tensor] = []
    for what in ("clean", "masked", "crops", "pairs"):
        _apply_to_tensors(seen.append, student(batch, what))
    hooked = [tensor for tensor in seen if tensor.requires_grad]
    assert len(hooked) == 3 + 1 + 1 + 3
    assert not any(tensor.is_leaf or tensor._is_view() for tensor in hooked)


def test_what_a_pass_keeps_is_gone_before_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a step holds the activations of three views at a time."""
    student, teacher, batch = prepared()
    alive: set[int] = set()
    left: list[int] = []

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            alive.add(id(self))

        def __del__(self) -> None:
            alive.discard(id(self))

    begin = student.forward

    def forward(*words: Any) -> Any:
        left.append(len(alive))
        return begin(*words)

    monkeypatch.setattr(student, "forward", forward)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        backward(student, teacher, batch, student.config, 3, OFF)
    assert left == [0, 0, 0]
    assert not alive


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_the_gradient_of_the_whole_batch(parts: int) -> None:
    student, teacher, batch = prepared()
    terms = backward(student, teacher, batch, student.config, 3, OFF)
    whole = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    again = backward(student, teacher, batch, tiny(train__accumulate=parts), 3, OFF)
    assert float(again["loss"]) == pytest.approx(float(terms["loss"]), rel=1e-5)
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, whole[name], rtol=2e-4, atol=2e-6)


def test_micro_batches_give_the_same_contrastive_loss_in_bfloat16() -> None:
    student, _, batch = prepared(loss__temperature=0.01)
    teacher = Teacher(student.config, student)
    found = []
    for parts in (1, 2):
        student.zero_grad()
        autocast = torch.autocast("cpu", torch.bfloat16)
        terms = backward(student, teacher, batch, tiny(loss__temperature=0.01, train__accumulate=parts), 3, autocast)
        found.append((float(terms["contrastive"]), student.log_temperature.grad.item()))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
