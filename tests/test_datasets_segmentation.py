"""ADE20K, PASCAL VOC and PASCAL Context in their official layouts."""

from __future__ import annotations

import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from miniatures import ade20k, mask, save_png, voc2012

from benchmark.data.tolerance import tolerating
from benchmark.errors import DataError, UsageError
from benchmark.registry import open_dataset
from tasks.datasets import digests
from tasks.datasets.places import gaps_in


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def test_ade_label_zero_is_ignored_and_the_rest_shift_down(tmp_path):
    ade20k(tmp_path)
    data = open_dataset("ade20k", tmp_path).data("segmentation", "train")
    raw = mask(0, 151)
    target = data.target(0)
    assert len(data.images) == 4 and len(data.class_names) == 150
    assert data.class_names[:3] == ("wall", "building", "sky") and data.class_names[7] == "bed"
    assert target.dtype == np.uint8 and (target[raw == 0] == 255).all() and (target[raw > 0] == raw[raw > 0] - 1).all()
    assert data.images.load(1).shape == (28, 32, 3) == (*data.target(1).shape, 3)
    assert data.images.image_id(0) == "images/training/ADE_train_00000001.jpg"


@pytest.mark.parametrize("where", ["ade20k/ADEChallengeData2016", "ADEChallengeData2016", "elsewhere"])
def test_official_folder_is_found_at_every_documented_place(tmp_path, where):
    root = ade20k(tmp_path / "made")
    shutil.copytree(root, tmp_path / "data" / where)
    data = tmp_path / "data" if where != "elsewhere" else tmp_path / "data" / "elsewhere"
    assert len(open_dataset("ade150", data).data("segmentation", "test").images) == 3


def test_zip_and_folder_hold_the_same_pictures_and_digests(tmp_path):
    root = ade20k(tmp_path / "folder")
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "ADEChallengeData2016.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.*")):
            archive.write(path, path.relative_to(root.parent))
    plain = open_dataset("ade20k", tmp_path / "folder").data("segmentation", "test")
    packed = open_dataset("ade20k", tmp_path / "zip").data("segmentation", "test")
    assert plain.digest == packed.digest and plain.images.digest == packed.images.digest
    for i in range(3):
        assert (plain.images.load(i) == packed.images.load(i)).all() and (plain.target(i) == packed.target(i)).all()
    again = pickle.loads(pickle.dumps(packed))
    assert again.digest == packed.digest and (again.target(2) == packed.target(2)).all()
    assert not list((tmp_path / "zip").glob("*/"))


def test_hub_parquet_gives_the_same_masks(tmp_path):
    root = ade20k(tmp_path / "folder")
    names = sorted(p.stem for p in (root / "images/validation").iterdir())
    table = {
        "image": [{"bytes": (root / f"images/validation/{n}.jpg").read_bytes(), "path": f"{n}.jpg"} for n in names],
        "annotation": [{"bytes": (root / f"annotations/validation/{n}.png").read_bytes(), "path": ""} for n in names],
    }
    (tmp_path / "hub" / "ade20k" / "data").mkdir(parents=True)
    pq.write_table(pa.table(table), tmp_path / "hub/ade20k/data/validation-00000-of-00001.parquet", row_group_size=2)
    plain = open_dataset("ade150", tmp_path / "folder").data("segmentation", "test")
    hub = pickle.loads(pickle.dumps(open_dataset("ade150", tmp_path / "hub").data("segmentation", "test")))
    assert len(hub.images) == 3 and len(hub.digest) == 64
    assert all((plain.target(i) == hub.target(i)).all() for i in range(3))
    assert all((plain.images.load(i) == hub.images.load(i)).all() for i in range(3))


def test_digest_follows_content_order_and_nothing_else(tmp_path):
    root = ade20k(tmp_path / "a")
    first = open_dataset("ade20k", tmp_path / "a").data("segmentation", "train")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copied = open_dataset("ade20k", tmp_path / "b").data("segmentation", "train")
    assert first.digest == copied.digest
    save_png(root / "annotations/training/ADE_train_00000002.png", mask(9, 151, 28, 32))
    changed = open_dataset("ade20k", tmp_path / "a").data("segmentation", "train")
    assert changed.digest != first.digest and changed.images.digest == first.images.digest


