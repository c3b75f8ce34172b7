"""Models that see the same pictures are encoded side by side: each picture is decoded once, nothing stored differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make, told_worker

from benchmark.engine.graph import Graph, Node, by_memory
from benchmark.engine.pieces import pieces_of
from benchmark.features.extract import _Decoder
from benchmark.forecast import forecast as plan
from benchmark.forecast.decoding import decoding


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("many"))


def test_a_picture_is_decoded_once_for_models_side_by_side_where_memory_allows(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(_Decoder, "__getitem__", noting(read, _Decoder.__getitem__))
    monkeypatch.setattr(plan, "CALIBRATION_S", 0.01)
    shards = {}
    for name, room in (("beside", 24.0), ("alone", 8.0)):
        worker = told_worker(place, tmp_path / name, "step-*")
        (job,) = worker.brief.jobs
        options = replace(worker.brief.targets[0].options, weights=str(place / "runs" / "step-*"))
        plans = plan.forecast([worker.brief.targets[0].name], [str(place / "labels.toml")], None, options)
        answers = [worker.do("open", number, None).opened for number in range(3)]
        opened = {number: replace(one, weights=8, room=room) for number, one in enumerate(answers) if one}
        nodes = pieces_of(opened, 0, [job], {}, 2)
        read.clear()
        for node in [node for node in nodes if node.work[0] == "encode"]:
            parts = [(p.model, (0,), opened[p.model].identity, p.key, p.blocks) for p in node.work[1]]
            answer = worker.do("encode", *parts)
            assert len(answer.encoded) == (3 if room > 8 else 1) and all(e.pictures > 0 for e in answer.encoded)
        told = decoding([replace(one, weights=8, room=room) for one in plans])
        assert (told.encoded, told.decoded) == (3 * 170, len(read)) and told.decoded == (170 if room > 8 else 510)
        assert len(told.apart) == (0 if room > 8 else 2)
        found = (tmp_path / name / "cache" / "features").rglob("shard-*")
        shards[name] = {f.relative_to(tmp_path / name): f.read_bytes() for f in found}
    assert shards["beside"] == shards["alone"] and len(shards["alone"]) >= 6


def noting(read: list[int], plain: Any) -> Any:
    """`_Decoder.__getitem__` that notes each picture it decodes."""

    def decode(self: Any, number: int) -> Any:
        out = plain(self, number)
        read.extend(out.indices)
        return out

    return decode


def test_an_encoder_that_fails_beside_others_stops_alone(place: Path, tmp_path: Path) -> None:
    worker = told_worker(place, tmp_path, "step-*")
    opened = {number: worker.do("open", number, None).opened for number in range(3)}
    broken = worker._sessions[1].encoder
    broken.map *= float("nan")  # type: ignore[attr-defined]
    (key, plan), *_ = opened[0].passes.items()
    blocks = [block for block, _ in plan.blocks]
    parts = [(n, (0,), one.identity, k, blocks) for n, one in opened.items() for k in [key]]
    answer = worker.do("encode", *parts)
    assert not answer.failed and [e.pictures > 0 for e in answer.encoded] == [True, True, True]
    left = [bool(worker._sessions[n].planner.passes[key].missing()) for n in range(3)]
    assert left == [False, True, False]
    assert "NaN or infinite" in worker.do("encode", parts[1]).failed


def test_models_side_by_side_come_before_others_and_a_split_range_holds_up_its_own_rows() -> None:
    graph = Graph()
    graph.add([Node(f"open {m}", model=m, group=m // 2, opens=True) for m in range(4)])

    def taken(loaded: int | None) -> Node:
        node = graph.next(loaded)
        assert node
        return node

    assert [taken(None).key, taken(0).key] == ["open 0", "open 1"], "those of its group first"
    both = Node("both", 2.0, (), 0, 0)
    graph.add([both, Node("row 0", 1.0, ("both",), 0, 0), Node("row 1", 1.0, ("both",), 1, 0)])
    assert taken(1) == both
    graph.split(both, [Node("first", 1.0, (), 0, 0), Node("second", 1.0, (), 1, 0)])
    assert [taken(1).key, taken(1).key] == ["second", "first"]
    graph.done("second")
    assert taken(0).key == "row 1", "row 0 waits for its own piece alone"
    graph.done("first")
    assert taken(0).key == "row 0"
    for key in ("open 0", "open 1", "row 0", "row 1"):
        graph.done(key)
    assert [taken(0).key, taken(0).key, graph.finished] == ["open 2", "open 3", False]


def test_lots_take_the_memory_that_there_is() -> None:
    assert by_memory({3: 4.0, 5: 4.0, 6: 4.0}, 8.0) == [[3, 5], [6]]
    assert by_memory({3: 40.0, 5: 4.0}, 8.0) == [[3], [5]]
