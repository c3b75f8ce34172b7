"""Rows on disk: samples belong to their result.json, whoever else writes, and what is no whole row is named."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rows import row_data, save_json, simulate, write_row

from benchmark.engine.run import run
from benchmark.engine.slots import Slot
from benchmark.errors import BenchError, UsageError
from benchmark.leaderboard import build
from benchmark.rows.row import Row, read_all, read_row, samples_file, slug
from benchmark.rows.tables import markdown, write_tables
from benchmark.system.files import only_writer
from benchmark.system.paths import reference_dir

Damage = Callable[[Row], None]


def test_a_writer_waits_until_another_one_of_the_same_row_is_done(tmp_path: Path) -> None:
    outcome, folder = simulate("depth", 0.6, 20, "a"), tmp_path / "row"
    data = row_data("a", "depth", outcome)
    save_json(tmp_path / "before", data, outcome.samples)  # what a first save imports takes its time
    saving = threading.Thread(target=save_json, args=(folder, data, outcome.samples))
    with only_writer(folder):
        saving.start()
        saving.join(0.5)
        assert saving.is_alive() and list(folder.iterdir()) == []
    saving.join()
    row = read_row(folder)
    assert row.statistic().of(row.samples) == row.main.value
    assert sorted(p.name for p in folder.iterdir()) == ["result.json", "samples.parquet"]


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    folder = write_row(tmp_path, "a", "depth")
    (folder / ".samples.parquet.x1.tmp").write_bytes(b"half")
    write_row(tmp_path, "a", "depth")
    assert sorted(p.name for p in folder.iterdir()) == ["result.json", "samples.parquet"]


@pytest.mark.parametrize("failing", ["samples.parquet", "curve.csv", "best-1.png", "result.json"])
def test_an_older_row_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    old, new = simulate("depth", 0.6, 20, "a"), simulate("depth", 0.4, 20, "a")
    files = {"curve.csv": b"old", "pictures/best-1.png": b"old", "pictures/worst-1.png": b"old"}
    save_json(tmp_path, row_data("a", "depth", old), old.samples, files)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(kept) == 5
    real, fresh = os.fsync, {"curve.csv": b"new", "pictures/best-1.png": b"new"}

    def full(handle: int) -> None:
        if failing in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(BenchError, match="disk is full"):
            save_json(tmp_path, row_data("a", "depth", new), new.samples, fresh)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept
    save_json(tmp_path, row_data("a", "depth", new), new.samples, fresh)
    assert read_row(tmp_path).main.value == new.measurements[0].statistic.of(new.samples)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("pictures/*")} == {"best-1.png": b"new"}


def test_a_long_name_is_cut_to_what_a_folder_may_be_called(tmp_path: Path) -> None:
    one, other = ("hf:" + "/experiments/run-1234567" * 14 + end for end in ("/a", "/b"))
    for name in (one, other):
        write_row(tmp_path, name, "depth")
    assert {row.model for row in read_all(tmp_path)[0]} == {one, other}
    assert slug("tipsv2-b@runs-final-1a2b3c") == "tipsv2-b@runs-final-1a2b3c"


@pytest.mark.parametrize(
    ("name", "text"), [("results.md", "# My results\n\nmine\n"), ("results.csv", "run,loss\n1,2\n")]
)
def test_files_of_the_tables_names_that_are_no_tables_are_not_lost(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"{name}: is no table of densebench and would be lost"):
        run("pixels", "classification/scenes", results=tmp_path)
    write_row(tmp_path, "model-a", "classification")
    with pytest.raises(UsageError, match="Move it, or give --results DIR"):
        write_tables(tmp_path)
    assert (tmp_path / name).read_text() == text
    (tmp_path / name).unlink()
    assert len(write_tables(tmp_path)) == len(write_tables(tmp_path)) == 2


def test_samples_of_another_row_are_refused(tmp_path: Path) -> None:
    row, other = write_row(tmp_path, "a", "depth", 0.6), write_row(tmp_path, "b", "depth", 0.5)
    assert len(read_row(row).samples["id"]) == 120
    (row / "samples.parquet").write_bytes((other / "samples.parquet").read_bytes())
    with pytest.raises(BenchError, match=r"samples.parquet: cannot be read \(it is not the file that result.json"):
        _ = read_row(row).samples


def test_rows_without_a_digest_of_their_samples_stay_readable(tmp_path: Path) -> None:
    file = write_row(tmp_path, "a", "depth") / "result.json"
    data = json.loads(file.read_text())
    del data["samples_sha256"]
    file.write_text(json.dumps(data))
    assert np.isfinite(read_row(file).samples["squared_error"]).all()
    assert all(row.samples for row in read_all(reference_dir())[0][:3])


FOREIGN = {
    "no name": lambda d: d["model"].pop("name"),
    "no n_bad": lambda d: d.pop("n_bad"),
    "no weights": lambda d: d["model"].update(weights=None),
    "no task": lambda d: d.update(task=None),
    "no statistic": lambda d: d["metrics"]["RMSE"].pop("statistic"),
    "no interval": lambda d: d["metrics"]["RMSE"].update(ci95=None),
    "no value": lambda d: d["metrics"]["RMSE"].update(value=None),
    "a later statistic": lambda d: d["metrics"]["RMSE"]["statistic"].update(trim=0.1),
    "no densebench": lambda d: d["environment"].pop("densebench"),
    "no metrics": lambda d: d.update(metrics=[]),
}


@pytest.mark.parametrize("change", FOREIGN)
def test_a_foreign_row_is_named_and_stops_no_table(tmp_path: Path, change: str) -> None:
    mine = tmp_path / "results"
    write_row(mine, "good", "depth")
    file = write_row(mine, "foreign", "depth") / "result.json"
    data = json.loads(file.read_text())
    FOREIGN[change](data)
    file.write_text(json.dumps(data))
    rows, problems = read_all(mine)
    assert [r.model for r in rows] == ["good"] and len(problems) == 1 and str(file) in problems[0]
    assert "foreign" not in write_tables(mine)[0].read_text()
    assert build(mine, tmp_path / "page", reference_dir()).problems == tuple(problems)


def swapped(row: Row) -> None:
    """A whole file, of the same pictures, and not this row's."""
    swap = samples_file({**row.samples, "pixels": row.samples["pixels"] + 1})
    (row.folder / "samples.parquet").write_bytes(swap)


