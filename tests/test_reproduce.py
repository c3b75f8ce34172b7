"""`bench reproduce`: the published numbers from anywhere, what is missing run, measured beside published."""

from __future__ import annotations

from pathlib import Path

import miniatures
import pytest
from command import bench
from rows import row_data, simulate

from benchmark.compare import papers as report
from benchmark.compare.papers import preset_of
from benchmark.registry import models
from benchmark.rows.published import PublishedNumber, read_published
from benchmark.rows.row import Row
from benchmark.rows.schema import parse_row
from benchmark.system.paths import reference_dir

TOY = """model,model_id,task,dataset,metric,value,source,note
Toy,random-vit,image_to_text_retrieval,coco,R@1,150,a paper,
Toy,random-vit,text_to_image_retrieval,coco,R@1,{value},a paper,
Toy,pixels,image_to_text_retrieval,coco,R@1,3,a paper,
"""


def test_the_published_numbers_are_found_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    assert bench("reproduce", "tipsv2") == 0
    text = capsys.readouterr().out
    assert "25.06" in text and "TIPSv2 L/14" in text and "not measured" in text
    assert "background" in text and "unknown" in text, "the fields nobody has confirmed"


def test_sliding_windows_are_reproduced_by_the_notebook_and_the_rest_by_paper() -> None:
    found = report.reproduce("tipsv2", Path("/nowhere"))
    presets = {
        (p.value, report.preset_of(p))
        for p in (line.published for line in found.lines)
        if p.unit == "zero_shot_segmentation/ade150" and p.model_id == "tipsv2-l"
    }
    assert presets == {(24.7, "paper"), (25.1, "notebook"), (25.06, "notebook")}
    todo = report.missing(found, ["tipsv2-l"])
    assert {preset for _, preset, _ in todo} == {"paper", "notebook"}
    assert ("tipsv2-l", "notebook", ["zero_shot_segmentation/ade150"]) in todo


def test_dinov2s_own_tables_are_reproduced_by_its_own_protocol() -> None:
    """Its linear segmentation and lin. 1 depth are public; what TIPS measured of it stands under `paper`."""
    found = report.reproduce("dinov2", Path("/nowhere"))
    presets = {(line.published.source.split()[0], report.preset_of(line.published)) for line in found.lines}
    assert ("arXiv:2304.07193", "dinov2") in presets and ("arXiv:2410.16512", "paper") in presets
    assert ("dinov2-s", "dinov2", ["linear_segmentation/ade20k", "linear_segmentation/voc2012", "depth/nyuv2"]) in (
        report.missing(found, ["dinov2-s"])
    )
    assert any(where == "depth (dinov2)" and field == "batch_size" for where, field, *_ in found.doubts)


def test_every_line_says_which_table_it_is_from() -> None:
    found = report.reproduce("tipsv2", Path("/nowhere"))
    ade150 = [report.cells(line) for line in found.lines if line.published.unit == "zero_shot_segmentation/ade150"]
    sources = {dict(zip(report.HEADER, row))["source"] for row in ade150}
    assert {f"arXiv:2604.12012 Table {t}" for t in (5, 8, 15)} < sources
    assert report.HEADER.count("source") == 1 and all(len(row) == len(report.HEADER) for row in ade150)


def test_released_tips_weights_are_held_against_their_own_numbers() -> None:
    """TIPS v1 scored other weights than it released; the numbers of the former are nobody's to reproduce."""
    found = report.reproduce("tips", Path("/nowhere"))
    uned = {
        line.published.value for line in found.lines
        if line.published.model_id == "tips-g" and line.published.task == "instance_retrieval"
    }  # fmt: skip
    assert uned == {68.4}


def test_of_several_rows_the_plain_one_is_shown_and_named() -> None:
    number = PublishedNumber("T", "tipsv2-b", "depth", "nyuv2", "RMSE", 0.374, "a table", "")
    row = parse_row(row_data("tipsv2-b", "depth", simulate("depth", 0.6, 20, "m"), "nyuv2", protocol_name="paper"))
    rows = [Row(row, Path(name)) for name in ("paper-bfloat16-c0ffee00", "paper-c0ffee00", "paper-seed1-c0ffee00")]
    found = report._measured(number, rows)
    assert found is rows[1] and "paper-c0ffee00" in report.cells(report.Line(number, found))
    assert report._measured(number, rows[2:]) is rows[2]


def test_run_makes_the_missing_rows_once_and_says_where_published_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "PAPERS", {"toy": ("random-vit", "pixels")})
    data, results = tmp_path / "data", tmp_path / "results"
    miniatures.coco(data)
    results.mkdir()
    (results / "published.csv").write_text(TOY.format(value=0))
    words = ["reproduce", "toy", "--run", "--model", "random-vit", "--results", str(results), "--data", str(data)]
    assert bench(*words) == 0
    text = capsys.readouterr().out
    assert "2 of 3 published numbers measured" in text and "not measured" in text
    found = report.reproduce("toy", results)
    assert [line.state for line in found.lines][::2] == ["outside the interval, a part of the data", "not measured"]
    value = found.lines[1].row.main.value
    (results / "published.csv").write_text(TOY.format(value=value))
    assert report.reproduce("toy", results).lines[1].state == "inside the interval, a part of the data"
    stamps = {p: p.stat().st_mtime_ns for p in results.rglob("result.json")}
    assert len(stamps) == 2 and bench(*words) == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in results.rglob("result.json")}


def test_a_unit_that_cannot_run_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "PAPERS", {"toy": ("random-vit", "pixels")})
    (tmp_path / "published.csv").write_text(TOY.format(value=0))
    words = ["reproduce", "toy", "--run", "--model", "random-vit", "--results", str(tmp_path), "--data", str(tmp_path)]
    assert bench(*words) == 1
    assert "bench data prepare coco" in capsys.readouterr().err
    assert bench("reproduce", "toy", "--run", "--model", "random-vitt", "--results", str(tmp_path)) == 2


def test_numbers_of_texts_stand_at_models_that_read_them() -> None:
    """DINOv3's four are dino.txt's."""
    with_text = {
        "zero_shot_classification",
        "zero_shot_segmentation",
        "image_to_text_retrieval",
        "text_to_image_retrieval",
    }
    told = [p for p in read_published(reference_dir().parent) if p.model_id in models()]
    assert not {p.model_id for p in told if p.task in with_text and not models()[p.model_id].get("has_text")}
    own = {p.task: (p.value, preset_of(p)) for p in told if p.model_id == "dinov3-l-dinotxt"}
    assert own["zero_shot_segmentation"] == (24.7, "dinov3") and len(own) == 4
