import errno
import importlib
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmark.errors import BenchError
from benchmark.features import codec
from benchmark.features import store as store_module
from benchmark.features.store import FeatureStore, shard_items
from benchmark.system import sealed


def filled(store: FeatureStore, n: int = 300, **key: str):
    array = store.array({"weights": "w", **key}, n)
    values = np.random.default_rng(0).normal(size=(n, 2, 3)).astype(np.float32)
    for shard in array.missing():
        rows = array.shard_range(shard)
        array.write(shard, values[rows.start : rows.stop])
    return array, values


def test_reads_back_ints_slices_and_scattered_indices(tmp_path):
    array, values = filled(FeatureStore(tmp_path, "float32"))
    assert array.shape == (300, 2, 3) and array.missing() == []
    for rows in (7, slice(100, 290), slice(None), np.array([299, 0, 128, 128, 5])):
        assert torch.equal(array[rows], torch.from_numpy(values[rows]))


def test_reads_as_a_sequence_does_from_both_ends_and_not_past_them(tmp_path):
    """Python's own protocol of sequences is among it: `for item in array` ends where the items do."""
    array, values = filled(FeatureStore(tmp_path, "float32"))
    odd = np.arange(300) % 2 == 1
    for rows in (-1, -300, np.int64(-3), np.array([-1, 5, -300]), [2, -2], slice(-5, None), odd, torch.tensor(7)):
        assert torch.equal(array[rows], torch.from_numpy(values[np.asarray(rows) if torch.is_tensor(rows) else rows]))
    assert array[[]].shape == array[300:].shape == array[~(odd | True)].shape == (0, 2, 3)
    assert len(list(array)) == 300
    for rows in (300, -301, np.array([0, 300]), [0, -301], 1.0, odd[:-1], "train"):
        with pytest.raises(IndexError):
            array[rows]


@pytest.mark.parametrize(("name", "worst"), [("float32", 0.0), ("float16", 5e-4), ("int8", 1 / 150)])
def test_codecs_keep_what_they_promise(name, worst):
    values = np.random.default_rng(1).normal(size=(50, 4, 64)).astype(np.float32)
    back = codec.decode(codec.encode(values, name), slice(None), name)
    scale = np.abs(values) if name == "float16" else np.abs(values).max(-1, keepdims=True)
    assert (np.abs(back - values) <= worst * scale + 1e-7).all()


@pytest.mark.parametrize("scale", [1e-4, 1e-6, 1e-8])
def test_small_features_keep_their_digits(scale):
    values = np.random.default_rng(1).normal(size=(50, 4, 64)).astype(np.float32) * np.float32(scale)
    for name in codec.CODECS:
        back = codec.decode(codec.encode(values, name), slice(None), name)
        assert np.abs(back - values).max() <= np.abs(values).max() / 200


