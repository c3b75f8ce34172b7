"""Rows of every day on which their layout changed, as they were written then: they load for ever.

`frozen/<day>` is a results folder. Nothing there is ever written again; a layout that comes gets a folder of its own.

    2026-11-24         schema 1: the first rows; no sha256 of the samples
    2026-11-25         schema 1: `model.options`, `kept_predictions`, `partial`
    2026-11-26         schema 1: `samples_sha256`, GPU and device; instances resampled together (`cluster`)
    2026-11-28-sealed  schema 2: `sha256` of the row itself, `model.transform`, `notes`
    2026-11-28-code    schema 2: `model.code`, `task.version`
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import pytest

from benchmark import load_results
from benchmark.cli.tables import show_report
from benchmark.compare.compare import compare
from benchmark.compare.report import markdown, to_json, to_junit
from benchmark.engine.report import Report
from benchmark.errors import UsageError
from benchmark.leaderboard import build
from benchmark.rows.row import read_all
from benchmark.rows.schema import SCHEMA
from benchmark.rows.tables import write_tables

FROZEN = Path(__file__).parent / "frozen"
DIGESTS = FROZEN / "sha256.txt"
DAYS = {  # rows, models
    "2026-11-24": (10, ("random-vit", "tipsv2-mini")),
    "2026-11-25": (4, ("random-vit", "tipsv2-mini")),
    "2026-11-26": (4, ("random-vit", "tipsv2-mini")),
    "2026-11-28-sealed": (6, ("random-vit", "tipsv2-mini")),
    "2026-11-28-code": (7, ("pixels", "random-vit")),
}


@pytest.fixture(params=DAYS)
def day(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The name of a day and a copy of its results folder: tables are written into it."""
    folder = tmp_path / "results"
    shutil.copytree(FROZEN / request.param, folder)
    return request.param, folder


def test_no_frozen_file_was_ever_changed() -> None:
    lines = (line.split("  ") for line in DIGESTS.read_text().splitlines())
    said = {name: digest for digest, name in lines}
    there = {f.relative_to(FROZEN).as_posix(): f for f in FROZEN.rglob("*") if f.is_file() and f != DIGESTS}
    assert {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in there.items()} == said


def test_every_schema_is_among_them() -> None:
    rows = [row for name in DAYS for row in read_all(FROZEN / name)[0]]
    assert {row.data.schema for row in rows} == set(range(1, SCHEMA + 1))
    assert set(DAYS) == {folder.name for folder in FROZEN.iterdir() if folder.is_dir()}


def test_frozen_rows_load_with_the_numbers_they_were_written_with(day: tuple[str, Path]) -> None:
    name, folder = day
    rows, problems = read_all(folder)
    assert problems == [] and len(rows) == DAYS[name][0]
    for row in rows:
        assert row.has_its_samples()
        for metric, facts in row.data.metrics.items():
            assert row.statistic(metric).of(row.samples) == pytest.approx(facts.value, rel=1e-12), (
                row.folder,
                metric,
            )


def test_frozen_rows_are_in_every_table(day: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name, folder = day
    rows, _ = read_all(folder)
    lines = {(r.model, r.unit.split("/")[0], m) for r in rows for m in r.data.metrics}
    table = load_results(folder)
    assert set(zip(table.model, table.task, table.metric)) == lines
    paths = write_tables(folder)
    with paths[0].open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(lines)
    assert all(row.unit in paths[1].read_text(encoding="utf-8") for row in rows)
    show_report(Report(rows), folder, paths, folder / "none")
    out = capsys.readouterr().out
    assert all(model in out for model in DAYS[name][1])
    built = build(folder)
    assert built.problems == () and built.rows == len(rows)


def test_frozen_rows_can_be_compared(day: tuple[str, Path]) -> None:
    name, folder = day
    one, other = (folder / model for model in DAYS[name][1])
    found = compare(one, other, all_metrics=True, resamples=200)
    both = {r.unit for r in read_all(one.parent)[0] if r.model == DAYS[name][1][0]}
    assert {u.unit for u in found.units} == both and not found.refused and not found.problems
    assert len(to_json(found)) > 500 and "testcase" in to_junit(found) and markdown(found).count("\n| ") > len(both)


def test_rows_of_two_days_are_compared_where_they_were_measured_alike_and_refused_in_words_elsewhere() -> None:
    """Instances of 24 and 25 November are one protocol on one data set; those of the 26th are resampled otherwise."""
    task = Path("tipsv2-mini/instance_retrieval")
    found = compare(FROZEN / "2026-11-24" / task, FROZEN / "2026-11-25" / task, resamples=200)
    assert [u.unit for u in found.units] == ["instance_retrieval/scenes"]
    with pytest.raises(UsageError, match="computed or resampled in two ways|digests differ"):
        compare(FROZEN / "2026-11-24" / task, FROZEN / "2026-11-26" / task)


def test_rows_of_older_presets_and_scenes_are_marked_stale_and_say_why() -> None:
    def stale(name: str) -> dict[str, str]:
        return {row.unit.split("/")[0]: row.stale for row in read_all(FROZEN / name)[0]}

    assert "preset fast has changed" in stale("2026-11-24")["depth"]
    assert "preset fast has changed" in stale("2026-11-25")["linear_segmentation"]
