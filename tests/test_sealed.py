"""One bit that turns in a stored file is noticed: the file is named and made again, or refused; never believed."""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from rows import write_row
from torch import nn

from adapters.tipsv2.recipe.checkpoint import load_checkpoint, save_checkpoint
from benchmark import noise
from benchmark.engine.jobs import Slot
from benchmark.errors import BenchError
from benchmark.features.store import FeatureStore, StoredArray
from benchmark.files import write_text
from benchmark.history import Entry, History, Point
from benchmark.results import SAMPLES_DIGEST, read_row
from benchmark.sealed import DIGEST, Damaged, read_sealed, seal, seal_tensors, unseal, unseal_tensors
from tasks.mm.checkpoint import Checkpoint, Curve
from tasks.scenes import store as scenes
from tasks.training.checkpoint import load_state, save_state

FLIPS = 60  # of each kind of file; the long form is tests/faults


def flipped(path: Path, seed: int, count: int = FLIPS):
    """Turns one bit after the other at random places of a file, which is whole again afterwards."""
    content, rng = path.read_bytes(), random.Random(seed)
    stat = path.stat()
    try:
        for _ in range(count):
            place = rng.randrange(len(content))
            changed = bytearray(content)
            changed[place] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            os_times(path, stat)
            yield place
    finally:
        path.write_bytes(content)
        os_times(path, stat)


def os_times(path: Path, stat) -> None:
    """As a bit that turns on disk: no time changes."""
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_sealed_json_reads_back_and_says_what_changed_it(tmp_path):
    content = {"a": [1, 2.5, None], "é": {"b": "x"}, "n": float(2**60)}
    assert unseal(seal(content)) == content
    assert read_sealed(tmp_path / "none.json") is None
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(Damaged, match=r"a\.json: damaged"):
        read_sealed(tmp_path / "a.json")
    path = tmp_path / "b.json"
    path.write_text(seal(content), encoding="utf-8")
    for place in flipped(path, 0, 400):
        with suppress(Damaged):
            assert read_sealed(path) == content, place  # a space, or the digits of a number of the same value


def test_sealed_tensors_read_back_and_notice_every_bit(tmp_path):
    path = tmp_path / "t.safetensors"
    tensors = {"w": torch.randn(3, 4), "n": torch.tensor(7), "b": torch.ones(5, dtype=torch.bfloat16)}
    seal_tensors(path, tensors, {"key": "k"})
    found = unseal_tensors(path)
    assert found and found[1] == {"key": "k"} and all(torch.equal(found[0][k], v) for k, v in tensors.items())
    same = 0
    for _ in flipped(path, 1, 400):
        try:
            again = unseal_tensors(path)
        except Damaged:
            continue
        assert again and again[1] == {"key": "k"} and all(torch.equal(again[0][k], v) for k, v in tensors.items())
        same += 1
    assert same < 40  # spaces of the header's padding


def stored(folder: Path) -> tuple[StoredArray, np.ndarray]:
    array = FeatureStore(folder, "float32").array({"weights": "w"}, 200)
    values = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    for shard in array.missing():
        rows = array.shard_range(shard)
        array.write(shard, values[rows.start : rows.stop])
    return array, values


def test_stored_features_are_made_again_or_are_what_they_were(tmp_path):
    array, values = stored(tmp_path)
    for name in ("manifest.json", "shard-00000.npy", "shard-00001.npy"):
        for place in flipped(array.folder / name, 2):
            again = FeatureStore(tmp_path, "float32").array({"weights": "w"}, 200)
            if not again.missing():
                assert torch.equal(again[:], torch.from_numpy(values)), (name, place)


def test_a_manifest_of_before_they_were_sealed_is_held_against_its_shards(tmp_path):
    array, values = stored(tmp_path)
    path = array.folder / "manifest.json"
    old = {**unseal(path.read_text()), "schema": 1}
    path.write_text(json.dumps(old, indent=1))
    assert not FeatureStore(tmp_path, "float32").array({"weights": "w"}, 200).missing()
    for size in (64, 129, 256, 0):
        path.write_text(json.dumps({**old, "size": size}))
        assert FeatureStore(tmp_path, "float32").array({"weights": "w"}, 200).missing(), size
    path.write_text(json.dumps(old, indent=1))
    for place in flipped(path, 3, 300):
        again = FeatureStore(tmp_path, "float32").array({"weights": "w"}, 200)
        if not again.missing():
            assert torch.equal(again[:], torch.from_numpy(values)), place


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    head = nn.Linear(4, 3)
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.1)
    head(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    return head, optimiser


def test_heads_in_training_begin_again_from_a_damaged_state(tmp_path, caplog):
    head, optimiser = trained()
    save_state(tmp_path, "key", head, optimiser, [1.0, 0.5])
    curve = Curve(1)
    curve.add(1, 0.1, 2.0, 50.0)
    Checkpoint(tmp_path / "probe.safetensors").save(1, head, optimiser, curve)
    right = Checkpoint(tmp_path / "probe.safetensors").read()
    fresh, other = trained()
    assert load_state(tmp_path, "key", fresh, other, "cpu").step == 2
    for _ in flipped(tmp_path / "head.safetensors", 4):
        fresh = nn.Linear(4, 3)
        if load_state(tmp_path, "key", fresh, torch.optim.AdamW(fresh.parameters()), "cpu").step:
            assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), head.parameters()))
    for _ in flipped(tmp_path / "probe.safetensors", 5):
        found = Checkpoint(tmp_path / "probe.safetensors").read()
        assert found is None or all(torch.equal(found[k], right[k]) for k in right)
    assert "head.safetensors: damaged" in caplog.text and "probe.safetensors: damaged" in caplog.text


