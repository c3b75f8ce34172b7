"""Each loss against a plain numpy re-computation, and the identities between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapters.tipsv2.recipe.centering import Centered, move_centers, sinkhorn
from adapters.tipsv2.recipe.config import HeadConfig
from adapters.tipsv2.recipe.losses import contrastive_loss, dino_loss, patch_loss


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def as_torch(first: np.ndarray, second: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(first), torch.from_numpy(second)


def test_contrastive_loss_is_infonce_both_ways_averaged_over_two_pairs(rng: np.random.Generator) -> None:
    images, texts = unit(rng.normal(size=(5, 2, 8))), unit(rng.normal(size=(5, 2, 8)))
    expected = 0.0
    for k in range(2):
        logits = images[:, k] @ texts[:, k].T / 0.1
        for table in (logits, logits.T):
            expected -= sum(log_softmax(table)[i, i] for i in range(5)) / 5 / 4
    found = contrastive_loss(*as_torch(images, texts), torch.tensor(0.1))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_row_without_a_text_is_neither_asked_nor_an_answer(rng: np.random.Generator) -> None:
    images, texts = as_torch(unit(rng.normal(size=(6, 2, 8))), unit(rng.normal(size=(6, 2, 8))))
    captioned = torch.ones(6, 2, dtype=torch.bool)
    captioned[[1, 4], 0] = False
    images.requires_grad_()
    found = contrastive_loss(images, texts, torch.tensor(0.1), captioned)
    left = [0, 2, 3, 5]
    one = contrastive_loss(images[left, :1], texts[left, :1], torch.tensor(0.1))
    two = contrastive_loss(images[:, 1:], texts[:, 1:], torch.tensor(0.1))
    torch.testing.assert_close(found, (one + two) / 2)
    (grad,) = torch.autograd.grad(found, images)
    assert not grad[[1, 4], 0].any() and grad[[1, 4], 1].all() and grad.isfinite().all()
    captioned[:, 0] = False
    torch.testing.assert_close(contrastive_loss(images, texts, torch.tensor(0.1), captioned), two / 2)


def test_contrastive_logits_are_float32_under_autocast(rng: np.random.Generator) -> None:
    images, texts = (
        t.float() for t in as_torch(unit(rng.normal(size=(16, 2, 32))), unit(rng.normal(size=(16, 2, 32))))
    )
    found = []
    for on in (False, True):
        rows = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            loss = contrastive_loss(rows, texts, torch.tensor([0.01]))
        found += [loss.detach(), *torch.autograd.grad(loss, rows)]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


def test_both_caption_pairs_carry_gradient(rng: np.random.Generator) -> None:
    images, texts = as_torch(unit(rng.normal(size=(4, 2, 6))), unit(rng.normal(size=(4, 2, 6))))
    images.requires_grad_(), texts.requires_grad_()
    contrastive_loss(images, texts, torch.tensor(0.2)).backward()
    for grad in (images.grad, texts.grad):
        assert grad is not None
        assert (grad.abs().sum((0, 2)) > 0).all()


def test_dino_loss_matches_numpy(rng: np.random.Generator) -> None:
    student, target = rng.normal(size=(3, 4, 7)), np.exp(log_softmax(rng.normal(size=(4, 7))))
    expected = np.mean([-(target[b] * log_softmax(student[m, b] / 0.1)).sum() for m in range(3) for b in range(4)])
    assert float(dino_loss(*as_torch(student, target), 0.1)) == pytest.approx(expected, rel=1e-6)


def test_ibot_counts_masked_patches_only(rng: np.random.Generator) -> None:
    student, target = rng.normal(size=(3, 6, 5)), np.exp(log_softmax(rng.normal(size=(3, 6, 5))))
    mask = np.zeros((3, 6), bool)
    mask[:, [1, 4, 5]] = True
    each = -(target * log_softmax(student / 0.1)).sum(-1)
    found = patch_loss(*as_torch(student, target), 0.1, torch.from_numpy(mask))
    assert float(found) == pytest.approx(each[mask].reshape(3, 3).mean(1).mean(), rel=1e-6)


def test_ibot_plus_plus_counts_every_patch(rng: np.random.Generator) -> None:
    student, target = rng.normal(size=(3, 6, 5)), np.exp(log_softmax(rng.normal(size=(3, 6, 5))))
    each = -(target * log_softmax(student / 0.1)).sum(-1)
    assert float(patch_loss(*as_torch(student, target), 0.1)) == pytest.approx(each.mean(), rel=1e-6)


def test_ibot_with_an_all_ones_mask_equals_ibot_plus_plus(rng: np.random.Generator) -> None:
    student, target = as_torch(rng.normal(size=(3, 6, 5)), np.exp(log_softmax(rng.normal(size=(3, 6, 5)))))
    everything = torch.ones(3, 6, dtype=torch.bool)
    torch.testing.assert_close(patch_loss(student, target, 0.1, everything), patch_loss(student, target, 0.1))


def test_target_branch_takes_no_gradient(rng: np.random.Generator) -> None:
    student, target = as_torch(rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 4, 5)))
    target.requires_grad_()
    student.requires_grad_()
    (patch_loss(student, target.softmax(-1), 0.1) + dino_loss(student, target[0].softmax(-1)[:4], 0.1)).backward()
    assert target.grad is None
    assert student.grad is not None


def test_centering_uses_the_centre_of_the_steps_before_and_moves_it_once(rng: np.random.Generator) -> None:
    targets = Centered(HeadConfig(prototypes=5, center_momentum=0.9))
    first, second = rng.normal(size=(4, 5)), rng.normal(size=(2, 5))
    found = targets(torch.from_numpy(first), 0.05)
    np.testing.assert_allclose(found.numpy(), np.exp(log_softmax(first / 0.05)), rtol=1e-4, atol=1e-7)
    targets(torch.from_numpy(second), 0.05)  # another micro-batch of the same step
    assert float(targets.center.abs().sum()) == 0
    move_centers([targets])
    center = 0.1 * np.concatenate([first, second]).mean(0)
    np.testing.assert_allclose(targets.center.numpy(), center, rtol=1e-5)
    found = targets(torch.from_numpy(first), 0.05)
    np.testing.assert_allclose(found.numpy(), np.exp(log_softmax((first - center) / 0.05)), rtol=1e-3, atol=1e-6)


def test_sinkhorn_matches_numpy_and_balances_prototypes(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(32, 4))
    q = np.exp((logits - logits.max()) / 0.5)
    for _ in range(3):
        q = q / q.sum(0) / 4
        q = q / q.sum(1, keepdims=True) / 32
    more = rng.normal(size=(8, 3))  # balanced beside it, and by itself
    found, other = sinkhorn([torch.from_numpy(logits), torch.from_numpy(more)], 0.5, 3)
    np.testing.assert_allclose(found.numpy(), q * 32, rtol=1e-6)
    np.testing.assert_allclose(found.sum(1).numpy(), 1, rtol=1e-6)
    assert torch.equal(other, sinkhorn([torch.from_numpy(more)], 0.5, 3)[0])
    (balanced,) = sinkhorn([torch.from_numpy(logits)], 0.5, 50)
    np.testing.assert_allclose(balanced.mean(0).numpy(), 0.25, rtol=1e-3)
