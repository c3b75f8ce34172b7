"""Rows that today's code would not give again are marked in every table, and no other row is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import write_row

from benchmark import load_results, registry
from benchmark.cli.tables import show_report
from benchmark.compare.compare import compare
from benchmark.compare.papers import cells as line_cells
from benchmark.compare.papers import missing, reproduce
from benchmark.compare.report import cells, markdown
from benchmark.engine.loading import load_encoder
from benchmark.engine.report import Report
from benchmark.leaderboard import build
from benchmark.registry import code_of, code_versions, tasks
from benchmark.rows import stale as stale_rows
from benchmark.rows.row import read_all, read_row
from benchmark.rows.schema import parse_row
from benchmark.rows.tables import write_tables
from benchmark.system.digest import fingerprint
from benchmark.system.paths import reference_dir

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """A shipped row that says what made it, as though that had been the CLIP adapter."""
    data = next(r for r in read_all(reference_dir())[0] if r.model == "clip-mini" and r.unit == "depth/scenes").data
    whole = data.json()
    whole["model"]["code"] = {"adapters.clip": code_versions()["adapters.clip"]}
    whole["task"]["version"] = tasks()["depth"]["version"]
    return whole


def why(data: dict[str, Any], edit: Edit) -> str:
    """What a copy of `data` is stale for after `edit`."""
    changed = json.loads(json.dumps(data))
    edit(changed)
    return stale_rows.reason(parse_row(changed))


def test_no_shipped_row_is_stale() -> None:
    rows, problems = read_all(reference_dir())
    assert problems == [] and len(rows) > 40
    assert {r.folder.as_posix(): r.stale for r in rows if r.stale} == {}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d["model"]["code"].update({"adapters.clip": "1"}), "adapters.clip is version"),
        (lambda d: d["task"].update(version=1), "task depth is version"),
        (lambda d: d["protocol"]["fields"]["holdout"].update(value=0.5), "preset fast has changed: holdout"),
        (lambda d: d["protocol"]["fields"].pop("holdout"), "preset fast has changed: holdout"),
        (lambda d: d["protocol"]["fields"].update(gone={"value": 1}), "preset fast has changed: gone"),
        (lambda d: d["protocol"].update(hash="0" * 64), "preset fast has changed"),
        (lambda d: d["protocol"].update(name="fastest"), "no preset fastest any more"),
        (lambda d: d["task"].update(dataset_digest="0" * 64), "the data of scenes have changed"),
        (lambda d: d["task"].update(limit=20, dataset_digest="0" * 64), "the data of scenes have changed"),
    ],
)
def test_what_is_out_of_date_is_said(shipped: dict[str, Any], edit: Edit, said: str) -> None:
    assert stale_rows.reason(parse_row(shipped)) == ""
    assert said in why(shipped, edit)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: (d["model"].pop("code"), d["task"].pop("version")),  # before rows held them
        lambda d: d["model"].update(code={"adapters.elsewhere": "7"}),  # of a package that is not here
        lambda d: d["protocol"].update(name="fast+set", hash="0" * 64),
        lambda d: d["protocol"].pop("fields"),  # another program's row
        lambda d: d["task"].update(name="of another package"),
        lambda d: d["task"].update(dataset="nyuv2", dataset_digest="0" * 64),  # only its owner has the data
        lambda d: d["task"].update(dataset_options={"size": "64"}, dataset_digest="0" * 64),
        lambda d: d["task"].update(place="1a2b3c", dataset_digest="0" * 64),  # a file of the user's own of this name
    ],
)
def test_what_cannot_be_told_is_no_alarm(shipped: dict[str, Any], edit: Edit) -> None:
    assert why(shipped, edit) == ""


def test_a_preset_for_a_data_set_is_held_against_that(shipped: dict[str, Any]) -> None:
    from benchmark.protocol import load_protocol

    task = registry.load_task("depth")
    made = load_protocol("depth", task.schemas, registry.protocol_file("depth"), "paper", dataset="navi")
    protocol = {"name": "paper", "hash": made.hash, "schema": made.schema, "fields": made.fields()}
    edit = {"protocol": json.loads(json.dumps(protocol))}
    assert why(shipped, lambda d: (d.update(edit), d["task"].update(dataset="navi"))) == ""
    assert "preset paper has changed" in why(shipped, lambda d: (d.update(edit), d["task"].update(dataset="nyuv2")))


def test_rows_of_every_preset_and_data_set_are_no_alarm_today(shipped: dict[str, Any]) -> None:
    """Types too: 1 and 1.0 are one value and two hashes."""
    from benchmark.protocol import load_protocol, presets, variants

    for name in tasks():
        schemas, path = registry.load_task(name).schemas, registry.protocol_file(name)
        for preset in presets(path):
            for dataset in ("ade20k", *variants(path, preset)):
                p = load_protocol(name, schemas, path, preset, dataset=dataset)
                protocol = json.loads(
                    json.dumps({"name": preset, "hash": p.hash, "schema": p.schema, "fields": p.fields()})
                )
                task = {
                    "name": name,
                    "dataset": dataset,
                    "dataset_digest": "",
                    "n": 1,
                    "dataset_options": {"size": "64"},
                }
                row = parse_row({**shipped, "protocol": protocol, "task": task})
                assert stale_rows.reason(row) == "", (name, preset, dataset)


def test_every_embedded_adapter_says_which_code_it_is() -> None:
    found = {name: code_of(load_encoder(name, device="cpu")) for name in ("clip-mini", "pixels")}
    versions = code_versions()
    assert found == {
        "clip-mini": {"adapters.tipsv2": versions["adapters.tipsv2"]},
        "pixels": {"adapters.floors": versions["adapters.floors"]},
    }
    from adapters.generic import GenericVision

    own = type("Own", (GenericVision,), {"__init__": lambda self: None})
    assert code_of(own()) == {"adapters.hub": versions["adapters.hub"]}
    assert code_of(object()) == {}  # type: ignore[arg-type]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Rows of `old`, made by an older adapter, and of `new`."""
    write_row(tmp_path, "new", "depth", 0.6)
    file = write_row(tmp_path, "old", "depth", 0.4) / "result.json"
    data = json.loads(file.read_text())
    data["model"]["code"] = {"adapters.clip": "1"}
    file.write_text(json.dumps(data))
    return tmp_path


