"""What a row holds, parsed once: rows of every day come out as they came in, and what is no row says so in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rows import row_data, save_json, simulate

from benchmark.rows.parse import Misfit, own_fields
from benchmark.rows.row import read_row, save
from benchmark.rows.schema import (
    SCHEMA,
    Densebench,
    Environment,
    Metric,
    ModelFacts,
    ProtocolFacts,
    ProtocolField,
    RowData,
    TaskFacts,
    Timing,
    Weights,
    parse_row,
)
from benchmark.system.paths import reference_dir

FROZEN = Path(__file__).parent / "frozen"
Edit = Callable[[dict[str, Any]], Any]


def a_row(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(row_data("a", "depth", simulate("depth", 0.6, 20, "a"))))
    return {**data, **changes}


@pytest.mark.parametrize("root", [*sorted(FROZEN.glob("*/")), reference_dir()], ids=lambda folder: folder.name)
def test_a_row_is_written_as_it_was_read(root: Path) -> None:
    files = sorted(root.rglob("result.json"))
    assert files
    for file in files:
        data = json.loads(file.read_bytes())
        assert json.dumps(parse_row(data).json()) == json.dumps(data), file


def test_fields_of_other_writers_are_kept_at_every_depth(tmp_path: Path) -> None:
    data = a_row(lab="north")
    for place in (data["model"]["weights"], data["metrics"]["RMSE"], next(iter(data["protocol"]["fields"].values()))):
        place["lab"] = {"room": 4}
    save_json(tmp_path / "one", data, simulate("depth", 0.6, 20, "a").samples)
    row = read_row(tmp_path / "one")
    save(tmp_path / "two", replace(row.data, seed=1), row.samples)
    again = json.loads((tmp_path / "two" / "result.json").read_bytes())
    assert again.pop("samples_sha256") and again == {**data, "seed": 1}


def test_scripts_may_read_a_row_as_the_json_it_was() -> None:
    data = a_row(lab="north")
    row = parse_row(data)
    assert row["metrics"]["RMSE"].get("value") == row.metrics["RMSE"].value
    assert {**row} == data and "chance" not in row.metrics["RMSE"] and row.metrics["RMSE"]["unit"] == "m"
    with pytest.raises(KeyError):
        row["median"]


def test_what_older_rows_lack_has_a_default() -> None:
    data = a_row(details=None, peak_memory_mb=None)
    for lost in ("command", "timing", "peak_memory_mb"):
        del data[lost]
    data["timing"] = {"total_s": 1}
    row = parse_row(data)
    assert (row.command, row.timing.fit_s, row.details, row.peak_memory_mb) == ("", 0.0, {}, None)
    assert row.json().keys() == data.keys() - {"details"} and row.json()["timing"] == {"total_s": 1}


WRONG: dict[str, tuple[Edit, str]] = {
    "no JSON object": (lambda d: d.clear(), "no schema, id, created, seed, model.name, model.dtype"),
    "no model": (lambda d: d.update(model=4), "no model.name, model.dtype, model.weights.sha256"),
    "a part's field": (lambda d: d["environment"]["densebench"].clear(), "no environment.densebench.version"),
    "a word": (lambda d: d["task"].update(n="many"), "task.n is 'many', which is no number of samples"),
    "less than a sample": (lambda d: d["task"].update(n=-1), "task.n is -1, which is no number of samples"),
    "a truth for a number": (lambda d: d.update(seed=True), "seed is True, which is no whole number"),
    "null": (lambda d: d.update(n_bad=None), "n_bad is None, which is no whole number"),
    "infinity": (lambda d: d["timing"].update(fit_s=float("inf")), "timing.fit_s is inf, which is no finite number"),
    "a list": (lambda d: d.update(partial="half"), "partial is 'half', which is no list of lines"),
    "an object": (lambda d: d["model"].update(weights=[1]), "no model.weights.sha256"),
    "a value": (lambda d: d["metrics"]["RMSE"].update(value="low"), "value of RMSE is 'low', which is no finite"),
    "a metric's field": (lambda d: d["metrics"]["RMSE"].pop("unit"), "no unit of RMSE"),
    "an interval": (lambda d: d["metrics"]["RMSE"].update(ci95=[1]), "ci95 of RMSE is [1], which is no [low, high]"),
    "a direction": (lambda d: d["metrics"]["RMSE"].update(higher_is_better=0), "is 0, which is neither true nor false"),
    "a metric's name": (lambda d: d["metrics"].update({"\a": {}}), r"a name in metrics is '\x07', which is no name"),
    "a statistic": (lambda d: d["metrics"]["RMSE"]["statistic"].clear(), "the statistic of RMSE is not one this"),
    "a field of the protocol": (lambda d: d["protocol"]["fields"].update(k=3), "no value of k"),
    "the main metric": (lambda d: d.update(main_metric="PSNR"), "main_metric 'PSNR' is not among its metrics"),
    "a later schema": (lambda d: d.update(schema=SCHEMA + 1, seed=None), f"schema {SCHEMA + 1} is newer than this"),
    "an earlier one": (lambda d: d.update(schema=0), "schema 0 is older than this densebench reads"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_row_is_refused_in_one_line_that_names_the_field(case: str) -> None:
    edit, said = WRONG[case]
    data = a_row()
    edit(data)
    with pytest.raises(Misfit) as caught:
        parse_row(data)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_schema_costs_no_import() -> None:
    heavy = "{'torch', 'pandas', 'pyarrow', 'scipy'} & set(sys.modules)"
    code = f"import sys, benchmark.rows.schema; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_on_rows_names_every_field_of_a_row() -> None:
    """Those of the objects within it too, and no field that there is not."""
    table = (
        (Path(__file__).parents[1] / "docs/rows.md")
        .read_text(encoding="utf-8")
        .partition("| field | what |")[2]
        .partition("\n\n")[0]
    )
    described = {}
    for line in table.splitlines()[2:]:
        name, what = line.strip("|").split("|")
        described[name.strip(" `")] = re.findall(r"`([^`]+)`", what)
    assert list(described) == [f.name for f, _ in own_fields(RowData)]
    within = {
        "model": [ModelFacts, Weights], "task": [TaskFacts], "protocol": [ProtocolFacts, ProtocolField],
        "metrics": [Metric], "timing": [Timing], "environment": [Environment, Densebench],
    }  # fmt: skip
    for part, kinds in within.items():
        assert sorted(described[part]) == sorted(f.name for kind in kinds for f, _ in own_fields(kind)), part
