"""`bench cache`: all that grows is listed and can go, but for what a running process uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.cli import main
from benchmark.features.cache import other_entries
from benchmark.features.store import FeatureStore
from benchmark.system import cache_users

USER = """
import sys, time
from pathlib import Path
from benchmark.features.store import FeatureStore
root = Path(sys.argv[1])
FeatureStore(root / "features").array({"model": "used", "view": "used"}, 4)
print("holds it", flush=True)
time.sleep(60)
"""


def filled(root: Path) -> dict[str, Path]:
    """A cache with 1000 bytes and more of each kind, all used long ago: kind or model -> folder."""
    found = {}
    for model in ("used", "idle"):
        array = FeatureStore(root / "features").array({"model": model, "view": model}, 4)
        array.write(0, np.ones((4, 100), np.float32))
        found[model] = array.folder
    for folder in ("scenes/v1-test", "scenes/.v1-train.x1.part", "recipe/scenes-1", "heads/a1", "digests", "archives"):
        found[folder] = root / folder
        found[folder].mkdir(parents=True)
        (found[folder] / "file").write_bytes(bytes(1000))
    for age, place in enumerate(found.values()):
        os.utime(place, (age + 1, age + 1))
    return found


def bench(*words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["cache", *words])
    assert not stop.value.code


def test_all_of_it_is_listed_with_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    found = filled(tmp_path)
    bench("ls", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {Path(line["folder"]) for line in lines} == set(found.values())
    assert all(line["bytes"] >= 1000 for line in lines if line["kind"] != "features")
    bench("ls")
    assert "rendered scenes" in (text := capsys.readouterr().out) and "unfinished heads" in text


def test_the_least_recently_used_goes_first_whatever_it_is_and_tables_only_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    found = filled(tmp_path)
    entries = [*FeatureStore(tmp_path / "features").entries(), *other_entries(tmp_path)]
    sizes = {entry["folder"]: entry["bytes"] for entry in entries}
    bench("prune", "--max-size", str(sum(sizes.values()) - sizes[found["used"]] - sizes[found["idle"]] - 1))
    assert [name for name, folder in found.items() if not folder.exists()] == ["used", "idle", "scenes/v1-test"]
    bench("prune", "--older-than", "1d")
    assert [name for name, folder in found.items() if folder.exists()] == ["digests", "archives"]
    bench("prune", "--all")
    assert not any(folder.exists() for folder in found.values())


def test_what_a_running_process_uses_stays_until_it_ends(tmp_path: Path) -> None:
    found = filled(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", USER, str(tmp_path)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "holds it\n"
            assert cache_users.since(tmp_path) <= time.time()
            FeatureStore(tmp_path / "features").prune(others=other_entries(tmp_path))
            assert [name for name, folder in found.items() if folder.exists()] == ["used"]
        finally:
            process.kill()
    FeatureStore(tmp_path / "features").prune()
    assert not found["used"].exists() and cache_users.since(tmp_path) == float("inf")
