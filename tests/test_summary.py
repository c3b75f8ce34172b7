"""Results as a pandas table: one line per row and metric, the same in memory and in results.csv."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from rows import write_row

from benchmark import load_results
from benchmark.rows.row import read_all
from benchmark.rows.tables import COLUMNS, csv_text, frame, write_tables
from benchmark.system.escaping import plain_cell

ROOT = Path(__file__).parents[1]


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


def test_the_file_is_what_pandas_would_write() -> None:
    rows = read_all(ROOT / "results" / "reference")[0]
    assert csv_text(rows) == frame(rows).map(plain_cell).to_csv(index=False, lineterminator="\n")


def test_no_row_is_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    assert load_results(tmp_path).empty
    assert list(load_results(tmp_path).columns) == list(COLUMNS)


def test_the_store_is_a_column_and_part_of_a_name(tmp_path: Path) -> None:
    """Also of a row from before it was part of its place; one that does not say it loads as well."""
    write_row(tmp_path, "new", "depth")
    write_row(tmp_path, "old", "depth")
    for folder, name in (("new", None), ("old", "fast-store-int8")):
        (file,) = (tmp_path / folder).rglob("result.json")
        data = json.loads(file.read_text())
        data["model"]["stored_as"] = "int8"
        file.write_text(json.dumps(data))
        if name:
            file.parent.rename(file.parent.with_name(f"{name}-{data['protocol']['hash'][:8]}"))
    write_row(tmp_path, "silent", "depth")
    table = load_results(tmp_path).set_index("model")
    assert table.store.to_dict() == {"new": "int8", "old": "int8", "silent": ""}
    text = write_tables(tmp_path)[1].read_text()
    assert "| new · store-int8 |" in text and "| old · store-int8 |" in text and "| silent |" in text
