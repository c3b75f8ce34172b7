"""A user's own data: nine kinds of TOML task, and mistakes answered with their line."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import sys
import tarfile
from pathlib import Path

import miniatures
import numpy as np
import pytest
from PIL import Image

from benchmark import load_encoder, load_task, run
from benchmark.errors import DataError, UsageError
from benchmark.registry import tasks
from tasks.datasets.user import open_task

EXAMPLES = Path(__file__).parents[1] / "examples" / "my_task"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my_task")
    for path in EXAMPLES.glob("*.toml"):
        shutil.copy(path, folder)
    spec = importlib.util.spec_from_file_location("make_data", EXAMPLES / "make_data.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder / "data", train=8, test=4)
    return folder


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "my_task.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("task", tasks())
def test_every_task_has_an_example_that_reads(examples, task):
    user = open_task(examples / f"{task}.toml")
    assert user.task == task
    for split in user.dataset.info.splits:
        data = user.dataset.data(tasks()[task]["kind"], split)
        images = data.queries if tasks()[task]["kind"] == "retrieval" else data.images
        assert len(images) >= 2 and images.load(0).shape == (64, 64, 3)
        assert len(data.digest) == 64 and pickle.loads(pickle.dumps(data)).digest == data.digest


def test_segmentation_masks_pair_by_name_and_label_255_is_ignored(examples):
    data = open_task(examples / "linear_segmentation.toml").dataset.data("segmentation", "test")
    assert data.class_names == ("ground", "leaf", "apple")
    assert [data.images.image_id(i) for i in range(2)] == ["1000.jpg", "1001.jpg"]
    raw = np.asarray(Image.open(examples / "data/segmentation/test/masks/1000.png"))
    assert (data.target(0) == raw).all() and data.target(0).dtype == np.uint8


def test_templates_reach_the_data_and_the_protocol(examples):
    user = open_task(examples / "zero_shot_segmentation.toml")
    assert user.protocol_overrides == {"templates": '"dataset"'}
    data = user.dataset.data("segmentation", "test")
    assert data.templates[0] == "a photo of a {}." and data.background == 0


def test_depth_png_is_millimetres_and_a_share_splits_without_overlap(examples):
    dataset = open_task(examples / "depth.toml").dataset
    train, test = dataset.data("depth", "train"), dataset.data("depth", "test")
    ids = [{s.images.image_id(i) for i in range(len(s.images))} for s in (train, test)]
    assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 8
    assert 1.9 < train.target(0).min() <= train.target(0).max() < 2.1


@pytest.mark.parametrize("limit", [None, "5.0"])
def test_depth_bins_reach_to_the_files_limit_or_to_the_farthest_training_pixel(examples, tmp_path, limit):
    """Bins over 80 m say nothing of a room, and an untrained encoder would win."""
    text = (examples / "depth.toml").read_text().replace("max_depth = 5.0\n", f"max_depth = {limit}\n" if limit else "")
    path = examples / f"depth-{limit}.toml"
    path.write_text(text.replace("my-room", f"room-{bool(limit)}"))
    task = load_task(str(path), cache=tmp_path, workers=0)
    farthest = max(float(task.data["train"].target(i).max()) for i in range(len(task.data["train"].images)))
    found = task.run(load_encoder("pixels"))
    if limit:
        assert task.data["test"].max_depth == found.details["max_depth_m"] == 5.0
    else:
        assert 0.9 * farthest < found.details["max_depth_m"] <= farthest * 1.0001
    assert (found.samples["n"] > 0).all()


def test_normals_are_unit_vectors(examples):
    data = open_task(examples / "normals.toml").dataset.data("normals", "test")
    assert np.allclose(np.linalg.norm(data.target(1), axis=-1), 1, atol=1e-5) and data.target(1)[0, 0, 2] < -0.9


def test_classes_by_folder_agree_between_splits(examples):
    dataset = open_task(examples / "classification.toml").dataset
    train, test = dataset.data("labels", "train"), dataset.data("labels", "test")
    assert train.class_names == test.class_names == ("apple", "leaf")
    assert {train.images.image_id(i).split("/")[0] for i in np.flatnonzero(train.labels == 0)} == {"apple"}


def test_retrieval_queries_are_the_index_with_domains(examples):
    data = open_task(examples / "instance_retrieval.toml").dataset.data("retrieval", "test")
    assert data.self_index.tolist() == list(range(8)) and set(data.query_domains) == {"orchard", "garden"}
    assert (np.bincount(data.query_labels) == 2).all()


def test_separate_queries_share_label_numbers_with_the_index(examples, write, tmp_path):
    shutil.copytree(examples / "data/retrieval/images", tmp_path / "index")
    shutil.copytree(examples / "data/retrieval/images", tmp_path / "queries")
    shutil.copy(examples / "data/retrieval/labels.csv", tmp_path / "i.csv")
    rows = (tmp_path / "i.csv").read_text().splitlines()
    (tmp_path / "q.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]))
    head = 'task = "instance_retrieval"\nname = "x"\nimages = "index"\nlabels = "i.csv"\n'
    path = write(head + 'queries = "queries"\nquery_labels = "q.csv"\n')
    data = open_task(path).dataset.data("retrieval", "test")
    assert data.query_labels.tolist() == data.index_labels.tolist()
    assert data.self_index.tolist() == list(range(8)), "a copy of the query is the query"


def test_a_query_that_lies_in_the_index_folder_too_never_finds_itself(examples, write, tmp_path):
    shutil.copytree(examples / "data/retrieval/images", tmp_path / "index/all")
    rows = (examples / "data/retrieval/labels.csv").read_text().splitlines()
    (tmp_path / "q.csv").write_text("\n".join(rows))
    (tmp_path / "i.csv").write_text("\n".join([rows[0], *("all/" + row for row in reversed(rows[1:]))]))
    head = 'task = "instance_retrieval"\nname = "x"\nimages = "index"\nlabels = "i.csv"\n'
    path = write(head + 'queries = "index/all"\nquery_labels = "q.csv"\n')
    data = open_task(path).dataset.data("retrieval", "test")
    ids = [data.index.image_id(i) for i in data.self_index]
    assert ids == ["all/" + data.queries.image_id(i) for i in range(len(data.queries))]


def test_a_query_whose_label_the_index_lacks_is_named(write, tmp_path):
    for name in ("index/1.jpg", "queries/1.jpg"):
        miniatures.save_jpeg(tmp_path / name, 1)
    (tmp_path / "i.csv").write_text("image,label\n1.jpg,Mug\n")
    (tmp_path / "q.csv").write_text("image,label\n1.jpg,mug\n")
    head = 'task = "instance_retrieval"\nname = "x"\nimages = "index"\nlabels = "i.csv"\n'
    path = write(head + 'queries = "queries"\nquery_labels = "q.csv"\n')
    with pytest.raises(DataError, match="q.csv:2: no picture of the index is 'mug' in 'x'"):
        open_task(path).dataset.data("retrieval", "test")


def test_shards_hold_pictures_and_masks_side_by_side(examples, write, tmp_path):
    for part, names in enumerate((("1000", "1001"), ("1002", "1003"))):
        with tarfile.open(tmp_path / f"shard-{part}.tar", "w") as archive:
            for name in names:
                for kind, suffix in (("images", "jpg"), ("masks", "png")):
                    archive.add(examples / f"data/segmentation/test/{kind}/{name}.{suffix}", f"{name}.{suffix}")
    path = write(
        'task = "zero_shot_segmentation"\nname = "x"\nclasses = ["ground", "leaf", "apple"]\n'
        'images = "shard-*.tar"\nmasks = "shard-*.tar"\n'
    )
    packed = open_task(path).dataset.data("segmentation", "test")
    plain = open_task(examples / "zero_shot_segmentation.toml").dataset.data("segmentation", "test")
    assert packed.images.digest == plain.images.digest and (packed.target(3) == plain.target(3)).all()


SEG = 'task = "linear_segmentation"\nname = "x"\nclasses = ["a", "b"]\n'
PLACES = "".join(f'[{split}]\nimages = "i"\nmasks = "m"\n' for split in ("train", "test"))
HEAD = 'task = "linear_segmentation"\nname = "x"\n\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('task = "linear_segmentation"\nname = "x\n', r":2: is not TOML"),
        ('name = "x"\n', r":1: 'task' is missing"),
        (
            'task = "depth"\n[train]\nimages = "a"\ndepth = "b"\n[val]\nimages = "a"\ndepth = "b"\n',
            r":5: unknown field 'val' in depth. The split that is scored is called 'test'",
        ),
        ('\ntask = "depht"\nname = "x"\n', r":2: unknown task 'depht'. Did you mean 'depth'\?"),
        ('task = "depth"\nname = "a/b"\n', r":2: name = 'a/b' becomes a folder"),
        *(
            (
                f'task = "depth"\nname = "x"\n{key} = {value}\n',
                rf":3: {key} = {value} must be a number of metres above 0",
            )
            for key, value in (("max_depth", "nan"), ("max_depth", "-1"), ("depth_scale", "inf"))
        ),
        (
            'task = "depth"\nname = "x"\n[protocol]\nsteps = 1979-05-27\n',
            r":4: protocol.steps = 1979-05-27 must be a finite number, a string",
        ),
        ('task = "depth"\nname = "NYUv2"\n', r":2: name = 'NYUv2' is one of our datasets, whose rows yours would"),
        (
            HEAD + '[train]\nimages = "i"\nmask = "m"\n',
            r":6: unknown field 'mask' in \[train\]. Did you mean 'masks'",
        ),
        (HEAD + "classes = 3\n", r":4: classes = 3 is int, must be list or str"),
        (SEG + '[train]\nimages = "i"\nmasks = "m"\n', r"'images' is missing in \[test\]"),
        (SEG + '[test]\nimages = "i"\nmasks = "m"\n[train]\nimages = "i"\n', r":7: 'masks' is missing in \[train\]"),
        (SEG + 'images = "i"\nmasks = "m"\n', r":4: a trained task needs two splits"),
        (SEG + 'images = "i"\nmasks = "m"\nsplit = { test = 2.0 }\n', r":6: split must be"),
        (SEG + "depth_scale = 0.1\n", r":4: unknown field 'depth_scale'"),
        (
            SEG + 'templates = ["no place"]\n[train]\nimages="i"\nmasks="m"\n[test]\nimages="i"\nmasks="m"',
            r":4: template",
        ),
    ],
)
def test_mistakes_name_the_line_and_the_remedy(write, text, message):
    with pytest.raises(UsageError, match=message):
        open_task(write(text))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("stpes = 3", r"my_task.toml:7: unknown protocol field of linear_segmentation \[fast\] 'stpes'"),
        ("crop = 3", r"my_task.toml:7: 'crop' is a field of linear_segmentation \[.*, not of \[fast\]. Leave it out"),
        ('with_cls = "yes"', r"my_task.toml:7: with_cls: 'yes' is str, must be bool"),
        ("with_cls = 2020-01-01", r"my_task.toml:7: protocol.with_cls = 2020-01-01 must be a finite number, a string"),
    ],
)
def test_a_wrong_protocol_field_names_its_line(write, field, message):
    path = write(HEAD + f'classes = ["a", "b"]\n\n[protocol]\n{field}\n{PLACES}')
    with pytest.raises(UsageError, match=message):
        load_task(str(path))


def test_set_is_blamed_for_its_own_mistake(write):
    path = write(HEAD + f'classes = ["a", "b"]\n[protocol]\nwith_cls = true\n{PLACES}')
    with pytest.raises(UsageError, match="^--set with_cls: 'yes' is str"):
        load_task(str(path), overrides={"with_cls": "yes"})


def test_missing_folder_names_the_line_of_its_key(write):
    path = write(SEG + '[train]\nimages = "i"\nmasks = "m"\n\n[test]\nimages = "nowhere"\nmasks = "m"\n')
    with pytest.raises(UsageError, match=r"my_task.toml:9: images = 'nowhere': no such folder"):
        open_task(path).dataset.data("segmentation", "test")


def test_picture_without_mask_is_named_with_counts(examples, write, tmp_path):
    shutil.copytree(examples / "data/segmentation/test", tmp_path / "t")
    (tmp_path / "t/masks/1002.png").unlink()
    table = '{ images = "t/images", masks = "t/masks" }'
    path = write(SEG.replace('"a", "b"', '"a", "b", "c"') + f"train = {table}\ntest = {table}\n")
    with pytest.raises(DataError, match=r"masks: no file named like 1002.jpg; 3 of 4 have one"):
        open_task(path).dataset.data("segmentation", "test")


def test_bad_rows_of_tables_name_their_line(examples, write, tmp_path):
    shutil.copytree(examples / "data/captions", tmp_path / "c")
    path = write('task = "text_to_image_retrieval"\nname = "x"\nimages = "c/images"\ncaptions = "c/captions.jsonl"\n')
    rows = (tmp_path / "c/captions.jsonl").read_text().splitlines()
    for broken, message in (
        ("{", r"captions.jsonl:2: is not JSON"),
        (json.dumps({"image": "9.jpg", "caption": "x"}), r"captions.jsonl:2: no picture '9.jpg'"),
        (json.dumps({"image": "1.jpg", "caption": " "}), r"captions.jsonl:2: caption .* is empty"),
        (json.dumps({"image": "1.jpg", "captions": []}), r"captions.jsonl:2: has no caption"),
        (json.dumps({"image": "1.jpg", "captions": "x"}), r"captions.jsonl:2: captions 'x' is no list"),
        (json.dumps({"caption": "x"}), r"captions.jsonl:2: has no 'image'"),
    ):
        (tmp_path / "c/captions.jsonl").write_text("\n".join([rows[0], broken, *rows[2:]]))
        with pytest.raises(DataError, match=message):
            open_task(path).dataset.data("captions", "test")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_file_names_that_are_no_utf8_are_pictures_like_others(tmp_path):
    for split in ("train", "test"):
        for i in range(4):
            folder = os.fsencode(tmp_path / split / "xy"[i % 2])
            os.makedirs(folder, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), i + 9 * (split == "test"), np.uint8)).save(tmp_path / "one.png")
            os.replace(tmp_path / "one.png", folder + b"/caf\xe9%d.png" % i)
    (tmp_path / "cafe.toml").write_text(
        'task = "classification"\nname = "cafe"\n[train]\nimages = "train"\n[test]\nimages = "test"\n'
    )
    words = {"ks": "[1]", "headline_k": "1"}
    report = run("pixels", str(tmp_path / "cafe.toml"), results=tmp_path / "r", cache=tmp_path / "c", check=False,
                 workers=0, overrides=words)  # fmt: skip
    assert [note.text for note in report.failures] == []
    assert sorted(report.rows[0].samples["id"]) == [rf"{'xy'[i % 2]}/caf\xe9{i}.png" for i in (0, 2, 1, 3)]
