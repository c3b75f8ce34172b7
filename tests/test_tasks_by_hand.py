"""The parts of the tasks that can be worked out by hand: grids of patches, probes, vectors, crops."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from point_matches import fields
from small import Noise, SmallEncoder
from test_vector_tasks import feed_of
from training_context import ColourDepth, MemoryContext, Ramps, preset

from benchmark.contracts import View
from benchmark.errors import DataError
from benchmark.images.decode import resize
from benchmark.protocol import presets
from benchmark.registry import load_task, protocol_file, tasks
from tasks.classification import TASK as CLASSIFICATION
from tasks.correspondence import PatchMatchesMethod, _distance
from tasks.dense import PixelRows, mean_target, resampled_by_thing, stack_rows
from tasks.dense_matches import DenseMatchesMethod, _places
from tasks.depth import TASK as DEPTH
from tasks.depth import PixelDepthMethod
from tasks.idle_fields import check_background, check_range, check_view
from tasks.instance_retrieval import _searches
from tasks.normals import TASK as NORMALS
from tasks.patch_matches import Framed, Square, answers, at_points
from tasks.swept_vectors import RawVectors, Source, chosen, curve_file, random_box, vector_of
from tasks.zero_shot_segmentation import ZeroShotSegmentation

UNIT = torch.nn.functional.normalize

# ------------------------------------------------------------------------------------------------------------- grids


def test_a_feature_at_a_point_is_its_patchs_or_a_mixture_of_four() -> None:
    grid = torch.arange(12.0).view(3, 4, 1)  # three rows of four
    at = np.array([[0.125, 1 / 6], [0.5, 0.5], [1.0, 1.0], [0.0, 0.0], [0.26, 0.99]])
    assert at_points(grid, at, "patch")[:, 0].tolist() == [0, 6, 11, 0, 9]
    middles = at_points(grid, at, "bilinear")[:, 0]  # places are the patches' centres, and none is outside of them
    np.testing.assert_allclose(middles, [0, 5.5, 11, 0, 8.54], atol=1e-5)
    edges = at_points(grid, at, "corners")[:, 0]  # from edge to edge: x runs over three steps, y over two
    np.testing.assert_allclose(edges, [0.375 + 4 / 3, 5.5, 11, 0, 0.78 + 4 * 1.98], atol=1e-5)


def test_a_windowed_answer_weighs_the_patches_around_the_best_one() -> None:
    """A grid of 3 × 4: best is (1, 3); its window of one has two columns and all three rows."""
    cosines = torch.full((1, 12), -1.0)
    cosines[0, 7], cosines[0, 3], cosines[0, 6], cosines[0, 5], cosines[0, 0] = 0.9, 0.8, 0.85, 0.89, 0.89
    (hard,) = answers(cosines, 3, 4, fields("fast", window=0, place="corner"))
    assert hard.tolist() == [3 / 4, 1 / 3]
    (soft,) = answers(cosines, 3, 4, fields("fast", window=1, place="centre", temperature=0.1))
    weights = {(1, 3): np.exp(9), (0, 3): np.exp(8), (1, 2): np.exp(8.5)}
    weights |= {cell: np.exp(-10) for cell in ((0, 2), (2, 2), (2, 3))}
    total = sum(weights.values())
    columns, rows = (sum(w * (cell[k] + 0.5) for cell, w in weights.items()) for k in (1, 0))
    expected = [columns / 4, rows / 3]
    np.testing.assert_allclose(soft, np.array(expected) / total, rtol=1e-6)


def test_views_of_matches_have_whole_patches() -> None:
    p = fields("fast", view_size=100)
    assert [p.side(224, 14), fields("fast").side(224, 14), fields("fast", view_patches=5).side(224, 14)] == [
        98,
        224,
        70,
    ]
    assert fields("fast", view_size=10).side(224, 14) == 14
    need = fields("sd-dino", layer=3).need(Noise(2), 224, 16)
    assert isinstance(need.images, Framed) and need.tap.layer == 3 and need.view == View("square", 224)
    assert fields("fast", frame="stretched", layer=-1).need(Noise(2), 224, 16).tap.layer is None
    assert need.images.uniform_shape is None and len(need.images) == 2 and need.images.cheap
    for changes, said in (
        ({"view_size": 9, "view_patches": 2}, "view_size = 9 does"),
        ({"metres": (1.0, 1.0)}, "twice"),
    ):
        with pytest.raises(ValueError, match=said):
            fields("fast", **changes)
        with pytest.raises(ValueError, match=said):
            preset("correspondence", "probe3d", "navi", **{"view_size": 0, "view_patches": 0, **changes})
    odd = Square("centre", 5, 8)
    assert (odd.side, odd.top, odd.left) == (8, 1, 0) and Square("centre", 8, 5).left == 1
    framed = Framed(type("Same", (Noise,), {"uniform_shape": (40, 48)})(1), "corner")
    assert framed.uniform_shape == (48, 48)


def test_dense_matches_are_between_the_first_pixels_of_the_grids_cells() -> None:
    assert _places((4, 6, 3), 3).tolist() == [[x + 0.5, y + 0.5] for y in (0, 1, 2) for x in (0, 2, 4)]
    protocol = preset("correspondence", "probe3d", "navi", view_size=0, view_patches=0)
    card: Any = SimpleNamespace(patch_size=14, image_size=100)
    data = {"test": SimpleNamespace(posed=True, images=Noise(1))}

    def side(**changes: int) -> int:
        chosen = preset("correspondence", "probe3d", "navi", **{"view_size": 0, "view_patches": 0, **changes})
        return DenseMatchesMethod(chosen).needs(card, data)["test/patches"].view.size

    assert (side(), side(view_size=60), side(view_size=5), side(view_patches=3)) == (98, 56, 14, 42)
    there = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    here = torch.tensor([[1.0, 0.0], [0.9, 0.43589], [0.6, 0.8], [0.0, 1.0]])
    for ratio, rows in ((True, [3, 0, 1, 2]), (False, [0, 3, 1, 2])):
        method = DenseMatchesMethod(type(protocol)(**{**vars(protocol), "ratio": ratio, "matches": 4}))
        kept, best = method._matches(here, there)
        assert kept.tolist() == rows and best.tolist() == [{0: 0, 1: 1, 2: 1, 3: 2}[row] for row in rows]


def test_pairs_are_drawn_of_each_category_and_read_by_their_source() -> None:
    data: Any = SimpleNamespace(categories=list("abab"), pairs=np.array([[5, 1], [3, 2], [4, 9], [3, 1]]))
    assert PatchMatchesMethod(fields("fast", pairs=0))._chosen(data) == [2, 0, 3, 1]
    some = PatchMatchesMethod(fields("fast", pairs=1))._chosen(data)
    assert len(some) == 2 and [data.categories[i] for i in some] == ["a", "b"]
    away = _distance(np.array([[3.0, 4.0], [np.nan, 0.0], [np.inf, 1.0]]), np.zeros((3, 2)))
    assert away.tolist() == [5.0, np.inf, np.inf]


# ------------------------------------------------------------------------------------------------------------ probes


def test_a_pixels_row_is_its_feature_and_the_first_cls_of_its_picture() -> None:
    pixels, cls = torch.randn(3, 5, 4), torch.randn(3, 2, 4)
    picture, place = np.array([0, 0, 2, 1]), np.array([4, 1, 0, 3])
    plain, both = (PixelRows(pixels, of, picture, place) for of in (None, cls))  # type: ignore[arg-type]
    assert plain.shape == (4, 4) and both.shape == (4, 8) and len(both) == 4
    expected = torch.stack([torch.cat([pixels[2, 0], cls[2, 0]]), torch.cat([pixels[0, 4], cls[0, 0]])])
    assert torch.equal(both[np.array([2, 0])], expected)
    assert torch.equal(plain[1:3], torch.stack([pixels[0, 1], pixels[2, 0]]))


def test_the_mean_of_targets_is_of_64_maps_from_the_first_to_the_last() -> None:
    seen: list[int] = []

    def split(n: int) -> Any:
        return SimpleNamespace(images=range(n), counted=lambda i: (seen.append(i), np.array([[i, 1.0], [-1, -1]]))[1])

    found = mean_target({"train": split(127), "test": split(3)}, lambda m: m > 0)
    assert seen == list(range(0, 127, 2)) and found == pytest.approx((sum(seen) + 64) / (64 + 63))
    seen.clear()
    assert mean_target({"test": split(3)}, lambda m: m >= 0) == pytest.approx((0 + 1 + 2 + 3) / 6) and seen == [0, 1, 2]


def test_rows_become_columns_of_their_kinds() -> None:
    table = stack_rows([{"id": "a", "n": 1, "v": np.zeros(2)}, {"id": "longer", "n": 2, "v": np.ones(2)}])
    assert table["id"].tolist() == ["a", "longer"] and table["n"].dtype.kind == "i"
    assert table["v"].tolist() == [[0, 0], [1, 1]]
    with pytest.raises(TypeError, match="[Cc]annot cast"):
        stack_rows([{"n": 1}, {"n": 1.5}])
    data = SimpleNamespace(thing_of={"a": "x", "longer": None}.get)
    measured: Any = DEPTH.method(preset("depth", "fast"))
    assert resampled_by_thing(data, dict(table), [measured]) == [measured]


def test_an_own_limit_of_depth_is_that_of_the_bins_and_without_one_the_farthest_pixel_is() -> None:
    found = {}
    for limit in (0.0, 2.5):
        p = preset("depth", "fast", max_depth=limit, bin_steps=2, penalties=(0.1,), bins=4)
        data = {"train": ColourDepth(Ramps(6, 1)), "test": ColourDepth(Ramps(2, 2))}
        draw = torch.Generator().manual_seed(0)
        shapes = {"train/pixels": (6, p.pixels(6), 6), "test/patches": (2, 4, 4, 6)}
        stored = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
        context: Any = MemoryContext(p, data, None)  # type: ignore[arg-type]
        context.features = stored.get
        found[limit] = PixelDepthMethod(p).run(context)
    assert found[2.5].details["max_depth_m"] == 2.5 and 2.5 < found[0.0].details["max_depth_m"] < 3.1
    assert found[2.5].head.use["far"] == 2.5 and found[2.5].head.use["near"] == preset("depth", "fast").min_depth  # type: ignore[union-attr]
    below = [int((data["test"].target(i) < 2.5).sum()) for i in range(2)]
    assert (found[0.0].samples["n"] == 32 * 40).all() and found[2.5].samples["n"].tolist() == below != [1280] * 2
    assert found[0.0].details["depths_read"]["test"]["counted"] == 1.0 and len(found[0.0].samples["ridge_rmse"]) == 2


def test_fields_that_do_nothing_are_refused_and_limits_are_above_one_another() -> None:
    check_view("encoder", 0)
    check_view("short-side", 256, 224)
    check_background("threshold", 0.3)
    for low, high in ((1.0, 0.0), (1.0, 1.01), (0.0, 0.0)):
        check_range("far", low, high)
    for high in (1.0, 0.5):
        with pytest.raises(ValueError, match=f"far = {high:g} is not above 1, where"):
            check_range("far", 1.0, high)
    for changes in ({"axes": (1, 1)}, {"axes": (1, 1, 0)}, {"rotate_p": 0.5}, {"unit_first": True}):
        with pytest.raises(ValueError, match="axes must|rotate_p must|unit_first has"):
            preset("normals", "paper", **changes)
    for loss, channels in (("uncertainty", 4), ("angular", 3), ("l2", 3)):
        assert preset("normals", "paper", loss=loss).channels_out == channels
    assert NORMALS.method(preset("normals", "paper")).dataset_options("scenes") == {}


def test_a_square_preset_of_windows_has_their_short_side_and_no_temperature() -> None:
    how: dict[str, Any] = {
        "interpolation": "bilinear",
        "window": 32,
        "stride": 24,
        "softmax": True,
        "templates": "tcl_9",
    }
    found = ZeroShotSegmentation("slide", 48, background="threshold", threshold=0.25, **how).aspect()
    assert {name: getattr(found, name) for name in how} == how
    rest = (found.mode, found.short_side, found.long_side, found.antialias, found.temperature)
    assert rest == ("slide", 48, 0, True, 1.0) and (found.background, found.threshold) == ("threshold", 0.25)
    with pytest.raises(ValueError, match="mode = slide needs view_size"):
        ZeroShotSegmentation("slide", 0, background="text", threshold=0.0, **how)


# ----------------------------------------------------------------------------------------------------------- vectors


def test_searches_are_of_everything_or_of_each_domain() -> None:
    data = SimpleNamespace(queries=range(3), query_domains=["b", "a", "b"], index_domains=["a", "b", "c", "b"])
    ((rows, columns),) = _searches(data, "merged")
    assert rows.tolist() == [0, 1, 2] and columns is None
    found = [(rows.tolist(), columns.tolist()) for rows, columns in _searches(data, "per-domain")]  # type: ignore[union-attr]
    assert found == [([1], [0]), ([0, 2], [1, 3])]


def test_vectors_of_cls_tokens_as_the_model_gives_them() -> None:
    tokens, mean = torch.randn(5, 3, 4), torch.randn(5, 2)
    right = {"first": tokens[:, 0], "last": tokens[:, 2], "mean": tokens.mean(1), "concat": tokens.flatten(1)}
    for choice, expected in right.items():
        torch.testing.assert_close(chosen(tokens, choice), expected)  # type: ignore[arg-type]
        raw = RawVectors(tokens, choice, mean)  # type: ignore[arg-type]
        assert raw.shape == (5, expected.shape[1] + 2) and len(raw) == 5
        torch.testing.assert_close(raw[1:4], torch.cat([expected, mean], 1)[1:4])
    assert curve_file([(5, 1.23456789), (10, 0.5)]) == b"step,loss\n5,1.23457\n10,0.5\n"
    assert Source.of({"blocks": 2, "mean_patch": True}) == Source(2, True)


def test_one_pictures_vector_is_what_its_stored_features_would_give() -> None:
    encoder, picture = SmallEncoder(), Noise(1).load(0)
    rule = encoder.transform.interpolation, encoder.transform.antialias
    pixels = torch.from_numpy(resize(picture, 32, 32, *rule).copy())
    plain = encoder.encode_image(pixels.permute(2, 0, 1)[None].float() / 255)
    found = vector_of(picture, View("square"), encoder, "cpu", Source(2, True), "first")
    # Of the small encoder the last layer is the output, and the one before it twice that.
    torch.testing.assert_close(found, torch.cat([2 * plain.cls[0, 0], plain.cls[0, 0], plain.patches[0].mean((0, 1))]))


def test_a_crop_is_a_random_box_resized_and_half_of_them_are_mirrored() -> None:
    feed, mirrored = feed_of(Noise(3), [np.array([0, 1, 2])] * 30), 0
    for step in range(30):
        left, top, right, bottom = random_box(40, 48, np.random.default_rng([0, step, 1]))
        cut = Noise(3).load(1)[top:bottom, left:right]
        plain = resize(cut, 32, 32, feed.transform.interpolation, feed.transform.antialias).transpose(2, 0, 1)
        found = feed.crop(step, 1)
        assert np.array_equal(found, plain) or np.array_equal(found, plain[..., ::-1])
        mirrored += not np.array_equal(found, plain)
    assert 8 <= mirrored <= 22 and feed.pictures == 3 and feed.steps == 30


def test_neighbours_that_are_more_than_the_training_pictures_are_left_out() -> None:
    p = preset("classification", "fast", ks=(1, 3, 4), headline_k=3, linear=False)
    vectors = UNIT(torch.randn(3, 1, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = np.array([0, 1, 1])
    data = {s: SimpleNamespace(images=Noise(3), labels=labels, class_names=["a", "b"]) for s in ("train", "test")}
    context: Any = MemoryContext(p, data, None)  # type: ignore[arg-type]
    context.features = lambda need: vectors
    outcome = CLASSIFICATION.method(p).run(context)
    assert [m.name for m in outcome.measurements] == ["kNN top-1", "kNN top-1 k=1"] and outcome.head is None
    assert outcome.samples["kNN hit k=1"].tolist() == [1, 1, 1]
    context.protocol = preset("classification", "fast", ks=(1, 4), headline_k=4, linear=False)
    with pytest.raises(DataError, match="the training split has 3 pictures, fewer than k = 4"):
        CLASSIFICATION.method(context.protocol).run(context)
    data["train"].labels = np.ones(3, int)
    with pytest.raises(DataError, match="every training picture is of one class"):
        CLASSIFICATION.method(p).run(context)
    for name, value, said in (("headline_k", 2, "headline_k 2 is not among"), ("view_size", 3, "view_size = 3 does")):
        fine: dict[str, Any] = {"ks": (1, 3), "headline_k": 3}
        with pytest.raises(ValueError, match=said):
            preset("classification", "fast", **(fine | {name: value}))
    card = SmallEncoder().card
    wide = {choice: preset("classification", "fast", cls=choice) for choice in ("first", "concat")}
    rows = {choice: CLASSIFICATION.method(of).head_rows(card, 9) for choice, of in wide.items()}
    assert rows == {"first": (9, 12), "concat": (9, 18)} and CLASSIFICATION.method(p).head_rows(card, 9) == (0, 0)


def test_the_head_of_a_sweep_reads_the_source_that_was_chosen(tmp_path: Path) -> None:
    """The last block tells the classes apart, the one before it is noise; sources are not in the order of names."""
    more: dict[str, Any] = {
        "blocks": (2, 1),
        "mean_patches": "without",
        "epochs": 1,
        "epoch_length": 60,
        "batch": 32,
        "holdout": 0.4,
    }
    p = preset("classification", "dinov2", augmentation="none", ks=(1,), headline_k=1, learning_rates=(0.1,), **more)
    labels, draw = np.arange(60) % 3, torch.Generator().manual_seed(0)
    data = {s: SimpleNamespace(images=Noise(60), labels=labels, class_names=list("abc")) for s in ("train", "test")}
    last = torch.eye(6)[labels][:, None] * 3 + 0.1 * torch.randn(60, 1, 6, generator=draw)
    older = {split: 30 * torch.randn(60, 1, 6, generator=draw) for split in data}
    context: Any = MemoryContext(p, data, tmp_path)
    context.features = lambda need: older[need.split("/")[0]] if need.endswith("block -2") else last
    outcome = CLASSIFICATION.method(p).run(context)
    assert outcome.details["linear_head"]["source"] == "cls of 1 block" and outcome.samples["linear hit"].all()
    assert [row["source"] for row in outcome.details["linear_sweep"]] == ["cls of 2 blocks", "cls of 1 block"]
    assert outcome.head is not None and outcome.head.arrays["weight"].shape == (3, 6)
    assert outcome.head.use == {"blocks": 1, "mean_patch": False, "names": ["a", "b", "c"]}
    assert outcome.files["curve.csv"].startswith(b"step,loss\n1,")


TEXT = {"image_to_text_retrieval", "text_to_image_retrieval", "zero_shot_classification", "zero_shot_segmentation"}
TRAINED = {"classification", "depth", "in_context_segmentation", "linear_segmentation", "normals"}


def test_every_preset_says_what_its_task_loads_trains_and_keeps() -> None:
    steps = {}
    for name in tasks():
        task = load_task(name)
        assert (task.trained, task.needs_text) == (name in TRAINED, name in TEXT), name
        for word in presets(protocol_file(name)):
            method = task.method(preset(name, word))
            assert method.splits() == (("train", "test") if name in TRAINED else ("test",)), (name, word)
            assert method.keeps_head is (name in TRAINED - {"in_context_segmentation"}), (name, word)
            steps[name, word] = method.head_steps()
    assert steps["classification", "paper"] == 10 * 1250 and steps["linear_segmentation", "paper"] == 40_000
    assert {name for name, count in steps.items() if not count} >= {(name, "fast") for name in tasks()}
    of = CLASSIFICATION.method(preset("classification", "paper", linear=False))
    assert of.keeps_head is False and of.crop_forwards(SmallEncoder().card, [], 9) == {}
    only = preset("linear_segmentation", "paper", voc_train="train")
    assert load_task("linear_segmentation").method(only).dataset_options("voc2012") == {"train": "train"}
