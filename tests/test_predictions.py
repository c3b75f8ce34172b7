"""--save-predictions: which pictures are kept, what they show, and when a row is made again for them."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small import Noise, made

from benchmark.contracts import KINDS
from benchmark.engine.run import run
from benchmark.images.drawing import RIGHT, WRONG, font, neighbours, palette_for, shrink, side_by_side
from benchmark.leaderboard import build
from benchmark.metrics.positives import caption_positives
from benchmark.rows.row import read_row
from tasks.predictions import (
    Predictions,
    answered,
    best_median_worst,
    caption_pictures,
    label_pictures,
    nearest,
    ranked,
    wrong_queries,
)

DENSE = ("linear_segmentation", "depth", "normals", "zero_shot_segmentation")
RETRIEVAL = ("image_to_text_retrieval", "text_to_image_retrieval", "instance_retrieval")


def test_best_median_and_worst_are_those_and_none_twice() -> None:
    good = np.array([5.0, 1.0, np.nan, 9.0, 3.0, 7.0])
    assert best_median_worst(good, 1) == [("best-1", 3), ("worst-1", 1), ("median-1", 0)]
    names = best_median_worst(np.arange(4.0), 3)
    assert sorted(row for _, row in names) == [0, 1, 2, 3]
    assert [name for name, _ in names] == ["best-1", "best-2", "best-3", "worst-1"]
    assert best_median_worst(np.full(3, np.nan), 2) == []


def test_shrinking_keeps_labels_and_shape() -> None:
    values = np.repeat(np.repeat(np.array([[1, 2], [3, 4]]), 300, 0), 400, 1)
    small = shrink(values, 30)
    assert small.shape == (30, 40) and small[0, 0] == 1 and small[-1, -1] == 4
    assert set(np.unique(small)) == {1, 2, 3, 4}
    assert shrink(values[:20]).shape == values[:20].shape


def test_a_depth_outside_the_range_of_the_target_is_told_in_words() -> None:
    target = np.full((96, 96), 2.0, np.float32)
    image = np.zeros((96, 96, 3), np.uint8)
    lines = [
        np.asarray(Image.open(io.BytesIO(side_by_side(image, target, target + off, "depth"))))[-14:] for off in (-1, 1)
    ]
    assert (lines[0] != lines[1]).any()  # the error is 1 m in both; only what was predicted differs


@pytest.mark.parametrize("kind", ["segmentation", "depth", "normals"])
def test_what_was_predicted_is_what_is_drawn(tmp_path: Path, kind: str) -> None:
    """The kept picture is the one made from the prediction itself, not from another image's."""
    rng = np.random.default_rng(0)
    shape = (40, 48, 3) if kind == "normals" else (40, 48)
    maps = [rng.uniform(1, 5, shape).astype(np.float16).astype(np.float32) for _ in range(5)]
    if kind == "segmentation":
        maps = [(m * 3 % 4).astype(np.int64) for m in maps]
    if kind == "normals":
        maps = [np.round(m / np.linalg.norm(m, axis=2, keepdims=True) * 127) / 127 for m in maps]
    names = ["a", "b", "c", "d"]
    data = made(KINDS[kind], images=Noise(5), target=lambda i: maps[i], class_names=names)
    context = SimpleNamespace(keep_predictions=1, look_at=(), data={"test": data}, scratch=tmp_path / "scratch")
    kept = Predictions(context, kind)  # type: ignore[arg-type]
    for i in range(5):
        kept.add(i, torch.from_numpy(maps[(i + 1) % 5]))
    quality = np.array([3.0, 5.0, 1.0, 4.0, 2.0])
    areas = {"intersection": quality[:, None], "union": np.full((5, 1), 10.0)}
    samples = {"segmentation": areas, "depth": {"rmse": quality}, "normals": {"angular_rmse": quality}}[kind]
    files = kept.files(samples)
    best = 1 if kind == "segmentation" else 2
    name = next(n for n in files if "/best-1" in n)
    drawn = np.asarray(Image.open(io.BytesIO(files[name])))
    expected = side_by_side(Noise(5).load(best), maps[best], maps[(best + 1) % 5], kind, names=names)  # type: ignore[arg-type]
    difference = np.abs(drawn.astype(int) - np.asarray(Image.open(io.BytesIO(expected))).astype(int))
    assert difference.mean() < (0 if kind == "segmentation" else 0.6) + 1e-9
    assert len(files) == 3 and not (tmp_path / "scratch" / "predictions.bin").exists()


