"""Results as a pandas table: one line per row and metric, the same in memory and in results.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from rows import write_row

from benchmark import load_results
from benchmark.summary import COLUMNS, write_tables


def test_the_table_in_memory_is_the_one_on_disk(tmp_path: Path) -> None:
    for model, skill in (("a", 0.7), ("b", 0.4)):
        write_row(tmp_path, model, "classification", skill)
        write_row(tmp_path, model, "depth", skill)
    table = load_results(tmp_path)
    assert list(table.columns) == list(COLUMNS)
    assert set(zip(table.model, table.task)) == {(m, t) for m in "ab" for t in ("classification", "depth")}
    assert (table.ci95_low < table.value).all() and (table.value < table.ci95_high).all()
    with write_tables(tmp_path)[0].open(encoding="utf-8") as file:
        written = {(r["model"], r["task"], r["metric"]): float(r["value"]) for r in csv.DictReader(file)}
    assert written == {(r.model, r.task, r.metric): r.value for r in table.itertuples()}


def test_no_row_is_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    assert load_results(tmp_path).empty
    assert list(load_results(tmp_path).columns) == list(COLUMNS)
