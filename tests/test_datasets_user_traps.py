"""Data of one's own: what would count wrong in silence is refused or read rightly."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image
from test_datasets_user import EXAMPLES, examples, write  # noqa: F401

from benchmark import run
from benchmark.errors import DataError, UsageError
from benchmark.rows.row import read_all
from tasks.datasets.idx import read_idx
from tasks.datasets.user import open_task


def test_label_out_of_the_class_list_names_its_line(examples, write, tmp_path):
    shutil.copytree(examples / "data/classification", tmp_path / "c")
    text = (EXAMPLES / "zero_shot_classification.toml").read_text().replace("data/classification", "c")
    (tmp_path / "c/test.csv").write_text(
        (tmp_path / "c/test.csv").read_text().replace("1001.jpg,apple", "1001.jpg,pear")
    )
    with pytest.raises(DataError, match=r"test.csv:3: label 'pear' is not one of the 2 classes"):
        open_task(write(text)).dataset.data("labels", "test")


def test_idx_files_give_grey_pictures_as_rgb_with_their_labels(write, tmp_path):
    pictures = np.arange(6 * 28 * 28, dtype=np.uint8).reshape(6, 28, 28)
    header = bytes([0, 0, 8, 3]) + np.array([6, 28, 28], ">u4").tobytes()
    (tmp_path / "x-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pictures.tobytes()))
    labels = bytes([0, 0, 8, 1]) + np.array([6], ">u4").tobytes() + bytes([0, 1] * 3)
    (tmp_path / "x-labels-idx1-ubyte").write_bytes(labels)
    path = write(
        'task = "zero_shot_classification"\nname = "x"\nclasses = ["bag", "coat"]\n'
        'images = "x-images-idx3-ubyte.gz"\nlabels = "x-labels-idx1-ubyte"\n'
    )
    data = open_task(path).dataset.data("labels", "test")
    assert data.labels.tolist() == [0, 1] * 3 and (data.images.load(4) == pictures[4][..., None]).all()
    (tmp_path / "x-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pictures.tobytes()[:-1]))
    read_idx.cache_clear()
    with pytest.raises(DataError, match=r"holds 4719 bytes, its header says 4720"):
        open_task(path).dataset.data("labels", "test")


LABELS = 'task = "zero_shot_classification"\nname = "x"\nimages = "i"\nlabels = "l.csv"\n'
FOLDERS = 'task = "classification"\nname = "x"\nimages = "i"\n'


@pytest.mark.parametrize(
    ("text", "files", "message"),
    [
        (
            LABELS + 'classes = ["a", "b", "a"]\n',
            {"l.csv": "image,label\na/1,a\na/2,a\nb/1,b\n"},
            ":5: classes names 'a' twice",
        ),
        (
            LABELS + 'classes = ["a", "b"]\n',
            {"l.csv": "image,label\na/1.jpg,a\na/2.jpg,a\nb/1.jpg,b\na/1.jpg,b\n"},
            "l.csv:5: a/1.jpg is 'b' here and 'a' in .*l.csv:2",
        ),
        (
            'task = "text_to_image_retrieval"\nname = "x"\nimages = "i"\ncaptions = "c.csv"\n',
            {"c.csv": "image,caption\na/1.jpg,a dog, a cat and a cow\n"},
            "c.csv:2: has more values than the header",
        ),
        (FOLDERS.replace('"i"', '"i/a"') + "split = { test = 0.5 }\n", {}, "lies in no class folder"),
        (FOLDERS.replace('"i"', '"one"') + "split = { test = 0.5 }\n", {}, "every picture is of the class 'a'"),
        (
            FOLDERS + 'split = { train = "r.txt", test = "t.txt" }\n',
            {"r.txt": "a/1.jpg\n", "t.txt": "a/2.jpg\nb/1.jpg\na/2\n"},
            "t.txt: names a/2.jpg twice",
        ),
        (
            FOLDERS + 'split = { train = "r.txt", test = "t.txt" }\n',
            {"r.txt": "a/1.jpg\nb/1.jpg\n", "t.txt": "a/2.jpg\nb/1.jpg\n"},
            "t.txt: names 1 picture of r.txt too, b/1.jpg among them",
        ),
    ],
)
def test_what_would_count_wrong_in_silence_is_refused(write, tmp_path, text, files, message):
    for name in ("i/a/1.jpg", "i/a/2.jpg", "i/b/1.jpg", "one/a/1.jpg", "one/a/2.jpg", "one/a/3.jpg", "one/a/4.jpg"):
        miniatures.save_jpeg(tmp_path / name, len(name))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    user = open_task(write(text))
    with pytest.raises((DataError, UsageError), match=message):
        user.dataset.data(user.dataset.info.kinds[0], "test")


def test_spaces_around_a_class_name_of_a_file_are_none_of_it(write, tmp_path):
    miniatures.save_jpeg(tmp_path / "i/1.jpg", 1)
    (tmp_path / "c.txt").write_text("a \n b\t\n")
    (tmp_path / "l.csv").write_text("image,label\n1.jpg,b\n")
    data = open_task(write(LABELS + 'classes = "c.txt"\n')).dataset.data("labels", "test")
    assert data.class_names == ("a", "b") and data.labels.tolist() == [1]


PAIRS = 'task = "zero_shot_segmentation"\nname = "x"\nclasses = ["a", "b"]\nimages = "i"\nmasks = "m"\n'


def test_black_and_white_masks_do_not_lose_their_foreground(write, tmp_path):
    """255 is ignored unless a file says otherwise; in a mask of two classes it may just as well be the second."""
    miniatures.save_jpeg(tmp_path / "i/1.jpg", 1)
    miniatures.save_png(tmp_path / "m/1.png", miniatures.mask(1, 2) * 255)
    with pytest.raises(DataError, match="label 255 is out of range for 2 classes. Save masks of 0 … 1, or say ignore"):
        open_task(write(PAIRS)).dataset.data("segmentation", "test").target(0)
    target = open_task(write(PAIRS + "ignore = 255\n")).dataset.data("segmentation", "test").target(0)
    assert set(np.unique(target)) == {0, 255}


def test_names_that_look_alike_are_alike(write, tmp_path):
    """macOS packs ä as a and two dots."""
    apart, whole = "ba\u0308r", "b\u00e4r"
    miniatures.save_jpeg(tmp_path / f"i/{apart}.jpg", 1)
    miniatures.save_png(tmp_path / f"m/{whole}.png", miniatures.mask(1, 2))
    (tmp_path / "l.csv").write_text(f"image,label\n{whole}.jpg,a\n", encoding="utf-8")
    assert len(open_task(write(PAIRS)).dataset.data("segmentation", "test").images) == 1
    data = open_task(write(LABELS + 'classes = ["a", "b"]\n')).dataset.data("labels", "test")
    assert data.images.image_id(0) == f"{apart}.jpg" and data.labels.tolist() == [0]


def test_a_name_that_may_be_two_files_is_asked_for_in_full(write, tmp_path):
    for name in ("a/1.jpg", "a/1.jpeg", "b/1.jpg", "b/2.jpg"):
        miniatures.save_jpeg(tmp_path / "i" / name, 1)
    (tmp_path / "r.txt").write_text("b/1\nb/2\n")
    (tmp_path / "t.txt").write_text("a/1\n")
    path = write(FOLDERS + 'split = { train = "r.txt", test = "t.txt" }\n')
    with pytest.raises(DataError, match="t.txt:1: 'a/1' may be a/1.jpeg or a/1.jpg"):
        open_task(path).dataset.data("labels", "test")


@pytest.mark.parametrize("beside", ["m/1.npy", "i/1.png"])
def test_two_files_of_one_name_are_refused(write, tmp_path, beside):
    miniatures.save_jpeg(tmp_path / "i/1.jpg", 1)
    miniatures.save_png(tmp_path / "m/1.png", miniatures.mask(1, 2))
    if beside.endswith("npy"):
        np.save(tmp_path / beside, miniatures.mask(2, 2))
    else:
        Image.fromarray(miniatures.picture(2)).save(tmp_path / beside)
    with pytest.raises(DataError, match="lies beside it, and files pair by name"):
        open_task(write(PAIRS)).dataset.data("segmentation", "test")


def test_masks_beside_their_pictures_are_no_pictures_however_the_folder_is_written(write, tmp_path):
    miniatures.save_jpeg(tmp_path / "i/1.jpg", 1)
    miniatures.save_png(tmp_path / "i/1.png", miniatures.mask(1, 2))
    data = open_task(write(PAIRS.replace('"m"', '"./i"'))).dataset.data("segmentation", "test")
    assert [data.images.image_id(i) for i in range(len(data.images))] == ["1.jpg"]


@pytest.mark.parametrize(
    ("task", "values", "more", "message"),
    [
        (
            "depth",
            np.full((24, 32), 1500, np.uint16),
            "",
            "depth is uint16, which does not say metres. Add depth_scale",
        ),
        ("depth", np.full((24, 32), "1.5"), "", "depth is <U3, must be numbers"),
        ("depth", np.ones((24, 32)), "depth_scale = 0\n", ":3: depth_scale = 0 must be a number of metres above 0"),
        ("depth", np.ones((24, 32)), "max_depth = nan\n", ":3: max_depth = nan must be a number of metres above 0"),
        ("normals", np.full((24, 32, 3), 200, np.uint8), "", "normals are uint8, must be floating-point"),
        ("normals", None, "", "is a grey picture; normals are coloured"),
    ],
)
def test_maps_whose_unit_or_meaning_is_not_known_are_refused(write, tmp_path, task, values, more, message):
    miniatures.save_jpeg(tmp_path / "i/1.jpg", 1)
    if values is None:
        miniatures.save_png(tmp_path / "m/1.png", np.full((24, 32), 200, np.uint8))
    else:
        (tmp_path / "m").mkdir()
        np.save(tmp_path / "m/1.npy", values)
    table = f'images = "i"\n{task} = "m"\n'
    path = write(f'task = "{task}"\nname = "x"\n{more}[train]\n{table}[test]\n{table}')
    with pytest.raises((DataError, UsageError), match=message):
        open_task(path).dataset.data(task, "test").target(0)


def test_two_tasks_of_one_name_keep_their_rows_apart_and_a_moved_one_finds_its_own(examples, tmp_path):
    def measured(file: Path) -> tuple[int, dict[str, str]]:
        options = {"results": tmp_path / "r", "cache": tmp_path / "c", "check": False}
        report = run("pixels", str(file), **options)
        assert not report.failures
        return report.reused, {row.folder.parent.name: row.data.created for row in read_all(tmp_path / "r")[0]}

    for project in "pq":
        (tmp_path / project).mkdir()
        shutil.copytree(examples / "data" / "retrieval", tmp_path / project / "data" / "retrieval")
        shutil.copy(examples / "instance_retrieval.toml", tmp_path / project / "task.toml")
    (tmp_path / "q" / "data/retrieval/labels.csv").write_text(other_labels(examples / "data/retrieval/labels.csv"))
    assert measured(tmp_path / "p" / "task.toml")[0] == 0
    again, rows = measured(tmp_path / "q" / "task.toml")
    first, second = sorted(rows)
    assert again == 0 and first == "my-shelf" and re.fullmatch("my-shelf-[0-9a-f]{6}", second)
    assert measured(tmp_path / "p" / "task.toml") == (1, rows) and measured(tmp_path / "q" / "task.toml") == (1, rows)
    (tmp_path / "p").rename(tmp_path / "moved")
    assert measured(tmp_path / "moved" / "task.toml") == (1, rows)
    (tmp_path / "q" / "data/retrieval/labels.csv").write_text((examples / "data/retrieval/labels.csv").read_text())
    assert measured(tmp_path / "q" / "task.toml") == (1, rows), "the very data of the other: the very row"


def other_labels(table: Path) -> str:
    """The table with the labels of its first and last picture exchanged."""
    head, *lines = (line.split(",") for line in table.read_text().splitlines())
    assert lines[0][1] != lines[-1][1]
    lines[0][1:], lines[-1][1:] = lines[-1][1:], lines[0][1:]
    return "".join(",".join(line) + "\n" for line in [head, *lines])


def test_edited_data_replace_their_row(examples, tmp_path):
    shutil.copytree(examples / "data" / "retrieval", tmp_path / "data" / "retrieval")
    file = shutil.copy(examples / "instance_retrieval.toml", tmp_path)
    options = {"results": tmp_path / "r", "cache": tmp_path / "c", "check": False}
    for edited in (False, True):
        if edited:
            table = tmp_path / "data/retrieval/labels.csv"
            table.write_text(other_labels(table))
        assert run("pixels", str(file), **options).reused == 0
        assert len(read_all(tmp_path / "r")[0]) == 1
