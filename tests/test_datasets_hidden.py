"""Hidden names, and what systems and packers put beside people's files, are no data in any reader."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import miniatures
import pytest

from benchmark import run
from benchmark.cli import main
from benchmark.data.hidden import is_hidden
from benchmark.data.tolerance import tolerating
from benchmark.registry import open_dataset
from tasks.datasets.user import open_task

NAMES = (
    ".ipynb_checkpoints/0-checkpoint.{}", "apple/.ipynb_checkpoints/0-checkpoint.{}", "apple/.thumb.{}",
    "__MACOSX/apple/._0.{}", "apple/@eaDir/0.{}", "@eaDir/apple/0.{}", ".@__thumb/0.{}", "#recycle/0.{}",
    "lost+found/0.{}", ".Trash-1000/files/0.{}", "$RECYCLE.BIN/0.{}", "System Volume Information/0.{}", "@Recycle/0.{}",
    "PaxHeaders.12/0.{}", "Thumbs.db/0.{}",
)  # fmt: skip


def clutter(folder: Path, names: tuple[str, ...] = NAMES, suffix: str = "png", like: Path | None = None) -> int:
    """Puts a picture (or a copy of `like`) at each of `names` below `folder`; how many."""
    for seed, name in enumerate(names, 1000):
        target = folder / name.format(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        if like is None:
            miniatures.save_jpeg(target.with_suffix(".jpg"), seed).rename(target)
        else:
            shutil.copy(like, target)
    return len(names)


def packed(folder: Path, kind: str) -> Path:
    """`folder` as a tar or zip beside it, as packers write them: hidden files included."""
    target = folder.with_suffix(f".{kind}")
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(target, "w") as archive:
            for path in files:
                archive.add(path, "./" + path.relative_to(folder).as_posix())
    return target


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    for split, count in (("train", 8), ("test", 4)):
        for number, fruit in enumerate(("apple", "pear")):
            for i in range(count):
                seed = 100 * number + 10 * len(split) + i
                miniatures.save_jpeg(tmp_path / split / fruit / f"{i}.jpg", seed)
    return tmp_path


TASK = 'task = "classification"\nname = "fruit"\n[train]\nimages = "train{0}"\n[test]\nimages = "test{0}"\n'


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_hidden_names_are_neither_classes_nor_pictures(fruit: Path, kind: str) -> None:
    added = clutter(fruit / "train", suffix="jpg")
    clutter(fruit / "test", suffix="jpg", like=fruit / "test" / "apple" / "0.jpg")
    if kind != "folder":
        packed(fruit / "train", kind), packed(fruit / "test", kind)
    (fruit / "t.toml").write_text(TASK.format("" if kind == "folder" else f".{kind}"))
    data = open_task(fruit / "t.toml").dataset
    for split, count in (("train", 16), ("test", 8)):
        with tolerating() as noted:
            found = data.data("labels", split)
        assert found.class_names == ("apple", "pear") and len(found.images) == count
        assert len(noted.notes) == 1 and f": {added} (" in noted.notes[0], noted.notes


def test_the_row_and_one_line_a_split_say_how_many(fruit: Path, caplog) -> None:
    clutter(fruit / "test", NAMES[:3], suffix="jpg", like=fruit / "test" / "pear" / "1.jpg")
    (fruit / "t.toml").write_text(TASK.format("") + "[protocol]\nks = [1]\nheadline_k = 1\nlinear = false\n")
    (row,) = run("pixels", str(fruit / "t.toml"), results=fruit / "r", cache=fruit / "c", workers=0).rows
    (note,) = row.data.notes
    assert row.data.task.n == 8 and "fruit test: " in note and ": 3 (" in note and caplog.messages == [note]


def test_pairs_of_pictures_and_masks_without_hidden_ones(tmp_path: Path) -> None:
    for i in range(3):
        miniatures.save_jpeg(tmp_path / "images" / f"{i}.jpg", i)
        miniatures.save_png(tmp_path / "masks" / f"{i}.png", miniatures.mask(i, 3))
    clutter(tmp_path / "images", NAMES[:4], suffix="jpg")
    clutter(tmp_path / "masks", NAMES[3:5], suffix="png")
    (tmp_path / "t.toml").write_text(
        'task = "zero_shot_segmentation"\nname = "x"\nclasses = ["a", "b", "c"]\nimages = "images"\nmasks = "masks"\n'
    )
    with tolerating() as noted:
        data = open_task(tmp_path / "t.toml").dataset.data("segmentation", "test")
    assert len(data.images) == 3 and ": 6 (" in noted.notes[0]


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_official_layouts_in_folders_and_archives(tmp_path: Path, kind: str) -> None:
    root = miniatures.ade20k(tmp_path)
    plain = open_dataset("ade20k", tmp_path).data("segmentation", "test").digest
    for name in ("images/validation/._ADE_val_00000001.jpg", "images/validation/@eaDir/ADE_val_00000001.jpg"):
        clutter(root, (name,), like=root / "images/validation/ADE_val_00000001.jpg")
    if kind != "folder":
        (tmp_path / "packed").mkdir()
        clutter(root.parent, ("__MACOSX/ADEChallengeData2016/images/validation/._ADE_val_00000001.jpg",))
        packed(root.parent, kind).rename(tmp_path / "packed" / f"ADEChallengeData2016.{kind}")
        (tmp_path / "packed" / f"._ADEChallengeData2016.{kind}").write_bytes(b"\0\5\26\7")
    with tolerating() as noted:
        data = open_dataset("ade20k", tmp_path if kind == "folder" else tmp_path / "packed").data(
            "segmentation", "test"
        )
    assert data.digest == plain and ": 2 (" in noted.notes[0]


def test_imagenet_folders_and_shards(tmp_path: Path) -> None:
    root = miniatures.imagenet(tmp_path)
    before = len(open_dataset("imagenet1k", tmp_path).data("labels", "train").images)
    synset = next(p for p in sorted(root.rglob("n0*")) if p.is_dir() and "train" in str(p))
    clutter(synset, (".ipynb_checkpoints/x.JPEG", "._y.JPEG"), like=next(synset.glob("*.JPEG")))
    clutter(synset.parent, ("@eaDir/n01440764/x.JPEG",), like=next(synset.glob("*.JPEG")))
    assert len(open_dataset("imagenet1k", tmp_path).data("labels", "train").images) == before
    shards = tmp_path / "s" / "imagenet1k"
    (shards / "in").mkdir(parents=True)
    for i in range(2):
        miniatures.save_jpeg(shards / "in" / f"{i:04d}.jpg", i)
        (shards / "in" / f"{i:04d}.cls").write_text(str(i))
        (shards / "in" / f"._{i:04d}.jpg").write_bytes(b"\0\5\26\7")
    packed(shards / "in", "tar").rename(shards / "imagenet1k-validation-00.tar")
    (shards / "._imagenet1k-validation-00.tar").write_bytes(b"\0\5\26\7")
    shutil.rmtree(shards / "in")
    with tolerating(part=True) as noted:
        assert len(open_dataset("imagenet1k", tmp_path / "s").data("labels", "test").images) == 2
    assert ": 2 (" in noted.notes[0]


def test_only_what_lies_below_the_place_asked_for_can_be_hidden(fruit: Path) -> None:
    """Data may be kept in a hidden folder; parts of paths that only look alike are names as any."""
    (fruit / ".data").mkdir()
    (fruit / "train").rename(fruit / ".data" / "train")
    (fruit / "test" / "apple").rename(fruit / "test" / "..apple")
    (fruit / "t.toml").write_text(TASK.format("").replace('"train"', '".data/train"'))
    assert len(open_task(fruit / "t.toml").dataset.data("labels", "train").images) == 16
    for name in ("./a.png", "../a/b.png", "a..b/c.png", "thumbs.db.png", "__macosx2/x.png", "a/.."):
        assert not is_hidden(name), name


def test_links_that_lead_back_are_not_followed_round(fruit: Path) -> None:
    os.symlink(fruit / "train", fruit / "train" / "apple" / "all", target_is_directory=True)
    os.symlink(fruit / "train" / "apple", fruit / "train" / "pear" / "b", target_is_directory=True)
    os.symlink(fruit / "train" / "pear", fruit / "train" / "apple" / "a", target_is_directory=True)
    (fruit / "t.toml").write_text(TASK.format(""))
    found = open_task(fruit / "t.toml").dataset.data("labels", "train")
    names = [found.images.image_id(i) for i in range(len(found.images))]
    assert len(names) == 32 and "pear/b/0.jpg" in names and "apple/a/0.jpg" in names


def test_mmsegmentation_configs_list_no_hidden_pictures(tmp_path: Path) -> None:
    """mmsegmentation walks into hidden folders: their pictures have no masks."""
    from test_mm_datasets import config, own_data

    from tasks.mm.datasets import open_config

    root = own_data(tmp_path / "data")
    clutter(root / "test" / "images", NAMES[:1] + NAMES[5:6], suffix="jpg")
    with tolerating() as noted:
        data = open_config(str(config(tmp_path / "orchard.py", root))).data("segmentation", "test")
    assert len(data.images) == 3 and ": 2 (" in noted.notes[0]


def test_captions_and_depth_are_paired_without_hidden_files(tmp_path: Path) -> None:
    rows = []
    for i in range(3):
        miniatures.save_jpeg(tmp_path / "images" / f"{i}.jpg", i)
        rows.append(json.dumps({"image": f"{i}.jpg", "captions": [f"picture {i}"]}))
    clutter(tmp_path / "images", NAMES[:5], suffix="jpg")
    (tmp_path / "c.jsonl").write_text("\n".join(rows))
    (tmp_path / "t.toml").write_text(
        'task = "text_to_image_retrieval"\nname = "x"\nimages = "images"\ncaptions = "c.jsonl"\n'
    )
    assert len(open_task(tmp_path / "t.toml").dataset.data("captions", "test").images) == 3


def test_bench_data_verify_says_how_many(fruit: Path, capsys) -> None:
    clutter(fruit / "test", NAMES[:3], suffix="jpg")
    (fruit / "t.toml").write_text(TASK.format(""))
    with pytest.raises(SystemExit, match="0"):
        main(["data", "verify", str(fruit / "t.toml")])
    assert [": 3 (" in line for line in capsys.readouterr().out.splitlines() if "note" in line] == [True]
