"""What the tasks draw, by hand: which pictures and words stand beside one another, and how the files are called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import Noise, made

from benchmark.contracts import RetrievalData
from tasks import match_pictures, predictions
from tasks.predictions import class_pictures, closest, image_scores, instance_pictures, numbered, short, wrong


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was to be drawn: the words or flags beside each picture."""
    found: list[tuple[Any, ...]] = []
    for name in ("neighbours", "texts_found"):
        monkeypatch.setattr(predictions, name, lambda *given: found.append(given))
    return found


def test_each_picture_has_its_own_score_of_its_kind() -> None:
    areas = {"intersection": np.array([[3, 0, 0], [0, 0, 0]]), "union": np.array([[4, 2, 0], [0, 0, 0]])}
    scores, name, higher = image_scores(areas, "segmentation")
    assert scores[0] == pytest.approx(37.5) and np.isnan(scores[1]) and (name, higher) == ("mIoU", True)
    for kind, column, word in (("depth", "rmse", "RMSE"), ("normals", "angular_rmse", "angular-RMSE")):
        scores, name, higher = image_scores({column: np.array([2.0, 1.0])}, kind)  # type: ignore[arg-type]
        assert scores.tolist() == [2, 1] and (name, higher) == (word, False)


def test_names_count_from_one() -> None:
    assert numbered([7, 3]) == [("sample-1", 7), ("sample-2", 3)] and wrong([4, 9]) == [("wrong-1", 4), ("wrong-2", 9)]
    assert short("a/b/c.jpg") == "c.jpg" and short("c") == "c"
    gallery = torch.eye(3)
    assert closest(torch.tensor([0.1, 0.9, 0.5]), gallery, np.array([0, 2])) == 2
    assert closest(gallery[0], gallery, np.array([], int)) is None


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("asked", [(), (3,)])
def test_a_wrong_query_is_drawn_with_the_pictures_that_it_met(
    merged: bool, asked: tuple[int, ...], drawn: list[Any]
) -> None:
    """Eight pictures on an arc, alternately of two domains, of two labels each; the queries are the index."""
    angle = torch.tensor([0, 0.2, 0.4, 0.6, 0.81, 1.02, 1.23, 1.44])
    vectors = torch.stack([angle.cos(), angle.sin()], 1)
    domains, labels = ["d", "e"] * 4, np.array([0, 0, 0, 0, 1, 1, 1, 1])
    data = made(RetrievalData, queries=Noise(8), index=Noise(8), query_labels=labels, index_labels=labels,
                query_domains=domains, index_domains=domains, self_index=np.arange(8))  # fmt: skip
    context: Any = SimpleNamespace(data={"test": data}, look_at=asked, keep_predictions=1)
    rank = np.array([0, 1, 0, 4, 0, 0, 3, 8])
    files = instance_pictures(context, vectors, vectors, rank, merged)
    (name,), ((query, shown, right, words),) = files, drawn
    assert name == f"pictures/{'sample' if asked else 'wrong'}-1_rank-5_noise-0-3.png"
    order = sorted((i for i in range(8) if i != 3), key=lambda i: float((angle[i] - angle[3]).abs()))
    expected = [i for i in order if merged or i % 2 == 1][:5]
    found = [int(word.split(": ")[1]) for word in words]
    assert found == expected and [word.split(":")[0] for word in words] == [str(k) for k in range(1, len(words) + 1)]
    assert right == [i == 1 for i in found] and (query == data.queries.picture(3)).all()
    assert all((picture == data.index.picture(i)).all() for picture, i in zip(shown, found))


def test_a_picture_is_drawn_with_its_nearest_classes_and_its_own(drawn: list[Any]) -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1234], [0.1, 0.9, 0.0, 0.2, 0.3, 0.4, 0.5]])
    data = SimpleNamespace(labels=[6, 1], images=Noise(2))
    context: Any = SimpleNamespace(data={"test": data}, look_at=(), keep_predictions=3)
    names = [f"c{i}" for i in range(7)]
    files = class_pictures(context, lambda row: scores[row], np.array([6, 0]), names)
    ((picture, lines, right),) = drawn
    assert list(files) == ["pictures/wrong-1_rank-7_noise-0-0.png"] and right == [False] * 5 + [True]
    assert lines[0] == "1: c0  0.900" and lines[4] == "5: c4  0.500" and lines[5] == "7: c6  0.123" and len(lines) == 6
    assert (picture == data.images.picture(0)).all()


def test_pairs_are_drawn_by_the_share_of_their_points_that_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(match_pictures, "matches", lambda *given: shown.append(given))
    monkeypatch.setattr(match_pictures, "png", lambda picture: b"")
    data: Any = SimpleNamespace(images=Noise(6), pairs=np.array([[0, 1], [2, 3], [4, 5], [1, 5]]))
    points = np.zeros((3, 2))
    pairs = [
        match_pictures.Drawn(index, points + index, points, points, np.array(right), goodness)
        for index, right, goodness in ((0, [1, 0, 0], -3.0), (2, [1, 1, 1], -1.0), (3, [1, 1, 0], -2.0))
    ]
    context: Any = SimpleNamespace(keep_predictions=1, look_at=())
    assert list(match_pictures.pictures(context, data, pairs, "PCK")) == [
        "pictures/best-1_PCK-100_noise-0-4_noise-0-5.png", "pictures/worst-1_PCK-33.3_noise-0-0_noise-0-1.png",
        "pictures/median-1_PCK-66.7_noise-0-1_noise-0-5.png",
    ]  # fmt: skip
    assert [given[2][0, 0] for given in shown] == [2, 0, 3] and (shown[0][1] == data.images.picture(5)).all()
    context.look_at = (3, 1, 0)  # of pair 1 no point was looked for
    names = list(match_pictures.pictures(context, data, pairs, "PCK"))
    assert [name.split("_")[0] for name in names] == ["pictures/sample-1", "pictures/sample-2"] and "66.7" in names[0]
    assert match_pictures.pictures(SimpleNamespace(keep_predictions=0), data, pairs, "PCK") == {}  # type: ignore[arg-type]