def test_missing_mask_names_the_first_path_and_both_counts(tmp_path):
    root = ade20k(tmp_path)
    (root / "annotations/training/ADE_train_00000003.png").unlink()
    with pytest.raises(
        DataError, match=r"ADE_train_00000003.png is missing; 3 of 4 files are there.*bench data verify"
    ):
        open_dataset("ade20k", tmp_path).data("segmentation", "train")


def test_absent_dataset_names_the_command_that_helps(tmp_path):
    with pytest.raises(DataError, match=r"ade20k: no ADEChallengeData2016/images/training under .*bench data prepare"):
        open_dataset("ade20k", tmp_path).data("segmentation", "train")


def test_label_out_of_range_and_wrong_size_name_the_file(tmp_path):
    root = ade20k(tmp_path)
    save_png(root / "annotations/training/ADE_train_00000001.png", np.full((24, 32), 200, np.uint8))
    save_png(root / "annotations/training/ADE_train_00000002.png", mask(0, 151, 20, 20))
    data = open_dataset("ade20k", tmp_path).data("segmentation", "train")
    with pytest.raises(DataError, match=r"ADE_train_00000001.png: label 200 is out of range for 150 classes"):
        data.target(0)
    with pytest.raises(DataError, match=r"ADE_train_00000002.png: is 20x20, its image .*00000002.jpg is 32x28"):
        data.target(1)


def test_colour_mask_and_damaged_files_name_the_file(tmp_path):
    root = ade20k(tmp_path)
    save_png(root / "annotations/training/ADE_train_00000001.png", np.zeros((24, 32, 3), np.uint8))
    damaged = root / "annotations/training/ADE_train_00000002.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    picture = root / "images/training/ADE_train_00000003.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    data = open_dataset("ade20k", tmp_path).data("segmentation", "train")
    for call, name in (
        (data.target, "00000001.png"),
        (data.target, "00000002.png"),
        (data.images.load, "00000003.jpg"),
    ):
        with pytest.raises(DataError, match=name):
            call(int(name[7]) - 1)


def test_voc_border_is_ignored_and_background_is_class_zero(tmp_path):
    voc2012(tmp_path)
    data = open_dataset("voc21", tmp_path).data("segmentation", "test")
    target = data.target(1)
    assert data.background == 0 and data.class_names[0] == "background" and len(data.class_names) == 21
    assert (target[0] == 255).all() and (target[1:-1, 1:-1] == mask(1, 21)[1:-1, 1:-1]).all()


def test_voc_augmented_list_keeps_own_masks_and_leaves_the_validation_images_out(tmp_path):
    voc2012(tmp_path)
    plain = open_dataset("voc2012", tmp_path).data("segmentation", "train")
    data = open_dataset("voc2012", tmp_path, {"train": "trainaug"}).data("segmentation", "train")
    assert len(plain.images) == 3 and len(data.images) == 5
    assert [data.masks.name(i)[-4:] for i in range(5)] == [".png"] * 3 + [".mat"] * 2
    assert (data.target(4) == mask(51, 21)).all() and plain.digest != data.digest


def test_voc_option_out_of_its_choices_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="trainaug"):
        open_dataset("voc2012", tmp_path, {"train": "trainagu"})
    with pytest.raises(UsageError, match="no option 'crop'"):
        open_dataset("voc2012", tmp_path, {"crop": "1"})


def test_voc_tar_is_read_in_place(tmp_path):
    voc2012(tmp_path / "folder")
    (tmp_path / "tar").mkdir()
    with tarfile.open(tmp_path / "tar" / "VOCtrainval_11-May-2012.tar", "w") as archive:
        archive.add(tmp_path / "folder" / "voc2012" / "VOCdevkit", "VOCdevkit")
    plain = open_dataset("voc21", tmp_path / "folder").data("segmentation", "test")
    packed = open_dataset("voc21", tmp_path / "tar").data("segmentation", "test")
    assert plain.digest == packed.digest and (plain.target(0) == packed.target(0)).all()


