"""Parts of other packages, and code of one's own, that break (broken_parts.py): each is one line, none stops another,
and no exit code of theirs passes for ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import broken_parts
import pytest

from benchmark import registry
from benchmark.cli import main
from benchmark.cli.commands import COMMANDS
from benchmark.contracts import DatasetInfo, DatasetSource

Bench = Callable[[str], tuple[int, str, str]]


def install(monkeypatch: pytest.MonkeyPatch, points: dict[str, dict[str, str]]) -> None:
    """Makes these the entry points of all that is installed: kind -> {name: target}."""
    listed = EntryPoints(
        EntryPoint(name, target, f"densebench.{kind}") for kind, of in points.items() for name, target in of.items()
    )
    monkeypatch.setattr(registry, "_installed", lambda: listed)
    forget()


def forget() -> None:
    """Clears what a process keeps of the entry points."""
    registry._plug_ins.cache_clear()
    registry._loaded.cache_clear()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    """Words of a command -> (exit code, standard output, standard error); the broken parts are installed."""
    kinds = {"tasks": broken_parts.TASKS, "datasets": broken_parts.DATASETS, "adapters": broken_parts.ENCODERS}
    install(monkeypatch, {kind: {name: f"broken_parts:{name}" for name in of} for kind, of in kinds.items()})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words.split())
        out, err = capsys.readouterr()
        assert "Traceback" not in err and "defect of densebench" not in err
        return int(ended.value.code or 0), out, err

    yield call
    monkeypatch.undo()
    forget()


def rows(out: str) -> list[str]:
    return [row["task"]["dataset"] for row in map(json.loads, out.splitlines())]


@pytest.mark.parametrize(
    "words",
    ["ends/whole", "needs_exit/whole", "mean/exits", "mean/exits_late", "mean/exits_late --limit 4"],
)
def test_code_that_ends_the_process_is_one_failed_job_and_the_others_are_run(bench: Bench, words: str) -> None:
    code, out, err = bench(f"run --model pixels --json --task {words} --task mean/whole")
    assert code == 1 and rows(out) == ["whole"] and "calls sys.exit(0)" in err


def test_a_reader_that_ends_the_process_can_be_left_out(bench: Bench) -> None:
    code, out, _ = bench("run --model pixels --json --task mean/exits_late --max-bad 1")
    assert code == 0 and json.loads(out)["bad"] == ["test/3: cannot be read (calls sys.exit(0)). Replace the file"]


def test_no_command_takes_a_foreign_exit_code_for_its_own(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("import sys\ndef build():\n    sys.exit(0)\n")
    (tmp_path / "script.py").write_text("raise SystemExit\n")
    for words in ("check --model leaves", "run --model leaves --task mean/whole", "plan --model leaves --task mean"):
        code, _, err = bench(words)
        assert code != 0 and "leaves: its package cannot build it (calls sys.exit(0))" in err
    for words in ("check --model mine.py:build", "run --model mine.py:build --task mean/whole"):
        code, _, err = bench(words)
        assert code != 0 and "mine.py:3: calls sys.exit(0)" in err
    code, _, err = bench("check --model script.py:build")
    assert code != 0 and "script.py:1: calls sys.exit(None)" in err
    for words in ("data verify exits", "data verify exits_late"):
        code, out, err = bench(words)
        assert code == 1 and "calls sys.exit(0)" in out
    code, out, err = bench("plan --model pixels --task mean/exits --task needs_exit/whole --task mean/whole")
    assert code == 0 and out.count("calls sys.exit(0)") == 2
    monkeypatch.setitem(COMMANDS, "look", "broken_parts:command")
    code, _, err = bench("look")
    assert code == 1 and "calls sys.exit(0): its exit code is none of bench's" in err


def test_a_model_whose_code_breaks_stops_no_other(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import sys\ndef leaves():\n    sys.exit('done')\ndef none():\n    pass\ndef divides():\n    1 / 0\n"
    )
    said = {
        "mine.py:leaves": "mine.py:3: calls sys.exit('done')",
        "mine.py:none": "the function returned None. Let it return the encoder",
        "mine.py:divides": "mine.py:7: ZeroDivisionError: division by zero",
        "leaves": "its package cannot build it (calls sys.exit(0))",
    }
    code, out, err = bench(f"run --model {' --model '.join(said)} --model pixels --json --task mean/whole")
    assert code == 1 and rows(out) == ["whole"]
    assert all(line in err for line in said.values())
    code, out, _ = bench("run --model leaves --model pixels --task mean/whole")
    assert code == 1 and "1 failed (leaves); the same command tries it again." in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("needs_key/whole", "KeyError: 'nowhere'"),
        ("needs_list/whole", "needs of NeedsList gives list, no mapping of names to Need"),
        ("gives_none/whole", "run of GivesNone gives NoneType, no Outcome"),
        ("short_column/whole", "columns of these lengths: {'id': 1, 'level': 3}"),
        ("other_metric/whole", "the main metric 'mIoU' is not measured: mean"),
        ("no_column/whole", "reads column 'level' of an outcome with id"),
        ("mean/floats", "test/0: is float32 [32, 32, 3], where a picture is [H, W, 3] uint8"),
        ("mean/divides", "test/3: cannot be read (integer division or modulo by zero)"),
        ("mean/empty", "empty: its odd data: holds no sample"),
        ("mean/no_digest", "the digest of NoDigest is None. Return 64 hex digits"),
        ("mean/takes_nothing --limit 3", "takes_nothing test: NoneType is no benchmark.contracts.Samples"),
        ("mean/a_list", "list is no benchmark.contracts.Samples"),
        ("mean/a_key", "KeyError: 'test'"),
        ("mean/no_open", "open gives NoneType, no benchmark.contracts.Dataset"),
    ],
)
def test_a_part_that_breaks_is_one_line_and_one_job(bench: Bench, words: str, said: str) -> None:
    code, out, err = bench(f"run --model pixels --json --task mean/whole --task {words}")
    assert code == 1 and rows(out) == ["whole"] and err.count("error: ") == 1 and said in err
    code, out, err = bench(f"plan --model pixels --task {words} --task mean/whole")
    assert code == 0 and "whole" in out


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("no_presets/whole", "names no file of presets"),
        ("no_fast/whole", "unknown protocol of no_fast 'fast'. All: "),
        ("mean/unread", "unread has no mean; it has unheard, which no task here reads"),
        ("unread", "unread has unheard, which no task here reads"),
        ("only_lost", "which no task here reads, and it is only for lost"),
    ],
)
def test_wrong_words_say_what_there_is(bench: Bench, task: str, said: str) -> None:
    for command in ("run", "plan"):
        code, _, err = bench(f"{command} --model pixels --task {task}")
        assert code == 2 and said in err


def test_not_applicable_is_no_failure(bench: Bench) -> None:
    code, _, _ = bench("run --model pixels --task not_for/whole --task mean/whole")
    assert code == 0
    code, out, _ = bench("plan --model pixels --task not_for/whole")
    assert code == 0 and "n/a: no encoder of this width" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("floats", "test/0: is float32 [32, 32, 3], where a picture is [H, W, 3] uint8"),
        ("divides", "test/3: cannot be read (integer division or modulo by zero)"),
        ("other_size", "test/0: its target is [16, 16], the picture [32, 32, 3]"),
        ("empty", "holds no sample"),
        ("no_digest", "the digest of NoDigest is None"),
    ],
)
def test_verify_tells_what_no_score_should_be_made_of(bench: Bench, name: str, said: str) -> None:
    code, out, _ = bench(f"data verify {name} --workers 1")
    assert code == 1 and said in out


def test_training_pictures_among_the_test_pictures_stand_in_the_row(bench: Bench) -> None:
    code, out, _ = bench("run --model pixels --json --task trained/seen")
    assert code == 0 and "2 of 3 test pictures are training pictures too" in json.loads(out)["notes"][0]


def test_maps_without_a_valid_pixel_have_no_range(bench: Bench) -> None:
    _, out, _ = bench("data verify no_depth")
    assert "0.0 % of pixels valid" in out and "nan" not in out


def test_names_that_are_taken_or_could_not_be_asked_for_are_left_out_and_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = {"tasks": "depth", "datasets": "scenes", "adapters": "pixels"}
    install(monkeypatch, {kind: {name: "broken_parts:whole"} for kind, name in taken.items()})
    with caplog.at_level(logging.WARNING, "densebench"):
        assert "entry_point" not in registry.models()["pixels"] and "plug_in" not in registry.datasets()["scenes"]
        assert "plug_in" not in registry.tasks()["depth"]
    assert caplog.text.count("densebench has one of this name") == 3
    install(monkeypatch, {"datasets": dict.fromkeys(["a/b", "../x", "mine.toml", "fine"], "broken_parts:whole")})
    caplog.clear()
    assert "fine" in registry.datasets() and not {"a/b", "../x", "mine.toml"} & registry.datasets().keys()
    assert caplog.text.count("is left out: a name is made of") == 3


def test_text_where_several_words_are_asked_for_is_refused() -> None:
    info = DatasetInfo("mine", "mine", "CC0", "none", "none", "embedded", "labels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data set mine: kinds is text. Write \('labels',\)"):
        DatasetSource(info, lambda root, options: broken_parts.leave())
