"""Retrieval where two pictures have a caption in common, word for word."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import Noise

from benchmark.contracts import Outcome
from benchmark.contracts.progress import silent
from benchmark.data.equal_pictures import first_equal, picture_digests
from benchmark.errors import DataError
from tasks import caption_retrieval
from tasks.caption_retrieval import IMAGE_TO_TEXT, TEXT_TO_IMAGE, CaptionRetrieval, cut

CAPTIONS = (("a plate", "a red plate"), ("a dog",), ("a plate",), ("a plate", "a cup"))
WORDS = ("a plate", "a red plate", "a dog", "a cup")


def outcome(task, vectors: torch.Tensor, pictures: Noise | None = None, captions: Any = CAPTIONS) -> Outcome:
    """Of pictures whose CLS vectors [4, 4] are given; each different caption is an axis, asked for once."""
    stored = vectors[:, None]
    reader = type("Reader", (), {"shape": stored.shape, "__len__": lambda self: len(stored),
                                 "__getitem__": lambda self, rows: stored[rows]})()  # fmt: skip

    def text(texts: list[str]) -> torch.Tensor:
        assert len(set(texts)) == len(texts), "the same text in another batch is rounded otherwise"
        return torch.eye(4)[[WORDS.index(t) for t in texts]]

    encoder = SimpleNamespace(is_cut=lambda texts: [len(text) > 5 for text in texts])
    images = Noise(len(CAPTIONS)) if pictures is None else pictures
    data = SimpleNamespace(captions=captions, images=images)
    context = SimpleNamespace(
        data={"test": data}, card=None, device="cpu", text=text,
        features=lambda need: reader, progress=silent, keep_predictions=0, look_at=(), encoder=lambda: encoder,
    )  # fmt: skip
    return task.method(CaptionRetrieval("encoder", 0, "first")).run(context)


def samples(task, vectors: torch.Tensor) -> Mapping[str, Any]:
    return outcome(task, vectors).samples


def test_of_pictures_that_share_a_caption_the_first_can_be_right() -> None:
    sees = torch.eye(4)[[0, 2, 0, 0]]  # three plates and a dog
    assert samples(IMAGE_TO_TEXT, sees)["rank"].tolist() == [0, 0, 1, 2]
    own = torch.tensor([[0.5, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0.5, 0, 0, 1.0]])  # what only they are told by
    assert samples(IMAGE_TO_TEXT, own)["rank"].tolist() == [0, 0, 1, 0]


def test_the_same_vectors_with_captions_of_other_pictures_are_ranked_anew() -> None:
    sees = torch.eye(4)[[0, 2, 0, 0]]
    assert outcome(IMAGE_TO_TEXT, sees).samples["rank"].tolist() == [0, 0, 1, 2]
    moved = (("a plate",), ("a red plate",), ("a dog", "a plate"), ("a plate", "a cup"))
    assert outcome(IMAGE_TO_TEXT, sees, captions=moved).samples["rank"][1] == 5, "its own is no nearer than any other"
    assert outcome(TEXT_TO_IMAGE, sees, captions=moved).samples["rank"].tolist() == [2, 3, 3, 2, 2, 3]


def test_a_shared_caption_asks_for_its_own_picture() -> None:
    """The other direction has no tie of its own: pictures differ."""
    vectors = torch.tensor([[1, 0.5, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1.0]])
    found = samples(TEXT_TO_IMAGE, vectors)
    assert found["rank"].tolist() == [1, 0, 0, 0, 2, 0]  # the plainest plate is nearest to "a plate", whosever it is


class Twins(Noise):
    """The third of four pictures is the first again."""

    digest = "twins"

    def load(self, index: int) -> np.ndarray:
        return super().load(0 if index == 2 else index)


def test_equal_pictures_are_one_right_answer_in_both_directions() -> None:
    """Pictures 0 and 2 are one: each caption of either asks for both, and all of them are right for both."""
    sees = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
    to_text, to_image = (outcome(task, sees, Twins(4)) for task in (IMAGE_TO_TEXT, TEXT_TO_IMAGE))
    assert to_text.samples["rank"].tolist() == [0, 0, 0, 0] and to_image.samples["rank"].tolist() == [0, 0, 0, 0, 3, 0]
    assert to_text.details == {"equal_pictures": {"pictures": 2, "different": 1}, "captions": 6, "captions_cut": 4}
    assert to_text.samples["image"].tolist() == [f"noise/0/{i}" for i in (0, 1, 0, 3)], "resampled together"
    assert outcome(IMAGE_TO_TEXT, sees).details["equal_pictures"] == {"pictures": 0, "different": 0}


def test_chance_is_of_one_answer_among_the_captions_or_among_the_pictures() -> None:
    """Six captions, of which some are alike, answer a picture; four pictures answer a caption."""
    to_text, to_image = (outcome(task, torch.eye(4)) for task in (IMAGE_TO_TEXT, TEXT_TO_IMAGE))
    assert to_image.chance(to_image.measurements[0]) == pytest.approx(100 / 4)
    share = np.mean([n / 6 for n in (4, 1, 2, 2)])  # the later of equal captions are right, too
    assert to_text.chance(to_text.measurements[0]) == pytest.approx(100 * share)


def test_captions_are_counted_as_cut_only_where_an_encoder_says_so() -> None:
    for extra, said in (({}, None), ({"is_cut": lambda texts: [True] * len(texts)}, 2)):
        context = SimpleNamespace(encoder=lambda extra=extra: SimpleNamespace(**extra))
        assert cut(context, ["a", "b"]) == said
        assert cut(context, []) is None


def test_equal_pictures_are_found_by_their_pixels_whatever_their_file(tmp_path, monkeypatch) -> None:
    from miniatures import Image, picture

    from tasks.datasets.user import open_task

    first = Image.fromarray(picture(1))
    written: dict[str, dict[str, Any]] = {"a.png": {}, "b.png": {"optimize": True, "compress_level": 9}, "c.bmp": {}}
    for name, options in written.items():
        (tmp_path / "images").mkdir(exist_ok=True)
        first.save(tmp_path / "images" / name, **options)
    first.save(tmp_path / "images" / "lossy.jpg", quality=60)
    Image.fromarray(picture(1)[:, ::-1]).save(tmp_path / "images" / "turned.png")
    names = sorted(p.name for p in (tmp_path / "images").iterdir())
    (tmp_path / "c.csv").write_text("image,caption\n" + "".join(f"{name},a picture\n" for name in names))
    (tmp_path / "t.toml").write_text(
        'task = "image_to_text_retrieval"\nname = "x"\nimages = "images"\ncaptions = "c.csv"\n'
    )
    images = open_task(tmp_path / "t.toml").dataset.data("captions", "test").images
    assert first_equal(picture_digests(images, silent)).tolist() == [0, 0, 0, 3, 4]
    Image.fromarray(picture(2)).save(tmp_path / "images" / "turned.png")  # another set
    images = open_task(tmp_path / "t.toml").dataset.data("captions", "test").images
    with monkeypatch.context() as patched:  # a disk that does not answer, once
        patched.setattr(type(images), "load", lambda *_: (_ for _ in ()).throw(DataError("stale handle")))
        assert first_equal(picture_digests(images, silent)).tolist() == [0, 1, 2, 3, 4]
    assert first_equal(picture_digests(images, silent)).tolist() == [0, 0, 0, 3, 4]


def test_an_encoder_that_tells_nothing_apart_has_no_hit() -> None:
    assert (samples(IMAGE_TO_TEXT, torch.full((4, 4), 0.5))["rank"] > 0).all()


def test_the_scores_of_both_directions_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    both = caption_retrieval.mutual_ranks
    monkeypatch.setattr(caption_retrieval, "_last", None)
    monkeypatch.setattr(caption_retrieval, "mutual_ranks", lambda *a, **k: asked.append(a) or both(*a, **k))
    first, other = torch.eye(4), torch.eye(4)[[1, 0, 2, 3]]
    ranks = [samples(task, first)["rank"].tolist() for task in (IMAGE_TO_TEXT, TEXT_TO_IMAGE)]
    assert len(asked) == 1
    swapped = [samples(task, other)["rank"].tolist() for task in (TEXT_TO_IMAGE, IMAGE_TO_TEXT)]
    assert len(asked) == 2 and swapped != ranks[::-1], "other vectors are other scores"
