"""Shipped rows: shown beside one's own where everything agrees, marked, and never in the place of a run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rows import NINE, write_row, write_rows

from benchmark.cli.run import default_models
from benchmark.cli.tables import show_report
from benchmark.engine.loading import load_encoder
from benchmark.engine.report import Note, Report
from benchmark.protocol import load_protocol
from benchmark.registry import Unit, load_task, models, protocol_file, suites
from benchmark.rows.row import read_all
from benchmark.rows.shipped import beside, columns, origin
from benchmark.system.paths import reference_dir


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """Rows of two floors and of one embedded model; `pixels` has no image-text rows."""
    write_rows(tmp_path / "shipped", {"clip-mini": 0.5, "random-vit": 0.2})
    write_rows(tmp_path / "shipped", {"pixels": 0.3}, ["depth", "normals", "linear_segmentation"])
    return tmp_path / "shipped"


def shown(capsys: pytest.CaptureFixture[str], results: Path, shipped: Path) -> str:
    show_report(Report(read_all(results)[0]), results, [], shipped)
    return capsys.readouterr().out


def test_floors_stand_beside_the_models_that_ran(
    tmp_path: Path, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "mine", {"tipsv2-mini": 0.6})
    out = shown(capsys, tmp_path / "mine", shipped)
    head, second = out.splitlines()[:2]
    assert head.split()[-4:] == ["tipsv2-mini", "clip-mini", "random-vit", "pixels"]
    assert second.split()[-3:] == ["shipped"] * 3
    (line,) = [x for x in out.splitlines() if x.startswith("shipped: measured earlier with densebench 0.1.0 (0123abc)")]
    assert line.endswith("bench run --model clip-mini --model random-vit --model pixels")
    (depth,) = [x for x in out.splitlines() if x.startswith("depth")]
    assert depth.count("[") == 4
    (retrieval,) = [x for x in out.splitlines() if x.startswith("image_to_text_retrieval")]
    assert retrieval.split()[-1] == "n/a"
    assert "9 rows made" in out


def test_a_narrow_terminal_drops_shipped_columns_and_no_digit(
    tmp_path: Path, shipped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.cli.tables._console", lambda: Console(width=80))
    write_rows(tmp_path / "mine", {"tipsv2-mini": 0.6})
    out = shown(capsys, tmp_path / "mine", shipped)
    table = out.split("value ±")[0].splitlines()
    assert max(map(len, table)) <= 80 and "…" not in "".join(table)
    assert table[0].split() == ["tipsv2-mini", "clip-mini"]
    assert sum("±" in line for line in table) == 9


@pytest.mark.parametrize("width", [60, 80, 100])
def test_models_that_do_not_fit_beside_each_other_stand_below_each_other(
    width: int, tmp_path: Path, shipped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.cli.tables._console", lambda: Console(width=width))
    skills = {"tipsv2-b@runs-final-1a2b3c": 0.6, "clip-l14-336": 0.5, "dinov2-b": 0.45, "siglip2-b16-256": 0.4}
    write_rows(tmp_path / "mine", skills, ["depth", "image_to_text_retrieval"])
    rows = read_all(tmp_path / "mine")[0]
    out = shown(capsys, tmp_path / "mine", shipped)
    assert "…" not in out and max(map(len, out.splitlines())) <= width
    assert all(f"{row.main.value:.{1 if row.main.unit == '%' else 3}f} ±" in out for row in rows)


def test_rows_of_other_data_or_another_protocol_are_never_beside(
    tmp_path: Path, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "mine", {"tipsv2-mini": 0.6}, ["depth"], n=60)
    write_row(tmp_path / "mine", "tipsv2-mini", "normals", protocol_name="paper")
    assert columns(read_all(tmp_path / "mine")[0], shipped) == []
    assert "shipped:" not in shown(capsys, tmp_path / "mine", shipped)


def test_a_model_that_ran_itself_is_not_shown_twice(tmp_path: Path, shipped: Path) -> None:
    write_rows(tmp_path / "mine", {"pixels": 0.3, "tipsv2-mini": 0.6}, ["depth"])
    mine = read_all(tmp_path / "mine")[0]
    assert [r.model for r in columns(mine, shipped)] == ["clip-mini", "random-vit"]
    taken = {(r.model, r.unit) for r in beside(mine, shipped)[0]}
    assert ("pixels", "depth/scenes") not in taken and ("pixels", "normals/scenes") in taken


def test_without_shipped_rows_the_table_is_only_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "mine", {"tipsv2-mini": 0.6}, ["depth"])
    assert beside([], None) == ([], []) and beside([], tmp_path / "nowhere") == ([], [])
    assert "shipped:" not in shown(capsys, tmp_path / "mine", tmp_path / "nowhere")


def test_the_default_run_measures_the_embedded_model_and_finds_no_row_of_it() -> None:
    """A clone holds shipped rows only below results/reference, which no run reads as its own."""
    assert default_models() == ["tipsv2-mini"] and models()["tipsv2-mini"]["embedded"]
    committed = reference_dir().parent
    assert all(len(p.relative_to(committed).parts) == 6 for p in committed.glob("reference/*/*/*/*/result.json"))
    rows = read_all(reference_dir())[0]
    assert {r.unit.split("/")[0] for r in rows if r.model == "random-vit"} == set(NINE)
    assert origin(rows).startswith("densebench ")


def test_shipped_rows_are_what_this_code_measures() -> None:
    """Today's presets and the embedded weights; where this fails, results/README.md says how to make the rows again."""
    rows = read_all(reference_dir())[0]
    for unit in suites()["scenes"]["units"]:
        task = unit.split("/")[0]
        today = load_protocol(task, load_task(task).schemas, protocol_file(task), "fast").hash
        assert {r.protocol_hash for r in rows if r.unit == unit} == {today}, f"{unit}: shipped under an older protocol"
    for model in ("tipsv2-mini", "random-vit", "pixels"):
        sha = load_encoder(model, device="cpu").card.weights.sha256
        made = {r.data.model.weights.sha256 for r in rows if r.model == model}
        assert made == {sha}, f"{model}: shipped rows of other weights"


def test_the_report_of_the_embedded_models_reads_the_shipped_rows_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("minis", Path(__file__).parents[1] / "perf" / "minis.py")
    assert spec and spec.loader
    minis = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(minis)
    for name, found in (("majority_map", (4, (3, 5))), ("mean_depth_map", (2, (1, 3)))):
        monkeypatch.setattr(minis, name, lambda found=found: found)
    monkeypatch.setattr(minis, "shuffled_names", lambda *_: [1.0])
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "reference"
    write_rows(folder, dict.fromkeys((*minis.MINIS, *minis.FLOORS), 0.5), n=20)  # none that a run would accept
    before = {file: file.read_bytes() for file in folder.rglob("*.json")}
    monkeypatch.setattr(sys, "argv", ["minis.py", "--results", str(folder)])
    minis.main()
    value = next(r for r in read_all(folder)[0] if r.unit == "depth/scenes" and r.model == "tips-mini").main.value
    assert f"{value:.2f} [" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in folder.rglob("*.json")} == before


def test_a_reason_names_the_tasks_it_is_given_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "mine", {"a": 0.6}, ["depth"])
    units = [Unit("image_to_text_retrieval", "scenes"), Unit("text_to_image_retrieval", "scenes")]
    report = Report(read_all(tmp_path / "mine")[0], not_applicable=[Note("a", u, "no text tower") for u in units])
    show_report(report, tmp_path / "mine", [], tmp_path / "none")
    assert "n/a a, image_to_text_retrieval, text_to_image_retrieval: no text tower" in capsys.readouterr().out
