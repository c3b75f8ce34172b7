"""What a notebook shows: short words and tables, and one line for what is no name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from rows import write_row, write_rows
from test_names import here  # noqa: F401

from benchmark import ImageRequest, load_encoder, load_results, load_task, run
from benchmark.engine.report import Note, Report, words_of
from benchmark.errors import EncoderError, UsageError
from benchmark.rows.row import read_all
from benchmark.rows.tables import format_value


def test_reports_and_rows_are_short_and_are_tables(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a<b>": 0.6}, ("depth", "classification"))
    rows = read_all(tmp_path)[0]
    report = Report(rows=rows, failures=[Note("m", None, "no <weights>")])
    assert repr(report) == "<Report: 2 rows, 0 not applicable, 1 failed. table() is a pandas table>"
    assert list(report.table()["task"]) == [row.data.task.name for row in rows]
    page = report._repr_html_()
    assert "<table" in page and "a&lt;b&gt;" in page and "<li>m: no &lt;weights&gt;</li>" in page
    row = next(row for row in rows if row.data.task.name == "depth")
    assert repr(row).startswith("<Row a<b> on depth/scenes by fast: RMSE ") and len(repr(row)) < 120
    assert "<td>RMSE</td>" in row._repr_html_() and "a<b>" not in row._repr_html_()


def test_a_paper_table_has_models_across_and_no_two_protocols_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, {"a_b": 0.6, "c": 0.5}, ("depth", "classification"))
    write_row(tmp_path, "c", "depth", 0.5, protocol_name="paper")
    table = load_results(tmp_path, wide=True)
    assert list(table.columns) == ["chance", "a_b", "c"] and table.index.names == ["task", "protocol", "metric"]
    lines = {(task, protocol.split()[0], metric) for task, protocol, metric in table.index}
    assert lines == {
        ("classification/scenes", "fast", "kNN top-1 % ↑"),
        ("depth/scenes", "fast", "RMSE m ↓"),
        ("depth/scenes", "paper", "RMSE m ↓"),
    }
    (paper,) = (line for place, line in table.iterrows() if place[1].startswith("paper"))
    row = next(row for row in read_all(tmp_path)[0] if row.data.protocol.name == "paper")
    assert list(paper) == ["", "", format_value(row.main)] and "[" in paper.iloc[2]
    latex = table.to_latex(escape=True)
    assert r"kNN top-1 \%" in latex and r"a\_b" in latex and latex.count(r"\\") == 2 + len(table)
    assert Report(rows=read_all(tmp_path)[0]).table(wide=True).equals(table)


def test_a_task_is_one_line_and_objects_are_told_where_to_go(here: Path) -> None:
    task = load_task("toys.toml")
    assert repr(task).startswith("<LoadedTask instance_retrieval/") and "\n" not in repr(task) and len(repr(task)) < 120
    for models, tasks in ((object(), "toys.toml"), ("pixels", task), (["pixels"], [task])):
        with pytest.raises(UsageError, match=r"run takes names, not \w+ objects. For an encoder object: load_task"):
            run(models, tasks)  # type: ignore[arg-type]
    (row,) = run("pixels", "toys.toml", check=False).rows
    assert row.data.command == "run(['pixels'], ['toys.toml'], check=False)"
    with pytest.raises(UsageError, match="unknown keyword of run 'taks'. Did you mean 'tasks'"):
        run("pixels", taks="toys.toml")
    with pytest.raises(UsageError, match="unknown keyword of run 'protocl'. Did you mean 'protocol'"):
        run("pixels", "toys.toml", protocl="fast")


def test_a_library_that_is_missing_stops_what_needs_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    encoder = load_encoder("tipsv2-mini", device="cpu")
    assert encoder.encode_image(torch.zeros(1, 3, 96, 96), ImageRequest()).patches.shape == (1, 12, 12, 128)
    with pytest.raises(EncoderError, match="texts need the library sentencepiece, which cannot be imported"):
        encoder.encode_text(["a house"])
    said = words_of(ModuleNotFoundError("No module named 'jax.numpy'", name="jax.numpy"))
    assert said.startswith("No module named 'jax.numpy'. jax is missing or broken: install it again")


def test_a_broken_library_that_tells_no_name_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text("raise ImportError('libx.so: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError) as caught:
        importlib.import_module("half_there")
    assert words_of(caught.value).startswith("libx.so: cannot open. half_there is missing or broken: install it again")
    assert words_of(ImportError("libx.so")).startswith("libx.so. the library is missing or broken")
