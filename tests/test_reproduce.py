"""`bench reproduce`: the published numbers from anywhere, what is missing run, measured beside published."""

from __future__ import annotations

from pathlib import Path

import miniatures
import pytest

from benchmark import reproduce as report
from benchmark.cli import main

TOY = """model,model_id,task,dataset,metric,value,source,note
Toy,random-vit,image_to_text_retrieval,coco,R@1,150,a paper,
Toy,random-vit,text_to_image_retrieval,coco,R@1,{value},a paper,
Toy,pixels,image_to_text_retrieval,coco,R@1,3,a paper,
"""


def bench(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


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
    """Tables 10 and 11 of its paper by `dinov2`; what TIPS's tables say of the same model by `paper`."""
    found = report.reproduce("dinov2", Path("/nowhere"))
    numbers = [line.published for line in found.lines if line.published.unit == "depth/nyuv2"]
    presets = {(p.value, report.preset_of(p)) for p in numbers if p.model_id in ("dinov2-b", "dinov2-g")}
    assert presets == {(0.399, "dinov2"), (0.344, "paper"), (0.344, "dinov2")}
    units = ["linear_segmentation/ade20k", "linear_segmentation/voc2012", "depth/nyuv2"]
    assert report.missing(found, ["dinov2-b"]) == [("dinov2-b", "dinov2", units)]
    assert {"depth [dinov2]", "depth"} <= {doubt[0] for doubt in found.doubts}


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
    value = found.lines[1].row.main["value"]
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
