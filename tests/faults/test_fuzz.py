"""Changed bytes in strangers' files, in short, and what was found. The long form: `python tests/faults fuzz`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import mutate, nested
from readers import READERS, Reader

from adapters import weights_files
from benchmark.errors import BenchError

SHORT = ("pictures", "numpy", "idx", "archives", "docci", "own data", "rows and tables", "weights", "recipes")


@pytest.mark.parametrize("name", SHORT)
def test_changed_bytes_are_read_or_are_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    reader, draw = READERS[name], random.Random(name)
    files = list(reader.make(tmp_path / "data"))
    for _ in range(8):
        path = draw.choice(files)
        valid = path.read_bytes()
        path.write_bytes(mutate(valid, draw))
        try:
            reader.read(tmp_path / "data")
        except BenchError as e:
            assert len(str(e).splitlines()) == 1
        path.write_bytes(valid)


def changed(text: str, new: str) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(text.encode(), new.encode())


FOUND: list[tuple[str, str, Callable[[bytes], bytes], str]] = [
    ("coco", "coco/annotations/captions_val2014.json", lambda content: nested(200_000), "is no COCO captions file"),
    ("coco", "coco/annotations/captions_val2014.json", changed('"caption"', '"c"'), "no caption in COCO's file"),
    ("nyuv2", "nyuv2/splits.mat", lambda content: content[:-30], "splits.mat: has no t.* that can be read"),
    ("nyuv2", "nyuv2/splits.mat", lambda content: b"", "splits.mat: has no t.* that can be read"),
]


@pytest.mark.parametrize(("name", "file", "change", "said"), FOUND)
def test_what_fuzzing_found_in_official_files(
    tmp_path: Path, name: str, file: str, change: Callable[[bytes], bytes], said: str
) -> None:
    from benchmark.registry import open_dataset

    reader: Reader = READERS[name]
    reader.make(tmp_path)
    (tmp_path / file).write_bytes(change((tmp_path / file).read_bytes()))
    kind = "captions" if name == "coco" else "depth"
    with pytest.raises(BenchError, match=said):
        open_dataset(name, tmp_path).data(kind, "test") if kind == "captions" else open_dataset(
            name, tmp_path, {"source": "labelled"}
        ).data(kind, "test")


def test_normals_without_rows_are_named(tmp_path: Path) -> None:
    from benchmark.registry import open_dataset

    READERS["nyuv2"].make(tmp_path)
    np.save(tmp_path / "nyuv2" / "surfacenormal_metadata" / "all_normals.npy", np.zeros((1, 24, 32, 3), np.float32))
    data = open_dataset("nyuv2", tmp_path).data("normals", "test")
    with pytest.raises(BenchError, match="all_normals.npy: normals"):
        [data.target(i) for i in range(2)]


@pytest.mark.parametrize("index", [{"weight_map": ["a"]}, {"weight_map": {"w": 3}}, {"weight_map": {"w": "../x"}}])
def test_an_index_that_names_no_files(tmp_path: Path, index: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BenchError, match="weight_map says no file"):
        weights_files.weight_files(tmp_path, "m", "")


def test_a_name_longer_than_a_path_may_be_is_missing(tmp_path: Path) -> None:
    from tasks.datasets.places import Folder
    from tasks.datasets.user import open_task

    name = "a" * 5000
    assert Folder(tmp_path).missing([name]) == [name] and not Folder(tmp_path).has(name)
    file = tmp_path / "t.toml"
    file.write_text(f'task = "text_to_image_retrieval"\nname = "d"\nimages = "{name}"\ncaptions = "{name}"\n')
    with pytest.raises(BenchError):
        open_task(file).dataset.data("captions", "test")


def test_a_task_file_nested_without_end_is_one_line(tmp_path: Path) -> None:
    from adapters.tipsv2.recipe.config_file import read_config
    from tasks.datasets.user import open_task

    (tmp_path / "t.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(BenchError, match="nested too deeply"):
        open_task(tmp_path / "t.toml")
    with pytest.raises(BenchError, match="not a readable TOML file"):
        read_config(str(tmp_path / "t.toml"), {})
