"""What is trained on is not scored: the same folder, links and copies in any container; official splits say so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import miniatures
import pytest
from test_datasets_hidden import TASK, packed
from test_mm_datasets import config, own_data

from benchmark import load_task, run
from benchmark.errors import DataError, UsageError

QUICK = "[protocol]\nks = [1]\nheadline_k = 1\nlinear = false\n"


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    for split, first in (("train", 0), ("test", 100)):
        for number, name in enumerate(("apple", "pear")):
            for i in range(4):
                save(tmp_path / split / name / f"{i}.png", first + 10 * number + i)
    (tmp_path / "t.toml").write_text(TASK.format("") + QUICK)
    return tmp_path


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    miniatures.Image.fromarray(miniatures.picture(seed)).save(path)
    return path


@pytest.mark.parametrize("other", ["train", "./train/", "link", "train.tar"])
def test_train_and_test_of_one_folder_are_refused_with_the_line(fruit: Path, other: str) -> None:
    os.symlink(fruit / "train", fruit / "link", target_is_directory=True)
    packed(fruit / "train", "tar")
    first = "train.tar" if other == "train.tar" else "train"
    (fruit / "t.toml").write_text(TASK.format("").replace('"train"', f'"{first}"').replace('"test"', f'"{other}"'))
    with pytest.raises(UsageError, match=r"t\.toml:6: images are those of \[train\], .*train.*cannot be scored"):
        load_task(str(fruit / "t.toml"), cache=fruit / "c")


@pytest.mark.parametrize("how", ["copy", "link", "container", "nested"])
def test_test_pictures_that_are_trained_on_are_refused_by_their_pixels(fruit: Path, how: str) -> None:
    source, target = fruit / "train" / "pear" / "2.png", fruit / "test" / "pear" / "zz.png"
    if how == "copy":
        shutil.copy(source, target)
    elif how == "link":
        target.symlink_to(source)
    elif how == "container":
        with miniatures.Image.open(source) as picture:
            picture.save(target.with_suffix(".bmp"))
    else:  # the test folder lies within the training folder
        shutil.move(fruit / "test", fruit / "train" / "test")
        (fruit / "t.toml").write_text((fruit / "t.toml").read_text().replace('"test"', '"train/test"'))
    with pytest.raises(DataError, match=r"\d of \d test pictures are training pictures too.* = .*train.*Take them out"):
        load_task(str(fruit / "t.toml"), cache=fruit / "c")


def test_some_may_be_left_out_in_plain_sight_but_never_all(fruit: Path) -> None:
    shutil.copy(fruit / "train" / "apple" / "1.png", fruit / "test" / "apple" / "copy.png")
    options: dict[str, Any] = {"results": fruit / "r", "cache": fruit / "c", "workers": 0}
    report = run("pixels", str(fruit / "t.toml"), **options)
    assert not report.rows and "--max-bad 1" in report.failures[0].text
    (row,) = run("pixels", str(fruit / "t.toml"), max_bad=1, **options).rows
    assert row.data.task.n == 8 and row.data.n_bad == 1 and "apple/copy.png (test)" in row.data.bad[0]
    shutil.rmtree(fruit / "test")
    shutil.copytree(fruit / "train", fruit / "test")
    assert "8 of 8" in run("pixels", str(fruit / "t.toml"), max_bad=100, **options).failures[0].text


def test_configs_of_mmsegmentation_and_maps_are_held_to_it_too(tmp_path: Path) -> None:
    root = own_data(tmp_path / "data")
    shutil.copy(root / "train/images/0.jpg", root / "test/images/0.jpg")
    with pytest.raises(DataError, match="1 of 3 test pictures are training pictures too"):
        load_task(f"mmseg:{config(tmp_path / 'orchard.py', root)}", cache=tmp_path / "c")
    (tmp_path / "t.toml").write_text(
        'task = "linear_segmentation"\nname = "x"\nclasses = ["a", "b", "c"]\n'
        '[train]\nimages = "data/train/images"\nmasks = "data/train/masks"\n'
        '[test]\nimages = "data/test/images"\nmasks = "data/test/masks"\n'
    )
    with pytest.raises(DataError, match="1 of 3 test pictures are training pictures too"):
        load_task(str(tmp_path / "t.toml"), cache=tmp_path / "c")


@pytest.mark.parametrize("limit", [None, 5])
def test_an_official_overlap_is_scored_and_named_in_the_row(tmp_path: Path, limit: int | None) -> None:
    root = miniatures.imagenet(tmp_path)
    synset = root / "val" / miniatures.SYNSETS[0]
    shutil.copy(root / "train" / miniatures.SYNSETS[0] / f"{miniatures.SYNSETS[0]}_0.JPEG", min(synset.iterdir()))
    sets = {"ks": "[1]", "headline_k": "1", "linear": "false"}
    (row,) = run(
        "pixels", "classification/imagenet1k", data=tmp_path, results=tmp_path / "r", cache=tmp_path / "c", workers=0,
        overrides=sets, limit=limit,
    ).rows  # fmt: skip
    (note,) = row.data.notes
    assert note.startswith(f"imagenet1k: 1 of {limit or 6} test pictures are training pictures too: ")
    assert "_0.JPEG" in note
