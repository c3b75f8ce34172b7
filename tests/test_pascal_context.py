"""PASCAL Context's three sources: mmsegmentation's masks, PASCAL in Detail's JSON, the authors' `.mat` files."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from miniatures import mask, pascal_context, pascal_detail, save_jpeg, save_png

from benchmark.cli import main
from benchmark.errors import DataError
from benchmark.registry import datasets, open_dataset, units

# `_mapping` of mmsegmentation's tools/dataset_converters/pascal_context.py, in its order.
MAPPING = [
    0, 2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296,
    427, 44, 45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220, 349,
    360, 98, 187, 104, 105, 366, 189, 368, 113, 115,
]  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def converted(strokes, height=24, width=32):
    """What the converter makes of a picture's annotations: Detail's getMask, then digitize on the sorted mapping."""
    labels = np.zeros((height, width))
    for category, inside in strokes:
        labels[np.nonzero(inside)] = category
    mapping = np.sort(np.array(MAPPING))
    assert np.isin(np.unique(labels), mapping).all()
    return np.arange(len(mapping)).astype("uint8")[np.digitize(labels.ravel(), mapping, right=True)].reshape(24, 32)


def strokes(seed):
    """Every category once, in a random order, as overlapping random shapes; some pixels stay unlabelled."""
    rng = np.random.default_rng(seed)
    order = rng.permutation([c for c in MAPPING if c])
    return [(int(c), mask(1000 * seed + int(c), 24) == 0) for c in order]


@pytest.fixture
def detail(tmp_path):
    """A data folder with PASCAL in Detail's file and VOC 2010's pictures: three of val, not in order, two of train."""
    pictures = {f"2008_00000{i}": ("train" if i in (1, 3) else "val", strokes(i)) for i in (4, 1, 0, 3, 2)}
    folder = tmp_path / "pascal_context"
    pascal_detail(folder / "trainval_merged.json", pictures)
    for i, stem in enumerate(pictures):
        save_jpeg(folder / f"VOCdevkit/VOC2010/JPEGImages/{stem}.jpg", i)
    return tmp_path, {s: marks for s, (phase, marks) in sorted(pictures.items()) if phase == "val"}


def test_context_from_the_json_is_what_the_converter_makes_of_it(detail):
    root, pictures = detail
    pc60 = open_dataset("pc60", root).data("segmentation", "test")
    pc59 = pickle.loads(pickle.dumps(open_dataset("pc59", root).data("segmentation", "test")))
    assert [pc60.images.image_id(i)[-15:-4] for i in range(3)] == list(pictures) and len(pc59.images) == 3
    for i, marks in enumerate(pictures.values()):
        expected = converted(marks)
        assert len(np.unique(expected)) > 20
        np.testing.assert_array_equal(pc60.target(i), expected)
        np.testing.assert_array_equal(pc59.target(i), np.where(expected == 0, 255, expected - 1))
    assert pc60.digest != pc59.digest and "trainval_merged.json" in pc60.truth


def test_context_from_the_converters_masks_has_the_same_labels(detail):
    root, pictures = detail
    voc = root / "pascal_context/VOCdevkit/VOC2010"
    by_json = [open_dataset("pc60", root).data("segmentation", "test").target(i) for i in range(3)]
    for stem, marks in pictures.items():
        save_png(voc / f"SegmentationClassContext/{stem}.png", converted(marks))
    (voc / "ImageSets/SegmentationContext").mkdir(parents=True)
    (voc / "ImageSets/SegmentationContext/val.txt").write_text("".join(f"{s}\n" for s in pictures))
    (root / "pascal_context/trainval_merged.json").unlink()
    found = open_dataset("pc60", root).data("segmentation", "test")
    assert found.truth.startswith("SegmentationClassContext") and found.masks.name(0).endswith(".png")
    assert all((found.target(i) == by_json[i]).all() for i in range(3))


def test_context59_is_pc59_with_the_training_pictures(detail):
    """From either source; only in-context segmentation is meant by its name."""
    root, _ = detail
    voc, data = root / "pascal_context/VOCdevkit/VOC2010", open_dataset("context59", root)
    train, test = data.data("segmentation", "train"), data.data("segmentation", "test")
    assert [train.images.image_id(i)[-15:-4] for i in range(len(train.images))] == ["2008_000001", "2008_000003"]
    assert test.digest == open_dataset("pc59", root).data("segmentation", "test").digest != train.digest
    expected = [np.where(mask == 0, 255, mask.astype(int) - 1) for mask in (converted(strokes(i)) for i in (1, 3))]
    assert all((train.target(i) == expected[i]).all() for i in range(2))
    assert [str(unit) for unit in units("context59")] == ["in_context_segmentation/context59"]
    for i in (1, 3):
        save_png(voc / f"SegmentationClassContext/2008_00000{i}.png", converted(strokes(i)))
    (voc / "ImageSets/SegmentationContext").mkdir(parents=True)
    (voc / "ImageSets/SegmentationContext/train.txt").write_text("2008_000001\n2008_000003\n")
    (root / "pascal_context/trainval_merged.json").unlink()
    found = open_dataset("context59", root).data("segmentation", "train")
    assert found.truth.startswith("SegmentationClassContext")
    assert all((found.target(i) == expected[i]).all() for i in range(2))
    with pytest.raises(DataError, match=r"context59: no trainval_merged.json and no .*SegmentationContext/val.txt"):
        open_dataset("context59", root).data("segmentation", "test")


@pytest.mark.parametrize("place", ["pascal_context/VOCdevkit/VOC2010", "pascal_context/VOCdevkit", "."])
def test_the_json_may_lie_where_mmsegmentation_has_it_and_the_pictures_in_their_tar(detail, place):
    root, _ = detail
    plain = open_dataset("pc59", root).data("segmentation", "test")
    digest, labels = plain.digest, plain.target(1)
    shutil.move(root / "pascal_context/trainval_merged.json", root / place / "trainval_merged.json")
    assert open_dataset("pc59", root).data("segmentation", "test").digest == digest
    shutil.move(root / place / "trainval_merged.json", root / "pascal_context/trainval_merged.json")
    with tarfile.open(root / "pascal_context/VOCtrainval_03-May-2010.tar", "w") as archive:
        archive.add(root / "pascal_context/VOCdevkit", "VOCdevkit")
    shutil.rmtree(root / "pascal_context/VOCdevkit")
    packed = open_dataset("pc59", root).data("segmentation", "test")
    assert packed.digest == digest and (packed.target(1) == labels).all()


def test_a_changed_json_is_read_again(detail):
    root, _ = detail
    before = open_dataset("pc59", root).data("segmentation", "test")
    path = root / "pascal_context/trainval_merged.json"
    content = json.loads(path.read_text())
    content["annos_segmentation"].reverse()
    path.write_text(json.dumps(content))
    after = open_dataset("pc59", root).data("segmentation", "test")
    assert before.digest != after.digest and (before.target(0) != after.target(0)).any()


def test_runs_in_cocos_plain_form_are_read_and_damaged_ones_named(detail):
    root, _ = detail
    path = root / "pascal_context/trainval_merged.json"
    content = json.loads(path.read_text())
    one = {**content["annos_segmentation"][0], "segmentation": {"size": [24, 32], "counts": [24, 48, 696]}}
    content["annos_segmentation"] = [one]
    path.write_text(json.dumps(content))
    data = open_dataset("pc60", root).data("segmentation", "test")
    labels = data.target(2)
    assert (labels[:, 1:3] == converted([(one["category_id"], np.ones((24, 32)))])[0, 0]).all()
    assert (labels[:, 0] == 0).all() and (labels[:, 3:] == 0).all() and (data.target(0) == 0).all()
    for counts in ("zz99", "", [24, 48], [1000, 2]):
        one["segmentation"]["counts"] = counts
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=f"the run lengths of category {one['category_id']} are damaged"):
            open_dataset("pc60", root).data("segmentation", "test").target(2)


def test_a_category_that_the_converter_does_not_know_is_refused_and_a_covered_one_is_not(detail):
    root, pictures = detail
    everywhere = np.ones((24, 32), bool)
    path = root / "pascal_context/trainval_merged.json"
    pascal_detail(path, {s: ("val", [(431, everywhere), (2, everywhere)]) for s in pictures})
    assert (open_dataset("pc60", root).data("segmentation", "test").target(0) == 1).all()
    pascal_detail(path, {s: ("val", [(2, everywhere), (431, everywhere)]) for s in pictures})
    with pytest.raises(DataError, match="label 431 is out of range"):
        open_dataset("pc60", root).data("segmentation", "test").target(0)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', '{"images": [{}], "annos_segmentation": []}'])
def test_another_json_is_named(detail, text):
    root, _ = detail
    (root / "pascal_context/trainval_merged.json").write_text(text)
    with pytest.raises(DataError, match=r"trainval_merged\.json: is not PASCAL in Detail's"):
        open_dataset("pc60", root).data("segmentation", "test")


def test_context_with_and_without_background(tmp_path):
    pascal_context(tmp_path)
    with_background = open_dataset("pc60", tmp_path).data("segmentation", "test")
    without = open_dataset("pc59", tmp_path).data("segmentation", "test")
    raw, a, b = mask(0, 60), with_background.target(0), without.target(0)
    assert with_background.background == 0 and without.background is None
    assert (a == raw).all() and (b[raw == 0] == 255).all() and (b[raw > 0] == raw[raw > 0] - 1).all()
    assert with_background.images.digest == without.images.digest and with_background.digest != without.digest


def test_the_authors_own_labels_are_another_data_set(tmp_path):
    pascal_context(tmp_path, raw=True)
    data = open_dataset("pc60-mat", tmp_path).data("segmentation", "test")
    names = np.array(data.class_names)
    assert names[data.target(0)[[0, 0, 23, 23], [0, 31, 0, 31]]].tolist() == ["aeroplane", "bag", "background", "wood"]
    assert open_dataset("pc59-mat", tmp_path).data("segmentation", "test").target(0)[23, 0] == 255
    for name in ("pc59", "pc60"):
        with pytest.raises(DataError, match=f"no trainval_merged.json.*rows of its own: --task {name}-mat"):
            open_dataset(name, tmp_path).data("segmentation", "test")
    assert {u.dataset for u in units("zero_shot_segmentation")} == {"scenes", "ade150", "voc21", "pc59", "pc60"}
    assert [str(u) for u in units("pc60-mat")] == ["zero_shot_segmentation/pc60-mat"]


def test_counts_follow_the_ground_truth():
    counts = {name: datasets()[name]["counts"]["test"] for name in ("pc59", "pc60", "pc59-mat", "pc60-mat")}
    assert counts == {"pc59": 5104, "pc60": 5104, "pc59-mat": 5105, "pc60-mat": 5105}
    for name in ("pc59", "pc60"):
        fetched = [item["to"] for item in datasets()[name]["fetch"]]
        assert "pascal_context/trainval_merged.json" in fetched and not any("trainval.tar" in t for t in fetched)


def test_show_prepare_and_the_row_say_which_ground_truth_it_is(detail, capsys):
    root, _ = detail
    for words in (["show", "pc59"], ["data", "prepare", "pc59", "--offline", "--data", str(root / "nothing")]):
        with pytest.raises(SystemExit):
            main(words)
        assert "trainval_merged.json of PASCAL in Detail" in capsys.readouterr().out
    run = ["run", "--model", "random-vit", "--task", "pc60", "--data", str(root), "--results", str(root / "rows")]
    with pytest.raises(SystemExit) as stop:
        main([*run, "--limit", "2", "--offline", "--no-check"])
    assert stop.value.code == 0, capsys.readouterr().err
    (row,) = (root / "rows").rglob("result.json")
    assert json.loads(row.read_text())["task"]["ground_truth"].startswith("trainval_merged.json of PASCAL in Detail")
