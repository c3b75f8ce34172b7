"""`scenes` as a dataset: contracts, splits, captions, and a cache that survives damage, kills and company."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmark.contracts import DatasetInfo, ImageSet
from benchmark.errors import BenchError, DataError, UsageError
from tasks.scenes import CLASS_NAMES, OBJECTS, STUFF, store
from tasks.scenes.captions import write_captions
from tasks.scenes.dataset import Scenes, open_dataset
from tasks.scenes.kinds import Pictures
from tasks.scenes.layout import compose
from tasks.scenes.render import render

INFO = DatasetInfo("scenes", "scenes", "Apache-2.0", "", "", "", ("segmentation", "depth", "normals"))
SMALL = {
    "size": "32",
    "n_train": "24",
    "n_test": "16",
    "n_labels_train": "24",
    "n_labels_test": "12",
    "n_retrieval": "48",
}


@pytest.fixture(scope="module")
def small() -> Scenes:
    return open_dataset(INFO, None, SMALL)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path / "scenes"


def as_new_process() -> None:
    store._found.clear()


def test_stored_targets_are_the_rendered_ones(small: Scenes) -> None:
    for split in ("train", "test"):
        data = {kind: small.data(kind, split) for kind in ("segmentation", "depth", "normals", "captions")}
        for index in (0, 5, 15):
            scene = render(0, index, 32, split=split)
            np.testing.assert_array_equal(data["segmentation"].images.load(index), scene.rgb)
            np.testing.assert_array_equal(data["segmentation"].target(index), scene.semantic)
            np.testing.assert_array_equal(data["depth"].target(index), scene.depth)
            np.testing.assert_array_equal(data["normals"].target(index), scene.normals)
            assert list(data["captions"].captions[index]) == [scene.long, scene.short]


def test_kinds_of_one_split_share_their_pictures(small: Scenes) -> None:
    kinds = ("segmentation", "depth", "normals", "captions")
    assert len({small.data(kind, "test").images.digest for kind in kinds}) == 1
    assert len({small.data(kind, "test").digest for kind in kinds}) == 4
    sets = [small.data("depth", "train"), small.data("depth", "test"), small.data("labels", "train")]
    assert len({data.images.digest for data in sets} | {small.data("retrieval", "test").queries.digest}) == 4


def test_digest_changes_with_size_count_and_split() -> None:
    digests = {Pictures(*rest).digest for rest in (("test", 96, 5), ("test", 64, 5), ("test", 96, 6))}
    assert len(digests) == 3 and not {split for split in store._found if split.name.endswith("test-96-6")}


def test_pictures_meet_the_contract_also_after_pickling(small: Scenes) -> None:
    images = pickle.loads(pickle.dumps(small.data("segmentation", "test").images))
    assert isinstance(images, ImageSet)
    assert len(images) == 16 and len(images.digest) == 64
    picture = images.load(15)
    assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8 and picture.flags.writeable
    assert len({images.image_id(i) for i in range(16)}) == 16
    with pytest.raises(IndexError):
        images.load(16)


def test_class_names_are_nine_stuff_and_twelve_objects(small: Scenes) -> None:
    data = small.data("segmentation", "test")
    assert tuple(data.class_names) == CLASS_NAMES and data.background is None
    assert (len(STUFF), len(OBJECTS), len(set(CLASS_NAMES))) == (9, 12, 21)


def test_labels_are_balanced(small: Scenes) -> None:
    data = small.data("labels", "train")
    assert data.labels.dtype == np.int64 and tuple(data.class_names) == OBJECTS
    assert set(Counter(data.labels.tolist()).values()) == {2}


def test_every_retrieval_query_has_three_answers_in_its_domain(small: Scenes) -> None:
    data = small.data("retrieval", "test")
    assert len(set(data.query_domains)) == 3
    domains = np.array(data.index_domains)
    for q in range(len(data.queries)):
        same = (data.index_labels == data.query_labels[q]) & (domains == data.query_domains[q])
        assert same.sum() == 4 and data.self_index[q] == q and same[q]
    full = Scenes(INFO)
    assert full.counts is None and store.SPLITS["retrieval"].n // 4 >= 150


def test_missing_kinds_and_splits_say_what_there_is(small: Scenes) -> None:
    with pytest.raises(DataError, match="retrieval in test"):
        small.data("retrieval", "train")
    with pytest.raises(DataError, match="no depth data for split 'val'"):
        small.data("depth", "val")


@pytest.mark.parametrize(
    "options",
    [{"size": "large"}, {"size": "8"}, {"n_test": "501"}, {"n_test": "0"}, {"colour": "red"}, {"captions": "x"}],
)
def test_impossible_options_are_usage_errors(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="scenes"):
        open_dataset(INFO, None, options)


def test_caption_option_chooses_one_granularity(small: Scenes) -> None:
    both = small.data("captions", "test").captions
    for which, k in (("long", 0), ("short", 1)):
        one = open_dataset(INFO, None, {**SMALL, "captions": which}).data("captions", "test")
        assert [row[0] for row in one.captions] == [row[k] for row in both]
        assert one.digest != small.data("captions", "test").digest


def test_a_repeated_caption_is_worded_anew(own_cache: Path) -> None:
    scene = render(0, 1, 32, split="test")
    captions = [["x", scene.short, "another"], [scene.alt, scene.short, scene.long]]
    first, second = store._worded_apart([list(row) for row in captions], "test", 32)
    assert first == captions[0]
    assert second[1] != scene.short and second[1] != second[2]
    again = write_captions(0, 1, "test", compose(0, 1, "test"), scene.objects, scene.semantic, variant=1)
    assert again.short != "" and again == write_captions(
        0, 1, "test", compose(0, 1, "test"), scene.objects, scene.semantic, variant=1
    )


def test_number_of_processes_leaves_every_byte_alone(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for count in (1, 2, 3):
        monkeypatch.setenv("BENCH_CACHE", str(own_cache / str(count)))
        monkeypatch.setattr(store, "workers", lambda n, count=count: count)
        folder = store.rendered("test", 32, 70)
        files = json.loads((folder / "manifest.json").read_text())["files"]
        found.append({name: row["sha256"] for name, row in files.items()})
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == {
        "images.npy", "semantic.npy", "depth.npy", "normals.bin", "normals_end.npy", "captions.json"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["images.npy", "depth.npy", "normals.bin", "captions.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damaged_files_are_rendered_again(own_cache: Path, name: str, damage: str) -> None:
    folder = store.rendered("test", 16, 3)
    path = folder / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-7])
    else:
        path.write_bytes(content[:10] + bytes([content[10] ^ 255]) + content[11:])
    as_new_process()
    assert store.rendered("test", 16, 3) == folder
    if name != "manifest.json":
        assert path.read_bytes() == content
    assert store.intact(folder, "test")
    assert [p.name for p in own_cache.iterdir() if p.name.endswith(".part")] == []


def test_a_pruned_cache_is_rendered_again_within_a_process(own_cache: Path) -> None:
    folder = store.rendered("labels-test", 16, 2)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert (store.rendered("labels-test", 16, 2) / "images.npy").is_file()


RENDER = "import sys; from tasks.scenes.store import rendered; print(rendered(sys.argv[1], 32, int(sys.argv[2])))"


def start(split: str, n: int, cache: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "BENCH_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", RENDER, split, str(n)], env=environment, stdout=subprocess.PIPE, text=True
    )


def content(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "manifest.json"}


def test_killed_rendering_leaves_no_trace_in_the_next(own_cache: Path) -> None:
    process = start("test", 300, own_cache.parent)
    while not list(own_cache.glob(".*.part/tick-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not [p for p in own_cache.iterdir() if not p.name.startswith(".")]
    folder = store.rendered("test", 32, 300)
    for index in (0, 149, 150, 299):
        expected = render(0, index, 32, split="test")
        np.testing.assert_array_equal(np.load(folder / "images.npy", mmap_mode="r")[index], expected.rgb)
    assert store.intact(folder, "test") and not list(own_cache.glob(".*.part"))


def test_two_runs_at_once_both_get_the_split(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [start("test", 80, own_cache.parent) for _ in range(2)]
    folders = {Path(process.communicate()[0].strip()) for process in pair}
    assert [process.returncode for process in pair] == [0, 0] and len(folders) == 1
    folder = folders.pop()
    assert store.intact(folder, "test")
    before = content(folder)
    monkeypatch.setenv("BENCH_CACHE", str(own_cache.parent / "alone"))
    assert content(store.rendered("test", 32, 80)) == before


def test_a_split_that_is_there_needs_nothing_written(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    folder = store.rendered("labels-test", 16, 2)
    store._found.clear()
    monkeypatch.setattr(store, "locked", read_only)
    assert store.rendered("labels-test", 16, 2) == folder


@pytest.mark.parametrize("locks", [True, False])
def test_without_locks_anothers_unfinished_split_is_left_alone(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    folder = store.rendered("labels-test", 16, 2)
    other = own_cache / f".{folder.name}.another.part"
    other.mkdir()
    (folder / "manifest.json").unlink()
    store._found.clear()
    assert store.rendered("labels-test", 16, 2) == folder
    assert store.intact(folder, "labels-test") and other.exists() != locks


def test_a_failing_rendering_process_is_one_line(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "start_arrays", lambda *args: None)
    with pytest.raises(BenchError, match="images.npy") as caught:
        store.rendered("labels-test", 16, 80)
    assert "\n" not in str(caught.value)


def test_a_cache_that_is_no_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(BenchError, match="BENCH_CACHE"):
        store.rendered("test", 16, 2)


def test_oracle_on_a_coarse_grid_leaves_room_and_position_alone_does_not_help() -> None:
    """What an 8 × 8 token grid can reach, and what the commonest class per pixel gets."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "perf"))
    try:
        from scenes import oracles
    finally:
        sys.path.pop(0)
    grid, majority = oracles(60)
    assert 72 < grid < 88 and majority < 8
