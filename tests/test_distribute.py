"""Extraction on a Ray cluster of this machine: the same numbers as in one process, also when a worker dies."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch
from command import bench
from small import Noise, SmallEncoder

from benchmark.contracts import Need, Tap, View, WeightsInfo
from benchmark.contracts.progress import silent
from benchmark.errors import BenchError
from benchmark.features.cluster import Recipe, fill_range, fresh, ranges
from benchmark.features.plan import Planner, identity
from benchmark.features.store import FeatureStore
from benchmark.system.digest import fingerprint

DYING = """
import dataclasses
import os
from pathlib import Path

from benchmark import load_encoder
from benchmark.contracts import ImageRequest

MARK = Path({mark!r})


class Dying:
    def __init__(self, inner):
        self.inner, self.transform = inner, inner.transform
        self.card = dataclasses.replace(inner.card, code_version=os.environ["KEY"])  # features of its own

    def encode_image(self, images, request=ImageRequest()):
        if os.getpid() != {parent} and not MARK.exists():
            MARK.touch()
            os._exit(1)
        return self.inner.encode_image(images, request)

    def encode_text(self, texts):
        return self.inner.encode_text(texts)


def build(spec):
    return Dying(load_encoder("random-vit"))
"""
TASKS = ["--task", "classification/scenes", "--task", "image_to_text_retrieval/scenes", "--limit", "300"]


def numbers(results: Path) -> dict[str, dict[str, float]]:
    rows = [json.loads(p.read_text()) for p in sorted(results.rglob("result.json"))]
    return {r["task"]["name"]: {k: m["value"] for k, m in r["metrics"].items()} for r in rows}


def test_ranges_are_whole_in_order_and_even():
    assert ranges([1, 2, 5, 6, 7], 2) == [[1, 2], [5, 6, 7]]
    assert ranges([4], 8) == [[4]]
    assert sorted(len(r) for r in ranges(range(10), 4)) == [2, 2, 3, 3]


def checkpoint(gain: float) -> SmallEncoder:
    """Checkpoints of one model: the same name, other weights."""
    encoder = SmallEncoder("small")
    encoder.map *= gain
    encoder.card = dataclasses.replace(encoder.card, weights=WeightsInfo("a file", fingerprint(gain)))
    return encoder


def filled(folder: Path, asked: SmallEncoder, loaded: SmallEncoder) -> torch.Tensor:
    """What a worker that makes `loaded` stores for `asked`."""
    planner = Planner(asked.card, asked.transform, FeatureStore(folder, "float32"))
    need = Need(Noise(3), View("square"), Tap("cls"))
    planner.add([need])
    task = planner.of(need)
    recipe = Recipe("small", fingerprint(identity(asked.card)), lambda: loaded, "cpu", None, 0, silent)
    fill_range((recipe, task.images, task.view, fresh(task)), [0])
    return planner.array(need)[:]


def test_a_worker_loads_a_second_checkpoint_of_the_same_name(tmp_path):
    one, two = (filled(tmp_path, checkpoint(gain), checkpoint(gain)) for gain in (1.0, 2.0))
    assert torch.equal(two, 2 * one)


def test_a_worker_with_other_weight_files_stores_nothing(tmp_path):
    with pytest.raises(BenchError, match="small: a worker on .* loads weights .* Give every machine the same files"):
        filled(tmp_path, checkpoint(3.0), checkpoint(4.0))
    assert not list(tmp_path.rglob("shard-*"))


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray starts its servers so, which run no JAX
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")  # Ray's
def test_a_cluster_gives_the_numbers_of_one_process_though_a_worker_dies(tmp_path, monkeypatch):
    import ray

    mark = tmp_path / "died"
    (tmp_path / "dying.py").write_text(DYING.format(mark=str(mark), parent=os.getpid()))
    model = f"{tmp_path / 'dying.py'}:build"
    monkeypatch.setenv("KEY", f"{tmp_path}/one")
    assert bench("run", "--model", model, *TASKS, "--results", str(tmp_path / "a"), "--workers", "0") == 0
    assert not mark.exists()
    monkeypatch.setenv("KEY", f"{tmp_path}/many")
    try:
        assert bench("run", "--model", model, *TASKS, "--results", str(tmp_path / "b"), "--ray", "local") == 0
    finally:
        ray.shutdown()
    assert mark.exists(), "no worker ever encoded"
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert len(numbers(tmp_path / "b")) == 2
