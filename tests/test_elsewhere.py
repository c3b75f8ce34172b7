"""Numbers that others measured, and a name or a reason for every published one."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import bench

from benchmark.compare import papers
from benchmark.registry import check_model_name, models
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
    assert stated == 385 == len(numbers)
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
