"""Rows and data of others: their words reach terminals, Markdown and spreadsheets as words, never as commands."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import pytest
from rows import write_row

from benchmark.cli import main
from benchmark.cli.tables import show_report
from benchmark.engine.report import Report
from benchmark.errors import BenchError
from benchmark.leaderboard import build
from benchmark.rows.row import read_all, read_row
from benchmark.rows.tables import load_results, write_tables
from benchmark.system.escaping import escape, printable
from benchmark.watch.checkpoints import damage, find, is_training_state

FORMULA = '=HYPERLINK("http://example.com";"open")'
MARKUP = "<img src=x>|[a](b)"


@pytest.mark.parametrize("place", ["model", "dataset", "metric", "unit"])
def test_names_that_a_terminal_would_obey_are_no_names(tmp_path: Path, place: str) -> None:
    folder = write_row(tmp_path, "model-a", "classification", dataset="photos")
    word = {"model": '"model-a"', "dataset": '"photos"', "metric": '"kNN top-1"', "unit": '"%"'}[place]
    text = (folder / "result.json").read_text(encoding="utf-8")
    (folder / "result.json").write_text(text.replace(word, word[:-1] + '\\u001b]0;owned\\u0007"'), encoding="utf-8")
    with pytest.raises(BenchError, match="which is no name") as caught:
        read_row(folder)
    assert printable(str(caught.value)) == str(caught.value)


def test_a_name_that_is_no_text_is_refused_and_spoils_no_table(tmp_path: Path) -> None:
    write_row(tmp_path, "model-a", "classification")
    folder = write_row(tmp_path, "model-b", "classification")
    text = (folder / "result.json").read_text(encoding="utf-8")
    (folder / "result.json").write_text(text.replace('"name": "fast"', '"name": 1'), encoding="utf-8")
    write_tables(tmp_path)
    assert set(load_results(tmp_path).model) == {"model-a"}


def test_brackets_without_end_stop_neither_tables_nor_a_watch(tmp_path: Path) -> None:
    deep = "[" * 200_000
    folder = write_row(tmp_path / "rows", "model-a", "classification")
    (folder / "result.json").write_text(deep)
    assert [line for line in read_all(tmp_path / "rows")[1] if "cannot be read as a result" in line]
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep.encode())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text(deep)
    (tmp_path / "b" / "model.safetensors").write_bytes(b"")
    found = [c for c in find(tmp_path) if not is_training_state(c)]
    assert [c.name for c in found] == ["a.safetensors", "b"] and all(map(damage, found))


def test_errors_spell_control_characters_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "\x1b[2Jnowhere", "b", "--results", str(tmp_path)])
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and r"\x1b[2Jnowhere" in shown


def test_tables_hold_no_formula_and_no_markup(tmp_path: Path) -> None:
    write_row(tmp_path, FORMULA, "classification", dataset=MARKUP)
    write_row(tmp_path, MARKUP, "classification", dataset=FORMULA)
    written = [*write_tables(tmp_path), *build(tmp_path).paths]
    for path in (p for p in written if p.suffix == ".csv"):
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert f"'{FORMULA}" in cells and FORMULA not in cells
    for path in (p for p in written if p.suffix == ".md"):
        text = path.read_text(encoding="utf-8")
        assert "<img" not in text and "](b)" not in text.replace(r"\](b)", "") and escape(MARKUP) in text
    assert FORMULA in set(load_results(tmp_path).model)  # only files that spreadsheets open are changed


def test_a_folder_in_brackets_is_no_style(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [read_row(write_row(tmp_path, "model-a", "classification"))]
    for folder in ("[red]", "a[/b]"):
        show_report(Report(rows=rows), Path(folder), [Path(folder) / "results.csv"], tmp_path)
        shown = capsys.readouterr().out
        assert f"Rows: {folder}/<model>" in shown and f"Tables: {folder}/results.csv" in shown


def test_what_is_no_utf8_is_spelled_out() -> None:
    assert printable("caf\udce9, \ud83d, naïve") == r"caf\udce9, \ud83d, naïve"


def test_a_backslash_does_not_free_the_sign_after_it() -> None:
    assert escape(r"a\|b") == r"a\\\|b"