def test_a_training_state_with_a_turned_bit_is_refused(tmp_path):
    tensors = {"student/w": torch.arange(12.0), "optimizer/w/step": torch.tensor(3.0)}
    path = save_checkpoint(tmp_path, 3, tensors, {"config": {"a": 1}}, 2)
    for name in ("state.safetensors", "state.json"):
        refused = 0
        for _ in flipped(path / name, 6):
            try:
                found, facts = load_checkpoint(path)
            except BenchError as e:
                assert str(path) in str(e) and "Remove this folder" in str(e)
                refused += 1
                continue
            assert facts == {"config": {"a": 1}, "step": 3} and all(torch.equal(found[k], tensors[k]) for k in tensors)
        assert refused > FLIPS // 2


def test_rows_are_refused_or_say_what_was_written(tmp_path):
    row = read_row(write_row(tmp_path, "m", "depth"))
    for name in ("result.json", "samples.parquet"):
        for _ in flipped(row.folder / name, 7):
            try:
                again = read_row(row.folder)
            except BenchError:
                continue
            assert again.data == row.data
            assert (name == "result.json") == again.has_its_samples()


def test_a_row_of_before_they_were_sealed_is_held_against_its_samples(tmp_path):
    row = read_row(write_row(tmp_path, "m", "depth"))
    data = {**json.loads(json.dumps(row.data)), "schema": 1}
    (row.folder / "result.json").write_text(json.dumps(data))
    assert read_row(row.folder).has_its_samples()
    name = data["main_metric"]
    data["metrics"][name]["value"] += 0.01
    (row.folder / "result.json").write_text(json.dumps(data))
    assert not read_row(row.folder).has_its_samples()
    assert not Slot(row.folder, data.get("request", "")).finished()


def test_rendered_scenes_are_read_whatever_their_times_say(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    folder = scenes.rendered("test", 16, 3)
    names = [path.name for path in folder.iterdir()]
    assert {"images.npy", "depth.npy", "semantic.npy", "normals.bin", "captions.json", "manifest.json"} <= set(names)
    for name in names:
        for place in flipped(folder / name, 8, 12):
            if scenes.intact(folder):  # white space of the manifest
                assert name == "manifest.json" and (folder / name).read_bytes()[place : place + 1].isspace()
    assert "images.npy: damaged" in caplog.text
    facts = unseal((folder / "manifest.json").read_text())
    assert facts["n"] == 3 and DIGEST not in facts


def test_a_reason_and_a_history_and_noise_floors_are_sealed(tmp_path):
    write_text(tmp_path / "row/not_applicable.json", seal({"reason": "no text tower", "request": "r"}))
    slot = Slot(tmp_path / "row", "r")
    for _ in flipped(tmp_path / "row/not_applicable.json", 9):
        assert slot.not_applicable() in (None, "no text tower")
    point = Point("depth/scenes", "fast-1", "RMSE", "m", False, 1.5, (1.4, 1.6))
    History(tmp_path / "watch", "m", "scenes").add(Entry("step-1", "s", 1, "", (point,)))
    for _ in flipped(tmp_path / "watch/state.json", 10):
        with suppress(BenchError):
            assert History.open(tmp_path / "watch", "m", "scenes").entries[0].points == (point,)
    floors = {"depth/scenes@12345678": {"m": {"floor": 0.25, "runs": {"reference": 1.0}}}}
    write_text(tmp_path / noise.FILE, seal({"schema": noise.SCHEMA, "floors": floors}))
    for _ in flipped(tmp_path / noise.FILE, 11):
        with suppress(BenchError):
            assert noise.read(tmp_path) == {"depth/scenes@12345678": 0.25}


def test_a_row_names_its_samples(tmp_path):
    assert len(read_row(write_row(tmp_path, "m", "depth")).data[SAMPLES_DIGEST]) == 64
