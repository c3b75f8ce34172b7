"""What a model is called: --name, and what a user typed wherever a name is taken."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest
from command import bench, told

import benchmark
from benchmark.cli.export import _whole_name
from benchmark.engine.options import RunOptions
from benchmark.errors import UsageError
from benchmark.rows.row import read_all

ROOT = Path(__file__).parents[1]
ENCODER = """
from small import SmallEncoder

def build(spec):
    return SmallEncoder("mine")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Path) -> Path:
    """The current folder: an encoder in a file, an own task, and a folder of weights."""
    runpy.run_path(str(ROOT / "examples" / "my_task" / "make_data.py"))["main"](tmp_path / "data")
    shutil.copy(ROOT / "examples" / "my_task" / "instance_retrieval.toml", tmp_path / "toys.toml")
    (tmp_path / "enc.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


RUN = ("run", "--task", "toys.toml", "--no-check", "--model")


def test_a_row_is_called_what_the_user_calls_it(here: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(here.iterdir())
    assert told(capsys, *RUN, "enc.py:build", "--name", "mine")[0] == 0
    (row,) = read_all(results)[0]
    assert row.model == "mine" and row.folder.parents[2] == results / "mine"
    assert (
        str(row.data.model.asked).startswith("enc-")
        and "asked" in json.loads((row.folder / "result.json").read_text())["model"]
    )
    assert told(capsys, *RUN, "enc.py:build", "--name", "mine")[1].count("0 rows made, 1 were there") == 1
    code, _, error = told(capsys, *RUN, "pixels", "--name", "mine")
    assert (
        code == 2
        and f"{results / 'mine'} holds rows of enc-" in error
        and read_all(results)[0][0].data.id == row.data.id
    )
    assert set(here.iterdir()) - before <= {results, here / "__pycache__"}, "nothing else is written here"


def test_what_was_typed_is_found(here: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 row made, 0 were there" in told(capsys, *RUN, "pixels", "--model", "pixels")[1], "it is one model"
    for name in ((), ("--name", "mine")):
        assert told(capsys, *RUN, "enc.py:build", *name)[0] == 0
        for typed in ("enc.py:build", "./enc.py:build", str(here / "enc.py:build")):
            code, said, error = told(capsys, "compare", "pixels", typed)
            assert code == 0 and "instance_retrieval/" in said, error
            code, said, _ = told(capsys, "show", typed, "--json")
            assert code == 0 and "instance_retrieval" in json.loads(said)["rows"][0]
        (made,) = (place for place in results.iterdir() if place.name.startswith(("enc-", "mine")))
        shutil.rmtree(made)
    code, said, _ = told(capsys, "show", "enc.py:build")  # not measured yet: its card
    assert code == 0 and "embed_dim        6" in said
    assert "enc.py is code. Name the function" in told(capsys, "compare", "pixels", "enc.py")[2]
    assert "no function 'bild'" in told(capsys, "show", "enc.py:bild")[2]
    for name in ((), ("--name", "mine")):
        assert told(capsys, *RUN, "enc.py:build", *name)[0] == 0
    code, _, error = told(capsys, "compare", "pixels", "enc.py:build")
    assert code == 2 and "was measured under 2 names: enc-" in error and "mine. Give one" in error


def test_own_data_is_found_by_the_name_that_tables_give_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "--model", "pixels", "--model", "enc.py:build", "--task", "toys.toml", "--no-check") == 0
    capsys.readouterr()
    (unit,) = {row.unit for row in read_all(Path("results"))[0]}
    for word in (unit, unit.partition("/")[2]):
        code, said, _ = told(capsys, "show", word)
        assert code == 0 and said.startswith(f"{word}\n") and f"pixels on {unit} by fast-" in said
    assert set(json.loads(told(capsys, "show", unit, "--json")[1])) >= {"name", "made by"}
    assert told(capsys, "show", unit + "x")[0] == 2


def test_names_that_cannot_be_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for bad in ("", "a b", "a/b", "..", "ü"):
        with pytest.raises(UsageError, match="it becomes a folder"):
            RunOptions(name=bad)
    assert "bench ls models has a model of this name" in told(capsys, *RUN, "enc.py:build", "--name", "tipsv2-b")[2]
    assert "is for one model, 2 are named" in told(capsys, *RUN, "pixels", "--model", "random-vit", "--name", "x")[2]


def test_a_folder_of_weights_is_found_by_its_path(
    here: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "adapters" / "weights" / "clip-mini", here / "ckpt", ignore=shutil.ignore_patterns("stages"))
    assert told(capsys, *RUN, "clip-mini", "--weights", "ckpt")[0] == 0
    code, said, error = told(capsys, "compare", "ckpt", "ckpt/")
    assert code == 0 and "clip-mini@" in said, error


def test_a_row_of_exactly_that_name_is_the_one_that_is_meant(
    here: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("pixels",), ("pixels", "--name", "aa"), ("pixels", "--name", "bb"), ("random-vit",)):
        assert told(capsys, *RUN, *words)[0] == 0
    code, out, error = told(capsys, "compare", "random-vit", "pixels")
    assert code == 0 and "pixels" in out, error


@pytest.mark.parametrize("name", ["published", "sensitivity", "watch", "results.csv", "leaderboard.html"])
def test_words_that_stand_for_something_else_are_no_names(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, _, error = told(capsys, *RUN, "pixels", "--name", name)
    assert code == 2 and "stands for something else beside rows" in error


def test_the_package_lists_its_public_names_and_a_missing_folder_is_said() -> None:
    assert {"run", "load_task", "load_encoder", "load_results", "__version__"} <= set(dir(benchmark))
    with pytest.raises(UsageError, match="nowhere: no such folder. Run bench run first"):
        benchmark.load_results("nowhere")


def test_a_checkpoint_is_named_by_its_step_however_it_is_padded(tmp_path: Path) -> None:
    (tmp_path / "step-00000008").mkdir()
    assert _whole_name(tmp_path / "step-8") == _whole_name(tmp_path / "step-00000008") == tmp_path / "step-00000008"
    with pytest.raises(UsageError, match=r"step-9: no such folder. .* holds step-00000008"):
        _whole_name(tmp_path / "step-9")