def test_every_table_marks_a_stale_row_and_no_other(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = f"adapters.clip is version {code_versions()['adapters.clip']}, the row was made by 1"
    assert load_results(two).set_index("model").stale.to_dict() == {"old": reason, "new": ""}
    paths = write_tables(two)
    assert {r["model"]: r["stale"] for r in csv.DictReader(paths[0].open())} == {"old": reason, "new": ""}
    for text in (paths[1].read_text(), (build(two), (two / "leaderboard.md").read_text())[1]):
        assert "| old ‡ |" in text and "| new |" in text and f"‡ stale: depth/scenes of old: {reason}" in text
    board = {r["model"]: r["stale"] for r in csv.DictReader((two / "leaderboard.csv").open())}
    assert board == {"old": reason, "new": ""}
    show_report(Report(read_all(two)[0]), two, [], two / "none")
    out = capsys.readouterr().out
    assert out.count("] ‡") == 1 and f"‡ stale: depth/scenes of old: {reason}. bench run makes such a row again" in out
    found = compare(two / "old", two / "new")
    assert found.units[0].stale == (reason, "") and any(reason in line for line in found.conditions)
    assert cells(found.units[0])[2].endswith(" ‡") and "‡" not in cells(found.units[0])[3]
    assert reason in markdown(found)


def test_a_stale_row_confirms_no_published_number_and_is_to_be_run_again(tmp_path: Path) -> None:
    file = (
        write_row(tmp_path, "tipsv2-b", "linear_segmentation", dataset="ade20k", protocol_name="paper") / "result.json"
    )
    value = read_row(file).main.value
    head = "model,model_id,task,dataset,metric,value,source,note\n"
    line = f"B,tipsv2-b,linear_segmentation,ade20k,mIoU,{value},a paper,\n"
    (tmp_path / "published.csv").write_text(head + line)
    assert reproduce("tipsv2", tmp_path).lines[0].state == "inside the interval"
    assert compare("published", "tipsv2-b", results=tmp_path).published[0].inside
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "task": {**data["task"], "version": 1}}))
    found = reproduce("tipsv2", tmp_path)
    assert "stale: task linear_segmentation" in line_cells(found.lines[0])[-1] and missing(found)
    assert not compare("published", "tipsv2-b", results=tmp_path).published[0].inside


def test_a_foreign_row_cannot_write_with_its_reason(two: Path) -> None:
    """Versions that are no versions, hidden marks and markup: text in every table."""
    (file,) = (two / "old").rglob("result.json")
    data = json.loads(file.read_text())
    data["model"]["code"] = {"adapters.clip": "1\x1b[2J|<b>\u202e=1"}
    file.write_text(json.dumps(data))
    text = write_tables(two)[1].read_text()
    assert "\u202e" not in text and "<b>" not in text and "1\x1b" not in text
    data["model"]["code"] = {"adapters.clip": ["2"], 3: None}
    data["protocol"]["fields"] = {"holdout": {"value": [1, {}]}}
    file.write_text(json.dumps(data))
    assert "preset fast has changed" in read_row(file).stale


def test_an_old_row_of_an_embedded_set_read_by_python_may_have_had_options(shipped: dict[str, Any]) -> None:
    def old(d: dict[str, Any], command: str) -> None:
        d["task"].pop("version")
        d["task"].update(dataset_digest=fingerprint("64 pixels"))
        d.update(command=command)

    assert why(shipped, lambda d: old(d, "")) == ""
    assert "the data of scenes" in why(shipped, lambda d: old(d, "bench run --suite scenes"))
