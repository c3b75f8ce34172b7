"""`--task mmseg:FILE`: mmsegmentation dataset configs as tasks."""

from __future__ import annotations

from pathlib import Path

import miniatures
import numpy as np
import pytest

from benchmark.cli import main
from benchmark.engine.load_task import load_task
from benchmark.engine.suites import choose
from benchmark.errors import DataError, UsageError
from benchmark.registry import open_dataset, units
from benchmark.rows.row import read_all
from tasks.mm.datasets import open_config

OWN = """
classes = ("ground", "leaf", "apple")
def split(name):
    return dict(type="BaseSegDataset", data_root={root!r}, metainfo=dict(classes=classes, palette=[[0, 0, 0]] * 3),
                data_prefix=dict(img_path=name + "/images", seg_map_path=name + "/masks"){more})
train_dataloader = dict(batch_size=4, dataset=split("train"))
val_dataloader = dict(batch_size=1, dataset=split("test"))
"""


def own_data(folder: Path) -> Path:
    for split, count in (("train", 4), ("test", 3)):
        for i in range(count):
            miniatures.save_jpeg(folder / split / "images" / f"{i}.jpg", i + 10 * (split == "test"))
            miniatures.save_png(folder / split / "masks" / f"{i}.png", miniatures.mask(i, 3))
    return folder


def config(path: Path, root: Path, more: str = "") -> Path:
    path.write_text(OWN.format(root=str(root), more=more))
    return path


def test_a_config_called_like_one_of_our_datasets_has_rows_of_its_own() -> None:
    (theirs,) = units("mmseg:configs/_base_/datasets/ade20k.py")
    assert str(theirs) == "linear_segmentation/mmseg-ade20k" and units("ade20k")[0].dataset == "ade20k"
    assert str(units("mmseg:configs/cityscapes.py")[0]) == "linear_segmentation/cityscapes"


def test_released_ade20k_config_gives_the_data_of_our_reader(tmp_path):
    root = miniatures.ade20k(tmp_path)
    file = tmp_path / "ade.py"
    file.write_text(
        "_base_ = ['mmseg::_base_/datasets/ade20k.py']\n"
        f"data_root = {str(root)!r}\n"
        "train_dataloader = dict(dataset=dict(data_root=data_root))\n"
        "val_dataloader = dict(dataset=dict(data_root=data_root))\ntest_dataloader = val_dataloader\n"
    )
    theirs, ours = open_config(str(file)), open_dataset("ade20k", tmp_path)
    for split in ("train", "test"):
        a, b = theirs.data("segmentation", split), ours.data("segmentation", split)
        assert len(a.images) == len(b.images) and len(a.class_names) == 150
        for i in range(len(a.images)):
            assert a.images.image_id(i).split("/")[-1] == b.images.image_id(i).split("/")[-1]
            np.testing.assert_array_equal(a.images.load(i), b.images.load(i))
            np.testing.assert_array_equal(a.target(i), b.target(i))


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_own_config_runs_by_both_presets(tmp_path, preset):
    file = config(tmp_path / "orchard.py", own_data(tmp_path / "data"))
    sets = [] if preset == "fast" else ["steps=2", "batch_size=2", "crop=32", "short_side=32", "window=32", "stride=16"]
    line = ["run", "--model", "pixels", "--task", f"mmseg:{file}", "--protocol", preset, "--cross-check", "--no-check"]
    with pytest.raises(SystemExit) as stop:
        main([*line, *(w for s in sets for w in ("--set", s)), "--results", str(tmp_path / "r")])
    assert not stop.value.code
    (row,), _ = read_all(tmp_path / "r")
    assert row.unit == "linear_segmentation/orchard" and row.data.task.n == 3
    assert list(row.data.details["per_class_iou"]) == ["ground", "leaf", "apple"]


def test_two_configs_of_one_name_are_refused_in_one_run(tmp_path):
    words = [f"mmseg:{tmp_path}/{folder}/orchard.py" for folder in ("a", "b")]
    with pytest.raises(UsageError, match="a/orchard.py and .*b/orchard.py are both called linear_segmentation/orchard"):
        choose(words, None)


