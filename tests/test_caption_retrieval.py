"""Retrieval where two pictures have a caption in common, word for word."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from benchmark.engine.context import silent
from tasks.caption_retrieval import IMAGE_TO_TEXT, TEXT_TO_IMAGE, CaptionRetrieval

CAPTIONS = (("a plate", "a red plate"), ("a dog",), ("a plate",), ("a plate", "a cup"))
WORDS = ("a plate", "a red plate", "a dog", "a cup")


def samples(task, vectors: torch.Tensor) -> dict[str, np.ndarray]:
    """Of pictures whose CLS vectors [4, 4] are given; each different caption is an axis, asked for once."""
    stored = vectors[:, None]
    reader = type("Reader", (), {"shape": stored.shape, "__len__": lambda self: len(stored),
                                 "__getitem__": lambda self, rows: stored[rows]})()  # fmt: skip

    def text(texts: list[str]) -> torch.Tensor:
        assert len(set(texts)) == len(texts), "the same text in another batch is rounded otherwise"
        return torch.eye(4)[[WORDS.index(t) for t in texts]]

    data = SimpleNamespace(captions=CAPTIONS, images=SimpleNamespace(image_id=str))
    context = SimpleNamespace(
        data={"test": data}, protocol=CaptionRetrieval("encoder", 0, "first"), card=None, device="cpu", text=text,
        features=lambda need: reader, progress=silent, keep_predictions=0,
    )  # fmt: skip
    return task.run(context).samples


def test_of_pictures_that_share_a_caption_the_first_can_be_right() -> None:
    sees = torch.eye(4)[[0, 2, 0, 0]]  # three plates and a dog
    assert samples(IMAGE_TO_TEXT, sees)["rank"].tolist() == [0, 0, 1, 2]
    own = torch.tensor([[0.5, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0.5, 0, 0, 1.0]])  # what only they are told by
    assert samples(IMAGE_TO_TEXT, own)["rank"].tolist() == [0, 0, 1, 0]


def test_a_shared_caption_asks_for_its_own_picture() -> None:
    """The other direction has no tie of its own: pictures differ."""
    vectors = torch.tensor([[1, 0.5, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1.0]])
    found = samples(TEXT_TO_IMAGE, vectors)
    assert found["rank"].tolist() == [1, 0, 0, 0, 2, 0]  # the plainest plate is nearest to "a plate", whosever it is


def test_an_encoder_that_tells_nothing_apart_has_no_hit() -> None:
    assert (samples(IMAGE_TO_TEXT, torch.full((4, 4), 0.5))["rank"] > 0).all()