def test_nothing_is_kept_or_written_when_nothing_is_asked_for(tmp_path: Path) -> None:
    context = SimpleNamespace(keep_predictions=0, look_at=(), data={"test": None}, scratch=tmp_path / "scratch")
    kept = Predictions(context, "depth")  # type: ignore[arg-type]
    kept.add(0, torch.ones(4, 4))
    assert kept.files({}) == {} and not (tmp_path / "scratch").exists()


def test_wrong_queries_are_the_lowest_ranked_that_have_an_answer() -> None:
    assert wrong_queries(np.array([0, 4, 9, 2, 0]), 9, 5) == [1, 3]
    assert wrong_queries(np.array([0, 4, 8, 2, 0]), 9, 1) == [2]


def test_a_files_name_says_where_the_right_answer_stands() -> None:
    assert [ranked(rank, 9) for rank in (0, 1, 4, 8, 9, -1)] == [
        *("rank-1", "rank-2", "rank-5", "rank-9"), *("no-answer", "no-answer")
    ]  # fmt: skip


def test_the_first_wrong_pictures_stand_beside_their_neighbours() -> None:
    names = ["cat", "dog"]
    data = {
        part: SimpleNamespace(images=Noise(6), labels=[0, 1, 0, 1, 0, 1], class_names=names)
        for part in ("train", "test")
    }
    context: Any = SimpleNamespace(keep_predictions=2, look_at=(), data=data)
    found = torch.tensor([[5, 4]] * 6)
    guess, linear = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 0])
    assert list(label_pictures(context, found, guess, linear)) == [
        "pictures/wrong-1_is-dog_kNN-cat_linear-cat_noise-0-1.png",
        "pictures/wrong-2_is-cat_kNN-dog_linear-cat_noise-0-2.png",
    ]


def test_nearest_goes_through_blocks_and_leaves_out_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    query = gallery[17]
    allowed = np.arange(50) != 17
    expected = [int(i) for i in (gallery @ query).argsort(descending=True) if i != 17][:5]
    assert nearest(query, gallery, allowed) == expected
    monkeypatch.setattr("tasks.predictions.BLOCK", 7)
    assert nearest(query, gallery, allowed) == expected
    found = [3, 4]
    assert answered(found, 4, 1) == [1, 2] and answered(found, 9, 30) == [1, 2, 31] and found == [3, 4, 9]