def test_large_sets_are_digested_by_their_edges_in_folders_and_archives_alike(tmp_path, monkeypatch):
    root = ade20k(tmp_path / "folder")
    full = open_dataset("ade150", tmp_path / "folder").data("segmentation", "test").digest
    monkeypatch.setattr(digests, "FULL_LIMIT", 10)
    monkeypatch.setattr(digests, "EDGE", 64)
    plain = open_dataset("ade150", tmp_path / "folder").data("segmentation", "test")
    for suffix in ("zip", "tar"):
        (tmp_path / suffix).mkdir()
        if suffix == "zip":
            with zipfile.ZipFile(tmp_path / "zip" / "ADEChallengeData2016.zip", "w") as archive:
                for path in sorted(root.rglob("*.*")):
                    archive.write(path, path.relative_to(root.parent))
        else:
            with tarfile.open(tmp_path / "tar" / "ADEChallengeData2016.tar", "w") as archive:
                archive.add(root, root.name)
        packed = open_dataset("ade150", tmp_path / suffix).data("segmentation", "test")
        assert packed.digest == plain.digest != full
    picture = root / "images/validation/ADE_val_00000001.jpg"
    picture.write_bytes(picture.read_bytes()[:-3] + b"\0\0\0")
    assert open_dataset("ade150", tmp_path / "folder").data("segmentation", "test").digest != plain.digest


def test_second_digest_reads_no_file_again(tmp_path, monkeypatch):
    ade20k(tmp_path)
    first = open_dataset("ade150", tmp_path).data("segmentation", "test").digest
    monkeypatch.setattr(digests, "_hash_file", lambda row: pytest.fail(f"read {row[0]} again"))
    assert open_dataset("ade150", tmp_path).data("segmentation", "test").digest == first


def test_damaged_digest_cache_is_made_again(tmp_path, monkeypatch):
    ade20k(tmp_path)
    first = open_dataset("ade150", tmp_path).data("segmentation", "test").digest
    (tmp_path / "cache" / "digests" / "files.sqlite").write_bytes(b"not a database" * 100)
    assert open_dataset("ade150", tmp_path).data("segmentation", "test").digest == first
    monkeypatch.setattr(digests, "_hash_file", lambda row: pytest.fail(f"read {row[0]} again"))
    assert open_dataset("ade150", tmp_path).data("segmentation", "test").digest == first


@pytest.mark.parametrize("half", ["images", "annotations"])
def test_half_a_pair_is_refused_or_left_out_in_plain_sight(tmp_path, half):
    root = ade20k(tmp_path, test=4)
    lost = next((root / half / "validation").glob("ADE_val_00000002.*"))
    lost.unlink()
    with pytest.raises(DataError, match=f"{lost.name} is missing; 3 of 4 files are there.*--max-bad 1"):
        open_dataset("ade20k", tmp_path).data("segmentation", "test")
    with tolerating(missing=1):
        data = open_dataset("ade20k", tmp_path).data("segmentation", "test")
    with pytest.raises(DataError, match=lost.name):
        data.images.load(1), data.target(1)
    assert data.target(2).shape == data.images.load(2).shape[:2]
    digest = data.digest
    (root / half / "validation" / lost.name).with_name("ADE_val_00000003" + lost.suffix).unlink()
    with tolerating(missing=2):
        assert open_dataset("ade20k", tmp_path).data("segmentation", "test").digest != digest


def test_a_numbered_set_that_lost_pictures_is_refused_a_small_part_is_marked(tmp_path, monkeypatch, caplog):
    root = ade20k(tmp_path, test=4)
    for kind in ("images", "annotations"):
        next((root / kind / "validation").glob("ADE_val_00000002.*")).unlink()
    opened = open_dataset("ade20k", tmp_path)
    with tolerating() as allowed:
        opened.data("segmentation", "test")
    text = "3 images found, the official split has 2000; first missing: ADE_val_00000002"
    assert text in caplog.text and allowed.short == ["ade20k test: 3 of 2000 images"] and not allowed.absent
    monkeypatch.setattr("tasks.datasets.ade20k.expected", lambda name, split: 5)
    with pytest.raises(DataError, match="official split has 5; first missing: ADE_val_00000002.*--max-bad 2"):
        opened.data("segmentation", "test")
    with tolerating(missing=2) as allowed:
        opened.data("segmentation", "test")
    assert allowed.absent == ["ADE_val_00000002 is not there", "ADE_val_00000005 is not there"] and not allowed.short
    with tolerating(part=True):
        assert len(opened.data("segmentation", "test").images) == 3


def test_only_numbered_names_have_gaps():
    assert gaps_in(["a/x_1.jpg", "a/x_3.jpg"], 3) == ["x_2"]
    assert gaps_in(["x_1.jpg", "x_2.jpg"], 2) == []
    assert gaps_in(["x_1.jpg", "y_2.jpg"], 3) == [] and gaps_in(["cat.jpg"], 3) == []