def test_joined_and_repeated_datasets_and_a_subset_of_classes(tmp_path):
    root = own_data(tmp_path / "data")
    file = tmp_path / "joined.py"
    file.write_text(
        f"root = {str(root)!r}\n"
        "def part(s):\n"
        "    return dict(type='ADE20KDataset', data_root=root, metainfo=dict(classes=('building', 'wall')),\n"
        "                data_prefix=dict(img_path=s + '/images', seg_map_path=s + '/masks'))\n"
        "two = dict(type='ConcatDataset', datasets=[part('train'), part('test')])\n"
        "train_dataloader = dict(dataset=dict(type='RepeatDataset', times=9, dataset=two))\n"
        "test_dataloader = dict(dataset=part('test'))\n"
    )
    data = open_config(str(file)).data("segmentation", "train")
    assert len(data.images) == 7 and data.class_names == ("building", "wall")
    raw = miniatures.mask(0, 3)  # ADE20K's raw labels: 0 other, 1 wall, 2 building
    np.testing.assert_array_equal(data.target(0), np.select([raw == 2, raw == 1], [0, 1], 255))


def test_zero_label_is_ignored_and_the_rest_move_down(tmp_path):
    root = own_data(tmp_path / "data")
    file = config(tmp_path / "c.py", root, ", reduce_zero_label=True")
    target = open_config(str(file)).data("segmentation", "test").target(1)
    raw = miniatures.mask(1, 3).astype(int)
    np.testing.assert_array_equal(target, np.where(raw == 0, 255, raw - 1))


def test_a_test_set_without_masks_leaves_the_validation_set(tmp_path):
    root = own_data(tmp_path / "data")
    file = config(tmp_path / "c.py", root)
    challenge = "test_dataloader = dict(dataset=split('train'))\n"
    challenge += "del test_dataloader['dataset']['data_prefix']['seg_map_path']\n"
    file.write_text(file.read_text() + challenge)
    data = open_config(str(file)).data("segmentation", "test")
    assert data.images.blobs.root.endswith("data/test/images") and len(data.images) == 3


def test_a_score_over_one_class_is_refused(tmp_path, capsys):
    """Masks of 0 and 255 as drawn by hand: 255 is ignored, and 100 % would be the background's alone."""
    root = own_data(tmp_path / "data")
    for mask in root.glob("*/masks/*.png"):
        miniatures.save_png(mask, miniatures.mask(int(mask.stem), 2) * 255)
    file = config(tmp_path / "vessels.py", root)
    words = ["run", "--model", "pixels", "--task", f"mmseg:{file}", "--no-check", "--results", str(tmp_path / "r")]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1 and "every training pixel is of class 0" in capsys.readouterr().err


def test_change_detection_is_refused(tmp_path):
    root = own_data(tmp_path / "data")
    folders = "dict(img_path='train/images', img_path2='train/images', seg_map_path='train/masks')"
    file = tmp_path / "change.py"
    more = f"img_suffix='.jpg', img_suffix2='.jpg', data_root={str(root)!r}, data_prefix={folders}"
    file.write_text(f"test_dataloader = dict(dataset=dict(type='LEVIRCDDataset', {more}))")
    with pytest.raises(UsageError, match="LEVIRCDDataset compares two pictures"):
        open_config(str(file)).data("segmentation", "test")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (None, UsageError, "no such file"),
        ("x = 1 +", UsageError, "cannot be run as a config"),
        ("x = 1", UsageError, "defines no dataset"),
        ("test_dataloader = dict(dataset=dict(type='ADE20KDataste'))", UsageError, "Did you mean 'ADE20KDataset'"),
        ("test_dataloader = dict(dataset=dict(type='ADE20KDataset', data_root='/nowhere'))", DataError,
         "no folder /nowhere"),
        ("test_dataloader = dict(dataset=dict(type='PascalVOCDataset', ann_file='a.txt'))", DataError,
         "Check data_root and ann_file"),
        ("test_dataloader = dict(dataset=dict(type='ADE20KDataset', oops=1))", UsageError, "cannot be built"),
        ("test_dataloader = dict(dataset=dict(type='BaseSegDataset', data_root='ROOT'))", UsageError, "has no classes"),
        ("test_dataloader = dict(dataset=dict(type='BaseSegDataset', data_root='ROOT', metainfo=dict(classes=('a',)),"
         " data_prefix=dict(img_path='test/images')))", DataError, "has no masks to score"),
        ("test_dataloader = dict(dataset=dict(type='BaseSegDataset', data_root='ROOT', img_suffix='.bmp',"
         " metainfo=dict(classes=('a', 'b'))))", DataError, "has no picture"),
        ("test_dataloader = dict(dataset=dict(type='BaseSegDataset', data_root='ROOT', metainfo=dict(classes=('a',)),"
         " data_prefix=dict(img_path='test/images', seg_map_path='train')))", DataError, "which is not there"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, text, kind, message):
    root = own_data(tmp_path / "data")
    file = tmp_path / "c.py"
    if text is not None:
        file.write_text(text.replace("ROOT", str(root)))
    with pytest.raises(kind, match=message) as caught:
        open_config(str(file)).data("segmentation", "test")
    assert "\n" not in str(caught.value)


