"""Numbers that others measured, and a name or a reason for every published one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import bench
from rows import write_row

from benchmark.compare import papers
from benchmark.compare.compare import compare
from benchmark.leaderboard import build
from benchmark.protocol import preset_table
from benchmark.registry import check_model_name, models, protocol_file
from benchmark.rows.published import measured_elsewhere, published_numbers, runnable_names

NOWHERE = Path("/nowhere")


def test_every_published_number_has_a_runnable_model_or_a_reason() -> None:
    numbers, names = published_numbers(NOWHERE), runnable_names(NOWHERE)
    stated = 0
    for p in numbers:
        if p.model_id:
            assert p.model_id in models(), p.model
        else:
            name, reason = names[p.model]
            assert bool(name) != bool(reason), p.model
            if name:
                check_model_name(name)
        stated += 1
    assert stated == 425 == len(numbers)
    assert names.keys() == {p.model for p in numbers if not p.model_id}, "no line is left over"


def test_what_others_measured_stands_beside_the_published_number() -> None:
    found = measured_elsewhere(NOWHERE)
    assert len(found) == 227 and all(e.source and e.tool and e.protocol for e in found)
    assert sum("visbench" in e.tool for e in found) == 216
    line = next(
        x
        for x in papers.reproduce("tipsv2", NOWHERE).lines
        if x.published.model_id == "tipsv2-b" and x.published.unit == "image_to_text_retrieval/flickr30k"
    )
    assert [(e.value, e.tool) for e in line.elsewhere] == [(92.0, "mteb")]
    assert dict(zip(papers.HEADER, papers.cells(line), strict=True))["elsewhere"] == "92 (mteb)"


def test_reproduce_says_by_what_protocol_others_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench("reproduce", "dinov2", "--markdown", "r.md") == 0
    out, page = capsys.readouterr().out, Path("r.md").read_text(encoding="utf-8")
    assert "masks brought to 100 px" in out and "differs in: resolution of the score" in out
    assert "Measured by others" in page and "Franca" in page


def test_what_others_measured_has_the_names_of_rows() -> None:
    names = {e.metric for e in measured_elsewhere(NOWHERE)}
    assert {"δ1", "abs-rel", "mean angle", "median angle", "11.25°", "22.5°", "30°", "aAcc", "mAcc"} <= names
    assert not names & {"d1 %", "abs rel", "mean deg", "30 deg %"}
    assert measured_elsewhere(NOWHERE, shipped=False) == []


TABLE = (
    "model,task,dataset,split,metric,value,tool,protocol,differs,date,source\n"
    "dinov2-b,linear_segmentation,voc2012,val,mIoU,71.5,a tool,one head,head,2026-01,a page\n"
    "dinov2-b,depth,nyuv2,test,RMSE,0.4,a tool,one head,,2026-01,a page\n"
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two rows of dinov2-b: both have a number measured elsewhere, one a published one."""
    write_row(tmp_path, "dinov2-b", "linear_segmentation", 0.6, dataset="voc2012", protocol_name="paper")
    write_row(tmp_path, "dinov2-b", "depth", 0.6, dataset="nyuv2", protocol_name="paper")
    (tmp_path / "measured_elsewhere.csv").write_text(TABLE)
    head = "model,model_id,task,dataset,metric,value,source,note\n"
    (tmp_path / "published.csv").write_text(head + "B,dinov2-b,linear_segmentation,voc2012,mIoU,82.5,a paper,\n")
    return tmp_path


def test_compare_sets_published_elsewhere_and_measured_side_by_side(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {gap.metric: gap for gap in compare("published", "dinov2-b", results=results).published}
    assert (found["mIoU"].published, found["RMSE"].published) == (82.5, None)
    assert [(e.value, e.tool) for gap in found.values() for e in gap.elsewhere] == [(0.4, "a tool"), (71.5, "a tool")]
    assert not found["RMSE"].inside and found["mIoU"].unconfirmed.count("inferred") == 1
    assert (
        bench("compare", "published", "dinov2-b", "--results", str(results), "--markdown", str(results / "c.md")) == 0
    )
    out, page = capsys.readouterr().out, (results / "c.md").read_text(encoding="utf-8")
    for text in (out, page):
        assert "71.5 (a tool)" in text and "differs in: head" in text and "nothing is said that differs" in text
        assert "1 measured elsewhere alone" in text and "of 1 published numbers" in text
        assert "linear_segmentation/voc2012: not confirmed in paper-" in text


def test_the_papers_view_has_all_three_and_what_differs(results: Path) -> None:
    build(results)
    html = (results / "leaderboard.html").read_text(encoding="utf-8")
    lines = json.loads(html.partition('id="data">')[2].partition("</script>")[0])["published"]
    assert [(x["metric"], x["value"], x["elsewhere"][0]["value"], x["preset"]) for x in lines] == [
        ("mIoU", 82.5, 71.5, "paper"),
        ("RMSE", None, 0.4, "paper"),
    ]
    assert lines[0]["elsewhere"][0]["differs"] == "head" and lines[0]["doubts"]["inferred"]
    names = preset_table("depth", protocol_file("depth"), "paper", "nyuv2")[0]
    assert all(names[name]["status"] == "inferred" for name in lines[1]["doubts"].get("inferred", ()))


def test_shipped_numbers_are_in_the_page_only_beside_shipped_rows(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth")
    build(tmp_path)
    html = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert json.loads(html.partition('id="data">')[2].partition("</script>")[0])["published"] == []
