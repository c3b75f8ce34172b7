"""A row that is made again because data or code changed leaves its predecessor, which bench show tells of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command import told
from rows import write_row

from benchmark.rows.history import predecessors
from benchmark.rows.row import HEAD, read_all, read_row, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_row(tmp_path, "mine", "depth", request="first")


def made_again(folder: Path, day: int, request: str = "first", worse: float = 0.0, data: str | None = None) -> None:
    """Replaces the row: its request, its values by `worse` metres, its data."""
    row = read_row(folder)
    main = row.data.main_metric
    metrics = {**row.data.metrics, main: replace(row.main, value=row.main.value + worse)}
    task = replace(row.data.task, dataset_digest=data or row.data.task.dataset_digest)
    created = f"2027-11-{day:02}T10:00:00+00:00"
    save(folder, replace(row.data, created=created, request=request, metrics=metrics, task=task), row.samples)


def test_predecessors_are_kept_with_what_had_changed_newest_first(folder: Path) -> None:
    first = read_row(folder).main.value
    made_again(folder, 20, "second", data="d" * 64)
    made_again(folder, 21, "third", worse=0.5)
    old = predecessors(read_row(folder))
    assert [row.main.value for row, _ in old] == [first, first]
    assert [why for _, why in old] == ["nothing that rows name", "the data"]
    assert read_row(folder).main.value == first + 0.5 and old[0][0].data.created.startswith("2027-11-20")


def test_the_same_again_leaves_nothing_and_other_numbers_do(folder: Path) -> None:
    made_again(folder, 20)
    assert not (folder / "history").exists()
    made_again(folder, 21, worse=0.1)
    assert len(predecessors(read_row(folder))) == 1


def test_a_head_of_older_numbers_goes_and_one_of_the_same_stays(folder: Path) -> None:
    (folder / HEAD).write_bytes(b"a head")
    made_again(folder, 20)
    assert (folder / HEAD).exists()
    made_again(folder, 21, worse=0.1)
    assert not (folder / HEAD).exists()


def test_neither_a_damaged_predecessor_nor_the_history_is_a_row(folder: Path, tmp_path: Path) -> None:
    made_again(folder, 20, "second")
    made_again(folder, 21, "third")
    files = sorted((folder / "history").iterdir())
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:50])
    rows, problems = read_all(tmp_path)
    assert len(rows) == 1 and not problems and len(predecessors(rows[0])) == 1
    (folder / "result.json").write_text("{")  # a damaged row is no predecessor
    save(folder, rows[0].data, rows[0].samples)
    assert sorted((folder / "history").iterdir()) == files


def test_show_tells_of_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_RESULTS", str(tmp_path))
    value = read_row(folder).main.value
    made_again(folder, 20, "second", worse=1.0, data="e" * 64)
    for name in ("mine", str(folder)):
        code, out, _ = told(capsys, "show", name)
        assert code == 0 and f"2026-11-24: RMSE {value:.3f} [" in out and "then changed: the data" in out, out
    code, out, _ = told(capsys, "show", "mine", "--json")
    assert any("then changed: the data" in said for said in json.loads(out)["rows"])
