"""Distillation and the second stage: frozen teacher, no masking, resized position table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipe_fixtures import Squares, tiny

from adapters.tipsv2.recipe.distill import frozen_teacher
from adapters.tipsv2.recipe.export import resize_positions
from adapters.tipsv2.recipe.loader import Collate, Positions
from adapters.tipsv2.recipe.model import Pretrainer, vision_tokens
from adapters.tipsv2.recipe.teacher import Teacher
from adapters.tipsv2.recipe.text import Tokenizer
from adapters.tipsv2.recipe.trainer import train
from adapters.tipsv2.recipe.weights import read_sizes, recipe_of
from benchmark.errors import UsageError, WeightsError


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(train__steps=2), tmp_path_factory.mktemp("teacher"), quiet=True)


def test_the_student_sees_no_mask_and_targets_come_from_the_frozen_teacher(teacher_folder: Path) -> None:
    config = tiny(teacher__path=str(teacher_folder), model__depth=1)
    student = Pretrainer(config)
    student.initialise(1)
    frozen = frozen_teacher(config)
    assert frozen is not None
    teacher = Teacher(config, student, frozen)
    batch, _, _ = Collate(Tokenizer.read(teacher_folder / "tokenizer.model", 16))(
        [Positions(Squares(96), config)[i] for i in range(4)]
    )
    assert batch is not None
    batch = batch.to(torch.device("cpu"))
    output = student(batch)
    before = {k: v.clone() for k, v in teacher.state_dict().items() if "center" not in k}
    targets = teacher(output, batch, 0)
    batch.mask = ~batch.mask
    assert torch.equal(student(batch).patch_logits, output.patch_logits)
    _, patches = vision_tokens(frozen.encoder.vision_model, batch.images)
    logits = frozen.heads["patch"](patches)
    torch.testing.assert_close(targets["patch"], (logits / config.head.teacher_warmup_temperature).softmax(-1))
    teacher.update(student, 0)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items() if k in before)


def test_a_narrower_student_can_be_distilled(teacher_folder: Path, tmp_path: Path) -> None:
    config = tiny(teacher__path=str(teacher_folder), model__width=8, train__steps=2)
    final = train(config, tmp_path, quiet=True)
    assert recipe_of(final).model.width == 8


def test_a_teacher_without_projector_needs_the_moving_average(teacher_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((teacher_folder / name).read_bytes())
    config = tiny(teacher__path=str(tmp_path))
    assert read_sizes("teacher.path", str(tmp_path)).width == 16
    with pytest.raises(UsageError, match=r"no projector for cls, patch .*teacher\.heads = \"warm\".*\"ema\""):
        train(config, tmp_path / "out", quiet=True)
    train(tiny(teacher__path=str(tmp_path), teacher__heads="ema", train__steps=2), tmp_path / "out2", quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__patch_size": 8}, "patch size is 4, the student's 8"),
        ({"head__prototypes": 8}, "has 12 prototypes, head.prototypes = 8"),
        ({"model__width": 8, "teacher__heads": "ema"}, "needs equal widths"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(
    teacher_folder: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        frozen_teacher(tiny(teacher__path=str(teacher_folder), **changes))


def test_a_teacher_that_is_not_there_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json: missing\. teacher\.path must be a folder"):
        frozen_teacher(tiny(teacher__path=str(tmp_path)))


def test_the_second_stage_starts_from_the_first_with_a_resized_table(teacher_folder: Path, tmp_path: Path) -> None:
    config = tiny(
        init_from=str(teacher_folder), model__image_size=32, views__global_size=32, train__steps=2,
        model__tokenizer=str(teacher_folder / "tokenizer.model"),
    )  # fmt: skip
    assert recipe_of(train(config, tmp_path, quiet=True)).model.image_size == 32


def test_a_resized_table_keeps_constants_and_the_cls_slot() -> None:
    table = torch.cat([torch.full((1, 1, 3), 5.0), torch.full((1, 16, 3), 2.0)], 1)
    resized = resize_positions(table, 1 + 64)
    assert resized.shape == (1, 65, 3)
    torch.testing.assert_close(resized[:, 0], torch.full((1, 3), 5.0))
    torch.testing.assert_close(resized[:, 1:], torch.full((1, 64, 3), 2.0))
