"""Zero-shot classification where classes share a name, as two pairs of ImageNet's do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import SmallEncoder
from torch.nn.functional import normalize

from benchmark.contracts.progress import silent
from benchmark.contracts.prompts import as_prompts
from tasks.datasets.prompts import prompt_list
from tasks.prompting import class_embeddings, templates_for
from tasks.zero_shot_classification import Cosine, ZeroShotClassification, one_of_each

NAMES = ("cat", "missile", "dog", "missile")


class Stored:
    """CLS vectors as a stored tap."""

    def __init__(self, vectors: torch.Tensor) -> None:
        self.vectors, self.shape = vectors[:, None], (len(vectors), 1, vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: slice) -> torch.Tensor:
        return self.vectors[rows]


def outcome(
    vectors: torch.Tensor, labels: np.ndarray, noise: float = 0.0, names: Sequence[str] = NAMES
) -> Mapping[str, Any]:
    """Samples of pictures whose vectors are given; equal texts get vectors that differ by `noise`."""
    drawn, words = torch.Generator().manual_seed(1), list(dict.fromkeys(names))

    def text(texts: list[str]) -> torch.Tensor:
        axes = torch.eye(vectors.shape[1])[[words.index(t.split()[-1].rstrip(".")) for t in texts]]
        return normalize(axes + noise * torch.randn(axes.shape, generator=drawn), dim=-1)

    images = SimpleNamespace(image_id=str, digest="test")
    data = SimpleNamespace(class_names=names, labels=labels, images=images, templates=("a {}.",))
    context = SimpleNamespace(
        data={"test": data}, device="cpu",
        card=SimpleNamespace(prompts="plain"), text=text, features=lambda need: Stored(vectors), progress=silent,
        keep_predictions=0, look_at=(),
    )  # fmt: skip
    return Cosine(ZeroShotClassification("encoder", 0, "first", "dataset")).run(context).samples


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_of_two_classes_with_one_name_the_first_is_predicted_and_can_be_right(noise: float) -> None:
    labels = np.tile(np.arange(4), 20)
    vectors = torch.eye(4)[torch.tensor([0, 1, 2, 1])][labels]
    samples = outcome(vectors, labels, noise)
    assert samples["prediction"].tolist() == np.tile([0, 1, 2, 1], 20).tolist()
    assert (samples["hit@1"] == (samples["prediction"] == labels)).all()
    assert samples["rank"].tolist() == np.tile([0, 0, 0, 1], 20).tolist()


def test_an_encoder_that_tells_nothing_apart_still_has_no_hit() -> None:
    labels = np.arange(4)
    assert outcome(torch.full((4, 4), 0.5), labels)["rank"].tolist() == [3, 2, 3, 3]  # its namesake is behind it


def test_ranks_and_hits_are_those_of_all_pictures_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([6, 5, 4, 3, 2, 1, 0, 5])
    vectors = (1 / torch.arange(1.0, 8)).expand(8, 7)  # class k is at rank k for every picture
    monkeypatch.setattr("tasks.zero_shot_classification.BLOCK", 3)
    samples = outcome(vectors, labels, names=tuple("abcdefg"))
    assert samples["rank"].tolist() == labels.tolist() and samples["prediction"].tolist() == [0] * 8
    assert samples["hit@5"].tolist() == (labels < 5).tolist() and samples["hit@1"].tolist() == (labels < 1).tolist()


def test_pictures_are_drawn_from_the_scores_of_their_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}

    def keep(context: Any, scores: Callable[[int], torch.Tensor], rank: np.ndarray, names: Sequence[str]) -> Any:
        kept.update(scores=scores, rank=rank)
        return {}

    monkeypatch.setattr("tasks.zero_shot_classification.class_pictures", keep)
    vectors = normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    samples = outcome(vectors, np.arange(6) % 4)
    of_class = torch.tensor([0, 1, 2, 1])  # the second missile has the first one's text
    for row in range(6):
        torch.testing.assert_close(kept["scores"](row), vectors[row][of_class])
    assert kept["rank"].tolist() == samples["rank"].tolist()


def test_imagenets_names_are_998() -> None:
    names = prompt_list("imagenet1k_classes")
    different, place, later = one_of_each(names, names)
    assert len(names) == 1000 and len(different) == 998
    assert [different[i] for i in place] == list(names)
    assert np.flatnonzero(later).tolist() == [657, 836]  # missile (744), sunglasses (837)


def test_names_that_an_encoders_prompts_write_alike_are_one() -> None:
    names = ["C++", "cat", "C#", "Cat"]
    written = as_prompts(replace(SmallEncoder().card, prompts="canonical"), names)
    different, place, later = one_of_each(names, written)
    assert (different, place.tolist(), later.tolist()) == (["C++", "cat"], [0, 1, 0, 1], [1, 1, 0, 0])


def test_a_class_is_the_sum_of_its_prompts_brought_to_length_one() -> None:
    """Each synonym with each template; patches meet what the encoder makes of the texts for them."""
    drawn = {text: torch.randn(5, generator=torch.Generator().manual_seed(i)) for i, text in enumerate(
        f"{way} {name}" for name in ("a b", "c", "d") for way in ("x", "y"))}  # fmt: skip
    context: Any = SimpleNamespace(
        card=SimpleNamespace(prompts="plain"), text=lambda texts: torch.stack([drawn[text] for text in texts]),
        encoder=lambda: SimpleNamespace(text_for_patches=lambda rows: rows.flip(1)),
    )  # fmt: skip
    sums = [sum(drawn[f"{way} {name}"] for name in of for way in "xy") for of in (("a b", "c"), ("d",))]
    expected = torch.stack([row / row.norm() for row in sums])  # type: ignore[union-attr]
    found = [class_embeddings(context, ["a_b; c", "d"], ["x {}", "y {}"], patches) for patches in (False, True)]
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], expected.flip(1))
    own, none = (SimpleNamespace(templates=templates) for templates in (("of {}",), None))
    assert templates_for("dataset", own) == ("of {}",) and templates_for("tcl_9", own) == prompt_list("tcl_9")  # type: ignore[arg-type]
    assert templates_for("dataset", none) == prompt_list("openai_imagenet_80")  # type: ignore[arg-type]