@pytest.mark.parametrize("by_image", [True, False])
def test_each_query_is_drawn_with_its_own_right_answers(by_image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve pictures, two captions each."""
    drawn = []
    monkeypatch.setattr("tasks.predictions.texts_found", lambda _, lines, correct: drawn.append((lines, correct)))
    monkeypatch.setattr("tasks.predictions.neighbours", lambda _, __, correct, words: drawn.append((words, correct)))
    captions, owner = [[f"c{2 * i}", f"c{2 * i + 1}"] for i in range(12)], np.repeat(np.arange(12), 2)
    data = SimpleNamespace(captions=captions, images=Noise(12))
    context: Any = SimpleNamespace(data={"test": data}, look_at=(), keep_predictions=9)
    draw = torch.Generator().manual_seed(0)
    images, texts = torch.randn(12, 4, generator=draw), torch.randn(24, 4, generator=draw)
    right = caption_positives([2] * 12)[not by_image]
    scores = images @ texts.T if by_image else texts @ images.T
    rank = np.array([
        min(int((row > row[good]).sum()) for good in right.indices[right.offsets[q] : right.offsets[q + 1]])
        for q, row in enumerate(scores)
    ])  # fmt: skip
    files = caption_pictures(context, images, texts, rank, owner, right, by_image)
    asked = wrong_queries(rank, scores.shape[1], 9)
    assert len(files) == len(drawn) == len(asked) > 6
    for q, (lines, correct) in zip(asked, drawn):
        places = [int(line.split(":")[0]) for line in lines]
        shown = scores[q].argsort(descending=True)[[place - 1 for place in places]].tolist()
        assert correct == [n in right.indices[right.offsets[q] : right.offsets[q + 1]] for n in shown]
        assert places[correct.index(True)] == rank[q] + 1


def test_frames_are_green_where_right_and_red_where_wrong() -> None:
    picture = np.full((20, 30, 3), 200, np.uint8)
    drawn = np.asarray(Image.open(io.BytesIO(neighbours("a text", [picture, picture], [True, False]))))
    colours = {tuple(c) for c in drawn[2].tolist()}
    assert RIGHT in colours and WRONG in colours


def test_a_legend_names_the_classes_of_both_maps() -> None:
    truth, guess = np.zeros((30, 30), int), np.ones((30, 30), int)
    image = np.zeros((30, 30, 3), np.uint8)
    drawn = np.asarray(Image.open(io.BytesIO(side_by_side(image, truth, guess, "segmentation", names=["sky", "sea"]))))
    legend = {tuple(c) for c in drawn[-14:].reshape(-1, 3).tolist()}
    assert {tuple(c) for c in palette_for(2).tolist()} <= legend


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of random-vit without pictures, then the same with two of each."""
    results = tmp_path_factory.mktemp("kept")
    words = [f"{task}/scenes" for task in (*DENSE, *RETRIEVAL, "zero_shot_classification")]
    small = {
        "depth.bin_steps": "20",
        "linear_segmentation.pixels_at_most": "64",
        "linear_segmentation.judged_images": "3",
    }
    options: dict[str, Any] = {"limit": 24, "results": results, "check": False, "overrides": small}
    before = run("random-vit", words, **options)
    assert len(before.rows) == 8 and not list(results.rglob("*.png"))
    after = run("random-vit", words, **options, save_predictions=2)
    assert after.reused == 0 and sum(after.forwards.values()) == 0
    for row, again in zip(sorted(before.rows, key=lambda r: r.unit), sorted(after.rows, key=lambda r: r.unit)):
        assert row.main.value == again.main.value and row.unit == again.unit
    return results


def test_missing_pictures_are_made_and_fewer_are_never_stale(kept: Path) -> None:
    for task in DENSE:
        names = sorted(p.name.split("_")[0] for p in kept.glob(f"random-vit/{task}/*/*/pictures/*.png"))
        assert names == ["best-1", "best-2", "median-1", "median-2", "worst-1", "worst-2"], task
    for task in (*RETRIEVAL, "zero_shot_classification"):
        assert len(list(kept.glob(f"random-vit/{task}/*/*/pictures/wrong-*.png"))) == 2, task
    fewer = run("random-vit", "normals/scenes", limit=24, results=kept, check=False, save_predictions=1)
    none = run("random-vit", "normals/scenes", limit=24, results=kept, check=False)
    assert fewer.reused == none.reused == 1
    assert len(list(kept.glob("random-vit/normals/*/*/pictures/*.png"))) == 6


def test_the_worst_picture_is_the_one_of_the_largest_error(kept: Path) -> None:
    row = read_row(next(kept.glob("random-vit/depth/*/*")))
    worst = row.samples["id"][int(np.nanargmax(row.samples["rmse"]))]
    assert next((row.folder / "pictures").glob("worst-1*")).name.endswith(f"{worst.replace('/', '-')}.png")


def test_pictures_are_in_the_leaderboard(kept: Path, tmp_path: Path) -> None:
    build(kept, tmp_path)
    html = (tmp_path / "leaderboard.html").read_text()
    assert html.count("data:image/png;base64,") == 4 * 6 + 4 * 2


@pytest.mark.parametrize("letter", "éüßłčαЖ…–")
def test_pictures_can_spell_the_names_of_european_classes(letter: str) -> None:
    unknown = bytes(font().getmask("\U0010fffd"))
    assert bytes(font().getmask(letter)) != unknown