@given(hnp.arrays(np.float32, (3, 8), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
@settings(max_examples=50)
def test_no_codec_makes_a_finite_value_infinite(values):
    for name in codec.CODECS:
        assert np.isfinite(codec.decode(codec.encode(values, name), slice(None), name)).all()


def like_a_vit(n: int, seed: int = 0) -> np.ndarray:
    """[n, 5, 5, 48]: a dimension is large and hardly varies, one is large in a few tokens, some tokens are long."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 5, 5, 48)) * rng.uniform(0.01, 3, 48)
    values[rng.random((n, 5, 5)) < 0.01] *= 100
    values[..., 7] = 120 + 0.05 * rng.normal(size=(n, 5, 5))
    values[..., 20] += 100 * (rng.random((n, 5, 5)) < 0.002)
    return values.astype(np.float32)


def test_int8_keeps_every_dimension_beside_large_constant_ones_and_outlier_tokens(tmp_path):
    """Ordinary tokens, each dimension by its own spread; values of the second shard lie far beyond the first's."""
    values = like_a_vit(200)
    values[128:, ..., 3] = 50 + 40 * values[128:, ..., 3]
    array = FeatureStore(tmp_path, "int8").array({"weights": "w"}, len(values))
    for shard in range(array.num_shards):
        array.write(shard, values[array.shard_range(shard).start : array.shard_range(shard).stop])
    assert array.num_shards == 2 and array.shape == values.shape
    back = array[:].numpy()
    assert np.array_equal(array[np.array([199, 3, 130])].numpy(), back[[199, 3, 130]])
    for part in (slice(0, 128), slice(128, 200)):
        there, kept = (x[part].reshape(-1, 48).astype(float) for x in (values, back))
        low, high = np.quantile(there, [0.02, 0.98], axis=0)
        ordinary = ((there >= low) & (there <= high)).mean(1) > 0.9
        spread = there[ordinary].std(0)
        error = np.sqrt(((there - kept)[ordinary] ** 2).mean(0)) / spread
        assert error.max() < 0.02
        assert np.abs(kept.max(0) - there.max(0)).max() < 0.01 * np.abs(there).max(), "nothing is clipped"
    assert FeatureStore(tmp_path, "int8").array(array.key, 200).missing() == []


def test_int8_of_one_token_or_equal_ones_is_exact():
    for values in (
        like_a_vit(1)[:, :1, :1],
        np.tile(like_a_vit(1)[:, :1, :1], (9, 1, 1, 1)),
        np.zeros((4, 6), np.float32),
    ):
        assert np.array_equal(codec.decode(codec.encode(values, "int8"), slice(None), "int8"), values)


def test_int8_is_refused_where_it_loses_a_thousandth_of_the_variance(tmp_path):
    """In every token another dimension is a thousandfold, or a long token has a dimension that is constant elsewhere:
    no scale of a token fits the rest of it."""
    rng = np.random.default_rng(0)
    peaks = rng.normal(size=(128, 16, 64)).astype(np.float32)
    np.put_along_axis(peaks, rng.integers(0, 64, (128, 16, 1)), 1000, 2)
    long = like_a_vit(128)
    long[rng.random((128, 5, 5)) < 0.01] *= 100
    for values in (peaks, long):
        array = FeatureStore(tmp_path, "int8").array({"weights": "w", "n": values.shape}, 128)
        with pytest.raises(BenchError, match=r"--store int8 would lose .* % of these features' variance.*float16"):
            array.write(0, values)
        assert array.missing() == [0]


def test_truncated_shard_is_noticed_and_redone(tmp_path):
    array, values = filled(FeatureStore(tmp_path, "float32"))
    path = array.folder / "shard-00001.npy"
    path.write_bytes(path.read_bytes()[:-5])
    again, _ = filled(FeatureStore(tmp_path, "float32"))
    assert torch.equal(again[:], torch.from_numpy(values))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert FeatureStore(tmp_path, "float32").array({"weights": "w"}, 300).missing() == [1]


def test_a_shard_that_was_written_but_not_entered_counts_as_missing(tmp_path):
    """What a kill between the two writes leaves behind."""
    array, _ = filled(FeatureStore(tmp_path))
    manifest = sealed.read_json(array.folder / "manifest.json")
    del manifest["shards"]["2"]
    sealed.write_json(array.folder / "manifest.json", manifest)
    assert FeatureStore(tmp_path).array({"weights": "w"}, 300).missing() == [2]


def test_damaged_manifest_means_everything_is_missing(tmp_path):
    array, _ = filled(FeatureStore(tmp_path))
    (array.folder / "manifest.json").write_text("{")
    assert FeatureStore(tmp_path).array({"weights": "w"}, 300).missing() == [0, 1, 2]


def test_every_part_of_the_key_counts_but_the_name_for_people(tmp_path):
    store = FeatureStore(tmp_path)
    first = store.array({"weights": "w", "view": "a", "model": "x"}, 10).folder
    assert store.array({"weights": "w", "view": "a", "model": "y"}, 10).folder == first
    assert store.array({"weights": "w", "view": "b", "model": "x"}, 10).folder != first
    assert FeatureStore(tmp_path, "int8").array({"weights": "w", "view": "a"}, 10).folder != first


def test_not_finite_features_are_never_stored(tmp_path):
    array = FeatureStore(tmp_path).array({}, 2)
    with pytest.raises(ValueError, match="finite"):
        array.write(0, np.array([[1.0], [np.nan]], np.float32))


def test_full_disk_is_one_line_and_keeps_what_was_there(tmp_path, monkeypatch):
    array, values = filled(FeatureStore(tmp_path, "float32"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BenchError, match="disk is full. Free some space"):
        array.write(0, values[:128] + 1)
    assert torch.equal(array[:], torch.from_numpy(values))
    assert not list(array.folder.glob("*.tmp"))


def test_prune_by_model_age_and_size(tmp_path):
    store = FeatureStore(tmp_path)
    for model in ("a", "b", "c"):
        filled(store, model=model, view=model)
    assert {e["key"]["model"] for e in store.entries()} == {"a", "b", "c"}
    assert store.prune(older_than_s=3600) == 0
    store.prune(model="b")
    assert {e["key"]["model"] for e in store.entries()} == {"a", "c"}
    store.prune(max_bytes=1)
    assert store.entries() == []


def test_prune_finds_what_killed_processes_left(tmp_path):
    store = FeatureStore(tmp_path)
    array, _ = filled(store, model="a", view="a")
    half = store.array({"view": "killed before its first shard was whole"}, 300).folder
    for folder in (half, array.folder):
        (folder / ".shard-00000.npy.x1.tmp").write_bytes(bytes(1000))
    assert store.prune(model="nobody") == 0  # it may be a living process that writes there
    for path in (half, array.folder / ".shard-00000.npy.x1.tmp"):
        os.utime(path, (0, 0))
    assert store.prune(model="nobody") == 2000
    assert not half.exists() and [p.name for p in array.folder.glob(".*.tmp")] == [] and array.missing() == []


def test_an_array_that_is_pruned_while_in_use_is_one_line(tmp_path):
    array, _ = filled(FeatureStore(tmp_path))
    FeatureStore(tmp_path).prune()
    with pytest.raises(BenchError, match=r"deleted while it was in use .* Run the same command again"):
        array[0]
    array.item = (4,)
    with pytest.raises(BenchError, match="deleted while it was in use"):
        array[0]


def test_many_arrays_share_the_few_files_a_process_may_open(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_open_shards", store_module.OpenShards(10))
    monkeypatch.setattr("os.fsync", lambda *_: None)
    maps = store_module._open_shards._maps
    for name in "abc":
        array = FeatureStore(tmp_path, "float32").array({"view": name}, 8, item_bytes=2**30)
        for shard in range(array.num_shards):
            array.write(shard, np.full((1, 2), shard, np.float32))
        assert array[:].tolist() == [[i, i] for i in range(8)] and len(maps) == min(10, 8 * ("abc".index(name) + 1))
    array.write(3, np.full((1, 2), -1, np.float32))
    assert array[3].tolist() == [-1, -1]


def test_a_cache_that_is_only_read_serves_what_it_has(tmp_path, monkeypatch):
    _, values = filled(FeatureStore(tmp_path, "float32"))

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.utime", read_only)
    again = FeatureStore(tmp_path, "float32").array({"weights": "w"}, 300)
    assert again.missing() == [] and torch.equal(again[:], torch.from_numpy(values))


def test_prune_of_a_model_looks_at_no_other_one(tmp_path):
    """Age and size bound what goes of it: they are no further reasons to delete."""
    store = FeatureStore(tmp_path)
    for model in ("a", "b", "c"):
        filled(store, model=model, view=model)
    old = next(e["folder"] for e in store.entries() if e["key"]["model"] == "c")
    os.utime(old, (0, 0))
    assert store.prune(model="a", older_than_s=3600) == 0
    assert store.prune(model="b", max_bytes=10**9) == 0
    assert {e["key"]["model"] for e in store.entries()} == {"a", "b", "c"}
    store.prune(model="a", max_bytes=0)
    assert {e["key"]["model"] for e in store.entries()} == {"b", "c"}


def test_shard_boundaries_depend_on_the_sets_size_and_the_items_alone():
    assert shard_items(100) == shard_items(65536) == 128
    assert shard_items(1_281_167) == 4096


@pytest.mark.parametrize(
    ("n", "item", "size"), [(9, 2**19, 128), (9, 2**19 + 1, 64), (9, 2**30, 1), (65537, 2**15, 2048)]
)
def test_a_shard_of_large_items_is_bounded_by_bytes(n, item, size):
    assert shard_items(n, item) == size and shard_items(n) % size == 0


def test_an_array_from_before_that_bound_stays_as_it_is(tmp_path):
    array, values = filled(FeatureStore(tmp_path, "float32"))
    manifest = json.loads((array.folder / "manifest.json").read_text())
    assert manifest.pop("size") == 128 and manifest.pop("sha256") and manifest.pop("schema") == 2
    manifest["schema"] = 1
    (array.folder / "manifest.json").write_text(json.dumps(manifest))
    again = FeatureStore(tmp_path, "float32").array({"weights": "w"}, 300, item_bytes=2**30)
    assert again.missing() == [] and torch.equal(again[:], torch.from_numpy(values))
    new = FeatureStore(tmp_path, "float32").array({"weights": "x"}, 300, item_bytes=2**25)
    assert new.num_shards == 150 and FeatureStore(tmp_path).entries()[0]["of"] == 3


def test_a_shard_is_the_file_that_numpy_writes(tmp_path):
    array, values = filled(FeatureStore(tmp_path, "float32"), 5)
    buffer = io.BytesIO()
    np.save(buffer, values)
    assert (array.folder / "shard-00000.npy").read_bytes() == buffer.getvalue()


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_single_rows_of_items_are_read_as_from_the_whole(tmp_path, codec):
    """Sampled pixels, wherever they lie: the same values, and the last axes alone."""
    array = FeatureStore(tmp_path, codec).array({"tokens": codec}, 300)
    values = np.random.default_rng(0).normal(size=(300, 5, 8)).astype(np.float32)
    for shard in range(array.num_shards):
        span = array.shard_range(shard)
        array.write(shard, values[span.start : span.stop])
    items, rows = np.array([299, 0, 130, 130, 7]), np.array([4, 0, 1, 3, 1], np.int32)
    assert torch.equal(array[items, rows], array[:][items, rows])
    assert torch.equal(array[items, np.zeros(5, int)], array[:][items, 0])


def test_what_was_read_of_shards_leaves_the_process(tmp_path, monkeypatch):
    shards = importlib.import_module("benchmark.features.shards")
    gone: list[int] = []
    monkeypatch.setattr(shards, "RESIDENT", 3 * 128 * 4 * 4)
    monkeypatch.setattr(shards, "let_go", lambda array: gone.append(array.nbytes))
    monkeypatch.setattr(store_module, "_open_shards", shards.OpenShards(10))
    array = FeatureStore(tmp_path, "float32").array({"weights": "w"}, 5 * 128)
    for shard in range(5):
        array.write(shard, np.full((128, 4), shard, np.float32))
    assert array[:].mean() == 2 and len(gone) == 4 and not array[0].any() and len(gone) == 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_mapped_file_that_was_let_go_of_is_no_memory_of_the_process(tmp_path):
    from benchmark.system.mapped import let_go, mapped

    def resident() -> int:
        return int(re.findall(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[0])  # kB

    np.save(tmp_path / "a.npy", np.ones(4 << 20, np.float32))
    array = mapped(tmp_path / "a.npy")
    total, before = array.sum(), resident()
    let_go(array)
    assert before - resident() > 12_000 and array.sum() == total == 4 << 20
    let_go(np.ones(3))