def cut(row: Row) -> None:
    file = row.folder / "samples.parquet"
    file.write_bytes(file.read_bytes()[:-20])


def gone(row: Row) -> None:
    (row.folder / "samples.parquet").unlink()


def old(row: Row) -> None:
    kept = {k: v for k, v in row.data.json().items() if k != "samples_sha256"}
    (row.folder / "result.json").write_text(json.dumps(kept))


def old_and_cut(row: Row) -> None:
    old(row)
    cut(row)


CASES = [(swapped, False), (cut, False), (gone, False), (old_and_cut, False), (old, True)]


@pytest.mark.parametrize(("damage", "counts"), CASES)
def test_a_finished_row_counts_only_with_its_own_samples(tmp_path: Path, damage: Damage, counts: bool) -> None:
    slot = Slot(write_row(tmp_path, "a", "depth", request="asked"), "asked")
    row = slot.finished()
    assert row is not None and Slot(slot.folder, "other").finished() is None
    damage(row)
    assert (slot.finished() is not None) == counts


def test_a_name_of_a_file_that_is_no_utf8_costs_no_row(tmp_path: Path) -> None:
    """The shell hands over any bytes as arguments, and a folder of pictures may hold any names."""
    outcome = simulate("depth", 0.6, 20, "a")
    ids = outcome.samples["id"].astype(object)
    ids[0] = "f\udceate.jpg"
    data = {**row_data("a", "depth", outcome), "command": "bench run --data caf\udce9"}
    save_json(tmp_path / "row", data, {**outcome.samples, "id": ids})
    row = read_row(tmp_path / "row")
    assert row.data.command == data["command"] and row.samples["id"][0] == "f\\udceate.jpg"


def test_a_row_without_a_metric_leaves_its_cell_empty(tmp_path: Path) -> None:
    row = read_row(write_row(tmp_path, "a", "depth"))
    one = row.main
    more = replace(row, data=replace(row.data, metrics={"RMSE pooled": one, "RMSE": replace(one, value=9.0)}))
    less = replace(row, data=replace(row.data, metrics={"RMSE": replace(one, value=9.0), "late": one}))
    head, _, first, second = [line for line in markdown([more, less]).splitlines() if line.startswith("|")][:4]
    assert head == "| model | RMSE pooled | RMSE | late |"
    assert [cell.strip()[:5] for cell in second.split("|")[2:-1]] == ["", "9.000", f"{one.value:.3f}"]
    assert first.split("|")[3] == second.split("|")[3] and not first.split("|")[4].strip()