def test_missing_training_data_is_wrong_usage(tmp_path):
    file = tmp_path / "only_test.py"
    file.write_text(f"test_dataloader = dict(dataset=dict(type='ADE20KDataset', data_root={str(tmp_path)!r}))")
    with pytest.raises(UsageError, match="has no train dataset"):
        load_task(f"mmseg:{file}")


@pytest.mark.parametrize("count", [256, 257, 300, 1000])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_set_of_more_than_255_classes_has_a_class_255(tmp_path, count, shift):
    names = tuple(f"c{i}" for i in range(count))
    raw = np.arange(count + shift, dtype=np.uint16)[None].repeat(2, 0)
    for split in ("train", "test"):
        miniatures.save_jpeg(tmp_path / split / "images/0.jpg", 0, 2, count + shift)
        miniatures.save_png(tmp_path / split / "masks/0.png", raw)
    file = config(tmp_path / "c.py", tmp_path, f", reduce_zero_label={bool(shift)}")
    file.write_text(
        file.read_text().replace('("ground", "leaf", "apple")', repr(names)).replace("]] * 3", f"]] * {count}")
    )
    target = open_config(str(file)).data("segmentation", "test").target(0)
    np.testing.assert_array_equal(target, raw.astype(int) - shift)  # -1, which is ignored, for a reduced 0


@pytest.mark.parametrize(("reduce", "ignore"), [(False, 0), (True, 0), (False, 2), (True, 255), (False, 65535)])
def test_labels_are_those_of_mmsegmentations_own_pipeline(tmp_path, reduce, ignore):
    """A dataset's ignore_index is a field it stores: no label is dropped for it."""
    from mmengine.registry import init_default_scope
    from mmseg.datasets import BaseSegDataset

    root = own_data(tmp_path / "data")
    raw = miniatures.mask(1, 3 + reduce)
    raw[:2] = 255
    miniatures.save_png(root / "test/masks/1.png", raw)
    file = config(tmp_path / "c.py", root, f", reduce_zero_label={reduce}, ignore_index={ignore}")
    init_default_scope("mmseg")
    theirs = BaseSegDataset(
        data_root=str(root), data_prefix={"img_path": "test/images", "seg_map_path": "test/masks"},
        metainfo={"classes": ("ground", "leaf", "apple")}, reduce_zero_label=reduce, ignore_index=ignore,
        pipeline=[{"type": "LoadAnnotations"}],
    )  # fmt: skip
    found = open_config(str(file)).data("segmentation", "test").target(1)
    np.testing.assert_array_equal(found, theirs[1]["gt_seg_map"])
    assert set(np.unique(found)) == {0, 1, 2, 255}


@pytest.mark.parametrize("name", ["c.yaml", "c.yml", "c.json", "c"])
def test_only_a_python_config_is_read(tmp_path, name):
    (tmp_path / name).write_text("train_dataloader: !!python/object/apply:os.mkdir ['made']")
    with pytest.raises(UsageError, match=rf"{name}: only a Python config is read \(it is run\)"):
        open_config(str(tmp_path / name))
