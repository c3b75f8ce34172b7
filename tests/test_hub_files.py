"""The hub's layouts as they lie today, parts that are missing, and a fetch that fails, stops or goes on."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import miniatures as mini
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_datasets_readers import add_bytes, check_imagenet, image_struct

from benchmark.data.tolerance import tolerating
from benchmark.errors import DataError
from benchmark.registry import open_dataset
from tasks.datasets.parts import absent_parts


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def write(path: Path, columns: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)


# ------------------------------------------------------------------------------------- parquet layouts


@pytest.fixture
def photos(tmp_path):
    """Six encoded ImageNet pictures of the miniature and their labels."""
    root = mini.imagenet(tmp_path / "folder")
    files = sorted((root / "val").rglob("*.JPEG"))
    return [image_struct(f) for f in files], [0, 0, 1, 1, 999, 999]


@pytest.mark.parametrize(
    "names",
    [
        ("default/validation/0000.parquet", "default/validation/0001.parquet"),
        ("validation/0000.parquet", "validation/0001.parquet"),
        ("clean/val/0000.parquet", "clean/val/0001.parquet"),
        ("data/validation/0000.parquet", "data/validation/0001.parquet"),
        ("full/validation-00000-of-00002.parquet", "full/validation-00001-of-00002.parquet"),
        ("data/val-00000-of-00002-0a1b2c3d4e5f6789.parquet", "data/val-00001-of-00002-9876543210abcdef.parquet"),
    ],
)
def test_imagenet_parquet_is_read_in_every_layout_of_the_hub(tmp_path, photos, names):
    images, labels = photos
    for name, rows in zip(names, (slice(0, 4), slice(4, 6))):
        write(tmp_path / "d/imagenet1k" / name, {"image": images[rows], "label": labels[rows]})
    write(tmp_path / "d/imagenet1k/default/test/0000.parquet", {"image": images, "label": [-1] * 6})
    write(tmp_path / "d/imagenet1k/.cache/validation/0000.parquet", {"image": images, "label": labels})
    data = open_dataset("imagenet1k", tmp_path / "d").data("labels", "test")
    check_imagenet(data)
    assert len({data.images.image_id(i) for i in range(6)}) == 6 and "val" in data.images.image_id(0)
    with pytest.raises(DataError, match="imagenet1k: no train"):
        open_dataset("imagenet1k", tmp_path / "d").data("labels", "train")


def test_two_configurations_are_told_apart_or_refused(tmp_path, photos):
    images, labels = photos
    for config in ("a", "b"):
        write(tmp_path / f"d/imagenet1k/{config}/validation/0000.parquet", {"image": images, "label": labels})
    with pytest.raises(DataError, match=r"several configurations \(a, b\)"):
        open_dataset("imagenet1k", tmp_path / "d").data("labels", "test")
    write(tmp_path / "d/imagenet1k/default/validation/0000.parquet", {"image": images, "label": labels})
    data = open_dataset("imagenet1k", tmp_path / "d").data("labels", "test")
    assert "/default/" in data.images.blobs.where(0)


def test_ade_takes_the_hubs_scene_parsing_and_not_the_instances_beside_it(tmp_path):
    root = mini.ade20k(tmp_path / "folder")
    for split, word in (("training", "train"), ("validation", "validation")):
        names = sorted(p.stem for p in (root / "images" / split).iterdir())
        pictures = [image_struct(root / f"images/{split}/{n}.jpg") for n in names]
        masks = [image_struct(root / f"annotations/{split}/{n}.png") for n in names]
        write(
            tmp_path / f"hub/ade20k/instance_segmentation/{word}/0000.parquet",
            {"image": pictures, "annotation": masks[::-1]},
        )
        write(
            tmp_path / f"hub/ade20k/scene_parsing/{word}/0000.parquet",
            {"image": pictures, "annotation": masks, "scene_category": [0] * len(names)},
        )
    for split, count in (("train", 4), ("test", 3)):
        plain = open_dataset("ade20k", tmp_path / "folder").data("segmentation", split)
        found = open_dataset("ade20k", tmp_path / "hub").data("segmentation", split)
        assert len(found.images) == count
        assert all((found.target(i) == plain.target(i)).all() for i in range(count))


def test_captions_are_read_from_what_the_hub_makes_of_script_repositories(tmp_path, official):
    official("flickr30k", counts={"test": 3})
    flickr = mini.flickr30k(tmp_path / "folder")
    names = [f"{1000 + i}.jpg" for i in (3, 1, 4, 0, 2)]
    columns = {
        "image": [image_struct(flickr / "flickr30k-images" / n) for n in names],
        "caption": [[f"Picture {int(n[3])}, caption {j} ." for j in range(5)] for n in names],
        "split": ["train" if n[3] in "34" else "test" for n in names],
        "filename": names,
    }
    write(tmp_path / "hub/flickr30k/TEST/test/0000.parquet", {k: v[:2] for k, v in columns.items()})
    write(tmp_path / "hub/flickr30k/TEST/test/0001.parquet", {k: v[2:] for k, v in columns.items()})
    found = open_dataset("flickr30k", tmp_path / "hub").data("captions", "test")
    assert [c[0] for c in found.captions] == [f"Picture {i}, caption 0 ." for i in (1, 0, 2)]
    docci = mini.docci(tmp_path / "folder")
    for split in ("train", "test", "qual_dev"):
        files = sorted((docci / "images").glob(f"{split}_*.jpg"))
        text = [f"Long text {f.stem}" for f in files]
        write(
            tmp_path / f"hub/docci/docci/{split}/0000.parquet",
            {"image": [image_struct(f) for f in files], "description": text},
        )
        write(tmp_path / f"hub/docci/docci_aar/{split}/0000.parquet", {"image": [image_struct(f) for f in files]})
    plain = open_dataset("docci", tmp_path / "folder").data("captions", "test")
    found = open_dataset("docci", tmp_path / "hub").data("captions", "test")
    assert found.captions == tuple((f"Long text test_0000{i}",) for i in (2, 3, 4))
    assert all((found.images.load(i) == plain.images.load(i)).all() for i in range(3))
    with pytest.raises(DataError, match="coco: no"):  # what lies beside is another data set's
        open_dataset("coco", tmp_path / "hub").data("captions", "test")


def test_coco_of_the_hub_and_docci_without_its_test_split(tmp_path, official):
    official("coco", counts={"test": 3})
    root = mini.coco(tmp_path / "folder")
    files = sorted((root / "val2014").glob("*.jpg"))[:3]
    texts = [[f"A thing {i} seen as {j}. (official)" for j in range(6)] for i in range(3)]
    write(
        tmp_path / "hub/coco/TEST/test/0000.parquet",
        {"image": [image_struct(f) for f in files], "caption": texts, "cocoid": [0, 1, 2]},
    )
    plain = open_dataset("coco", tmp_path / "folder").data("captions", "test")
    assert open_dataset("coco", tmp_path / "hub").data("captions", "test").captions == plain.captions
    write(
        tmp_path / "hub/docci/data/train-00000-of-00001.parquet",
        {"image": [image_struct(f) for f in files], "description": ["a", "b", "c"]},
    )
    with pytest.raises(DataError, match="docci: no docci_descriptions.jsonlines|docci: no DOCCI/docci_desc"):
        open_dataset("docci", tmp_path / "hub").data("captions", "test")


# ------------------------------------------------------------------------------------------ completeness


def test_absent_parts_are_named_only_where_the_files_say_so(tmp_path):
    def absent(*names):
        return absent_parts([tmp_path / n for n in names])

    assert absent("train-00000-of-00003.parquet", "train-00002-of-00003.parquet") == ["train-00001-of-00003.parquet"]
    assert absent("validation-00001-of-00002-0a1b2c3d.parquet") == ["validation-00000-of-00002.parquet"]
    assert absent("0000.parquet", "0003.parquet") == ["0001.parquet", "0002.parquet"]
    assert absent("0000.parquet", "0001.parquet") == absent("test.parquet") == absent("a-1.tar", "b-3.tar") == []
    assert absent("imagenet1k-train-0000.tar", "imagenet1k-train-0002.tar") == ["imagenet1k-train-0001.tar"]
    (tmp_path / "nshards.txt").write_text("4\n")
    assert absent("0.tar", "2.tar") == ["1.tar", "3.tar"]
    with pytest.raises(DataError, match=r"two versions, train-…-of-00002 and train-…-of-00003"):
        absent("train-00000-of-00003.parquet", "train-00001-of-00002.parquet")


def test_a_missing_parquet_is_named_and_no_picture_is_invented(tmp_path, photos, official, caplog):
    images, labels = photos
    folder = tmp_path / "d/imagenet1k/data"
    write(folder / "validation-00001-of-00002.parquet", {"image": images, "label": labels})
    dataset = open_dataset("imagenet1k", tmp_path / "d")
    with pytest.raises(DataError, match=r"1 of 2 files are there; first missing: .*validation-00000-of-00002.parquet"):
        dataset.data("labels", "test")
    with tolerating(part=True) as allowed:
        assert len(dataset.data("labels", "test").images) == 6
    assert "validation-00000-of-00002.parquet" in allowed.short[0]
    (folder / "validation-00001-of-00002.parquet").rename(folder / "validation-00000-of-00001.parquet")
    official("imagenet1k", counts={"test": 8})
    caplog.clear()
    with pytest.raises(DataError, match=r"6 images found, the official split has 8\. More"):
        dataset.data("labels", "test")
    official("ade20k", counts={"test": 4})
    root = mini.ade20k(tmp_path / "folder")
    names = sorted(p.stem for p in (root / "images/validation").iterdir())
    columns = {
        "image": [image_struct(root / f"images/validation/{n}.jpg") for n in names],
        "annotation": [image_struct(root / f"annotations/validation/{n}.png") for n in names],
    }
    write(tmp_path / "d/ade20k/data/validation-00000-of-00001.parquet", columns)
    with pytest.raises(DataError, match=r"3 images found, the official split has 4\. More"):
        open_dataset("ade20k", tmp_path / "d").data("segmentation", "test")


def test_the_first_five_gigabytes_of_a_split_are_not_the_split(tmp_path, photos):
    images, labels = photos
    write(tmp_path / "d/imagenet1k/default/partial-train/0000.parquet", {"image": images, "label": labels})
    with pytest.raises(DataError, match="partial-train: holds a part of the split"):
        open_dataset("imagenet1k", tmp_path / "d").data("labels", "train")


# ------------------------------------------------------------------------------------------------ shards


def shard(path: Path, images: list, labels: list, first: int = 0, kind: str = "jpg") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, (image, label) in enumerate(zip(images, labels), first):
            add_bytes(archive, f"s{i:07d}.{kind}", image["bytes"])
            add_bytes(archive, f"s{i:07d}.cls", str(label).encode())


@pytest.mark.parametrize(
    "names",
    [
        ("test/0.tar", "test/1.tar"),
        ("wds_imagenet1k/test/0.tar", "wds_imagenet1k/test/1.tar"),
        ("validation/imagenet1k-validation-00.tar", "validation/imagenet1k-validation-01.tar"),
        ("shards/imagenet1k-validation-00.tar", "shards/imagenet1k-validation-01.tar"),
        ("wds/val/000000.tar", "wds/val/000001.tar"),
    ],
)
def test_imagenet_shards_are_found_in_sub_folders_and_as_clip_benchmark_has_them(tmp_path, photos, names):
    images, labels = photos
    for name, rows in zip(names, (slice(0, 4), slice(4, 6))):
        shard(tmp_path / "d/imagenet1k" / name, images[rows], labels[rows], rows.start)
    shard(tmp_path / "d/imagenet1k/train/imagenet1k-train-0000.tar", images, labels)
    shard(tmp_path / "d/imagenet1k/imagenet1k-test-00.tar", images, [-1] * 6)
    shard(tmp_path / "d/other/test/0.tar", images, [7] * 6)
    dataset = open_dataset("imagenet1k", tmp_path / "d")
    check_imagenet(dataset.data("labels", "test"))
    check_imagenet(dataset.data("labels", "train"))


def test_a_missing_shard_is_named_and_webp_is_a_picture(tmp_path, photos, official):
    images, labels = photos
    folder = tmp_path / "d/imagenet1k/test"
    shard(folder / "0.tar", images[:3], labels[:3], kind="webp")
    shard(folder / "2.tar", images[3:], labels[3:], 3, kind="webp")
    with pytest.raises(DataError, match=r"2 of 3 files are there; first missing: .*test/1\.tar"):
        open_dataset("imagenet1k", tmp_path / "d").data("labels", "test")
    (folder / "2.tar").rename(folder / "1.tar")
    official("imagenet1k", counts={"test": 8})
    with pytest.raises(DataError, match=r"6 images found, the official split has 8\. More"):  # no s0000006 invented
        open_dataset("imagenet1k", tmp_path / "d").data("labels", "test")
    official("imagenet1k", counts={"test": 6})
    check_imagenet(open_dataset("imagenet1k", tmp_path / "d").data("labels", "test"))


def test_validation_shards_of_captions_are_no_test_split(tmp_path, photos):
    images, _ = photos
    path = tmp_path / "d/coco/coco-val-0000.tar"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:
        add_bytes(archive, "0.jpg", images[0]["bytes"])
        add_bytes(archive, "0.txt", b"a picture")
    with pytest.raises(DataError, match="coco: no"):
        open_dataset("coco", tmp_path / "d").data("captions", "test")
    path.rename(path.with_name("coco-test-0000.tar"))
    assert open_dataset("coco", tmp_path / "d").data("captions", "test").captions == (("a picture",),)


# ------------------------------------------------------------------------------------------------ prepare


@pytest.mark.parametrize("folder", ["flickr30k-images", "flickr30k/Images", "flickr30k_images/flickr30k_images", "x/y"])
def test_flickrs_zip_is_read_in_place(tmp_path, folder):
    root = mini.flickr30k(tmp_path / "folder")
    plain = open_dataset("flickr30k", tmp_path / "folder").data("captions", "test")
    out = tmp_path / "zip/flickr30k"
    out.mkdir(parents=True)
    (out / "dataset_flickr30k.json").write_bytes((root / "dataset_flickr30k.json").read_bytes())
    with zipfile.ZipFile(out / "flickr30k-images.zip", "w") as archive:
        for path in sorted((root / "flickr30k-images").iterdir()):
            archive.write(path, f"{folder}/{path.name}")
            archive.writestr(f"__MACOSX/{folder}/._{path.name}", b"x")
    found = open_dataset("flickr30k", tmp_path / "zip").data("captions", "test")
    assert found.captions == plain.captions and found.digest == plain.digest


@pytest.mark.parametrize(
    ("name", "folder", "packed", "kind"),
    [
        ("flickr30k", "flickr30k-images", "flickr30k-images.tar.gz", "captions"),
        ("docci", "images", "docci_images.tgz", "captions"),
        ("navi", ".", "navi_v1.0.tar.gz", "depth"),
        ("ade20k", ".", "ADEChallengeData2016.tar.gz", "segmentation"),
        ("voc2012", "../..", "VOCtrainval_11-May-2012.tar.gz", "segmentation"),
    ],
)
def test_a_gzip_beside_the_split_is_named(tmp_path, name, folder, packed, kind):
    root = getattr(mini, name)(tmp_path)
    if folder.startswith("."):
        shutil.rmtree(root)
    else:
        (root / folder).rename(tmp_path / "elsewhere")
    (tmp_path / name / packed).write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=rf"{packed} is there, .*gunzip -k .*{packed}"):
        open_dataset(name, tmp_path).data(kind, "test")
