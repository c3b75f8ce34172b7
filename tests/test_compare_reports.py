"""bench compare: classes, influence, exit codes, reports, published numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from rows import NINE, row_data, save_json, simulate, write_row, write_rows
from scipy import stats as scipy_stats
from test_compare import FAST, in_memory, measured, run, unit  # noqa: F401

from benchmark.compare import report as report
from benchmark.compare.classes import _change, class_changes, class_iou, class_names
from benchmark.compare.compare import _only_in_b, _partner, _tolerance, compare, machine, sample_ids
from benchmark.compare.noise_floor import key_of
from benchmark.errors import UsageError
from benchmark.rows.row import read_row
from benchmark.statistics.jackknife import influence, paired_error
from benchmark.statistics.statistic import Statistic
from benchmark.system.paths import reference_dir


def test_class_changes_name_the_class_that_was_lost(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "linear_segmentation")
    outcome = simulate("linear_segmentation", 0.6, 120, "a")
    outcome.samples["intersection"][:, 2] //= 2
    data = row_data("b", "linear_segmentation", outcome)
    save_json(
        tmp_path / "b" / "linear_segmentation" / "scenes" / f"fast-{data['protocol']['hash'][:8]}",
        data,
        outcome.samples,
    )
    unit = compare("a", "b", results=tmp_path, **FAST).units[0]
    assert unit.classes[0].name == "sphere" and unit.classes[0].delta < -15 and unit.classes[0].p < 1e-6
    assert all(c.delta == 0 for c in unit.classes[1:])
    assert "sphere −" in report.class_line(unit)
    a, b = (next((tmp_path / name).rglob("samples.parquet")) for name in "ab")
    shares = []
    counts = np.random.default_rng(0).multinomial(120, np.full(120, 1 / 120), 4000)
    for path in (a, b):
        inter, union = (np.stack(pd.read_parquet(path)[word])[:, 2] for word in ("intersection", "union"))
        shares.append(100 * (counts @ inter) / (counts @ union))
    low, high = unit.classes[0].ci95
    assert high - low == pytest.approx(2 * 1.96 * np.std(shares[1] - shares[0]), rel=0.08)
    assert (low + high) / 2 == pytest.approx(unit.classes[0].delta)


def test_a_class_in_too_few_images_is_shown_without_an_interval_and_never_named(tmp_path: Path) -> None:
    """Its linearised error is 0 in one image, so it would come first with an interval of no width."""
    for model, share in (("a", 0.9), ("b", 0.2)):
        outcome = simulate("linear_segmentation", 0.6, 120, "same")
        for name, area in (("union", 500), ("intersection", int(500 * share))):
            outcome.samples[name][:, 2] = 0
            outcome.samples[name][7:11, 2] = area
        data = row_data(model, "linear_segmentation", outcome)
        save_json(tmp_path / model / "linear_segmentation" / "scenes" / "fast-1", data, outcome.samples)
    found = compare("a", "b", results=tmp_path, **FAST)
    last = found.units[0].classes[-1]
    assert (last.name, last.images, last.too_few) == ("sphere", 4, True) and last.delta == pytest.approx(-70)
    assert np.isnan(last.p) and np.isnan(last.ci95).all() and report.notable_classes(found.units[0]) == []
    assert json.loads(report.to_json(found))["units"][0]["classes"][-1]["ci95"] == [None, None]
    assert "too few: 4 images" in run("a", "b", "--classes", "--results", tmp_path)[1]


def test_equal_classes_are_rarely_named(tmp_path: Path) -> None:
    """Adjusted over classes: of pairs of one recipe at most about 5 % name a class."""
    named = 0
    for pair in range(100):
        a, b = (in_memory("linear_segmentation", 2 * pair + i) for i in range(2))
        named += any(c.p < 0.05 for c in class_changes(a, b, "mIoU"))
    assert named <= 5 + 2 * 2.2


@pytest.mark.parametrize("task", NINE)
def test_influence_predicts_the_bootstrap_standard_error(task: str) -> None:
    outcomes = [simulate(task, skill, 300, f"m{i}") for i, skill in enumerate((0.6, 0.58))]
    statistic = outcomes[0].measurements[0].statistic
    moves = [influence(o.samples, statistic) for o in outcomes]
    matrices = [statistic.matrix(o.samples) for o in outcomes]
    counts = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), 2000)
    deltas = statistic.value(counts @ matrices[1]) - statistic.value(counts @ matrices[0])
    assert paired_error(*moves) == pytest.approx(deltas.std(), rel=0.08)
    assert abs(moves[0].sum()) < 1e-6 * np.abs(moves[0]).sum()


def test_the_influence_of_a_cluster_is_the_sum_of_its_samples_at_the_first_of_them() -> None:
    samples = {"hit": np.array([1.0, 0, 1, 1, 0, 0]), "image": np.array(["b", "a", "b", "c", "a", "c"])}
    alone = influence(samples, Statistic("mean", ("hit",), 100.0))
    np.testing.assert_allclose(alone, 100 * (samples["hit"] - 0.5) / 6, atol=1e-6)
    together = influence(samples, Statistic("mean", ("hit",), 100.0, cluster="image"))
    expected = [alone[0] + alone[2], alone[1] + alone[4], 0, alone[3] + alone[5], 0, 0]
    np.testing.assert_allclose(together, expected, atol=1e-6)


def test_exit_codes_tell_regression_refusal_and_peace_apart(measured: Path, tmp_path: Path) -> None:
    place = ("--results", measured)
    assert run("base", "base", "--fail-on-regression", *place)[0] == 0
    assert run("base", "worse", *place)[0] == 0
    assert run("base", "worse", "--fail-on-regression", *place)[0] == 3
    write_rows(tmp_path, {"a": 0.6}, ["depth", "normals"])
    write_rows(tmp_path, {"b": 0.6}, ["depth"])
    assert run("a", "b", "--results", tmp_path)[0] == 0
    code, _ = run("a", "b", "--fail-on-regression", "--results", tmp_path)
    assert code == 1


@pytest.mark.parametrize(("side", "damage"), [("a", "cut"), ("a", "half"), ("b", "half")])
def test_a_damaged_or_half_written_row_of_either_side_stops_the_gate(tmp_path: Path, side: str, damage: str) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.6}, ["depth", "normals"])
    file = next((tmp_path / side / "depth").rglob("result.json"))
    file.write_text("{") if damage == "cut" else file.unlink()
    assert run("a", "b", "--results", tmp_path)[0] == 0
    code, out = run("a", "b", "--fail-on-regression", "--results", tmp_path, "--junit", tmp_path / "c.xml")
    assert code == 1 and str(file.parent) in out and "1 damaged or half-written" in out
    assert int(ElementTree.parse(tmp_path / "c.xml").getroot().attrib["errors"]) >= 1


def test_a_unit_only_the_candidate_has_is_named_and_no_error(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6}, ["depth"])
    write_rows(tmp_path, {"b": 0.6}, ["depth", "normals"])
    code, out = run("a", "b", "--fail-on-regression", "--results", tmp_path)
    assert code == 0 and "normals/scenes: not compared: only B (b) has a row of it" in out
    assert "a → b: 1 no difference, 1 not compared" in " ".join(out.split())


def test_shipped_rows_are_said_to_be_and_not_those_of_the_user(tmp_path: Path) -> None:
    both = compare("pixels", "random-vit", results=tmp_path, tasks=["depth/scenes"], **FAST)
    assert both.conditions[0].startswith("pixels, random-vit: shipped rows, measured earlier with densebench ")
    shutil.copytree(reference_dir() / "pixels", tmp_path / "pixels")
    one = compare("pixels", "random-vit", results=tmp_path, tasks=["depth/scenes"], **FAST)
    assert one.conditions[0].startswith("random-vit: shipped rows")
    assert not any("shipped" in line for line in compare("pixels", "pixels", results=tmp_path, **FAST).conditions)


def test_reports_hold_every_unit_and_survive_hostile_names(tmp_path: Path) -> None:
    name = "<script>|`x`"
    write_row(tmp_path, "a", "depth", 0.6)
    write_row(tmp_path, name, "depth", 0.4)
    other = next(p for p in tmp_path.iterdir() if p.name != "a")
    found = compare("a", other, results=tmp_path, **FAST)
    assert found.b == name
    text = report.markdown(found)
    assert "<script>" not in text and "depth/scenes" in text
    suites = ElementTree.fromstring(report.to_junit(found))
    assert suites.attrib["failures"] == "1" and suites[0].attrib["name"] == f"a → {name}"
    data = json.loads(report.to_json(found))
    assert data["units"][0]["verdict"] == "worse" and data["units"][0]["ci95"][0] > 0


def test_command_writes_markdown_and_junit_and_prints_json(measured: Path, tmp_path: Path) -> None:
    md, xml = tmp_path / "c.md", tmp_path / "c.xml"
    code, out = run("base", "worse", "--results", measured, "--json", "--markdown", md, "--junit", xml)
    assert code == 0 and len(json.loads(out)["units"]) == 9
    assert md.read_text().count("▼ worse") >= 7
    assert ElementTree.parse(xml).getroot().attrib["tests"] == "9"


def test_published_numbers_are_shown_and_never_tested(tmp_path: Path) -> None:
    write_row(tmp_path, "tipsv2-l", "linear_segmentation", dataset="ade20k", protocol_name="paper")
    head = "model,model_id,task,dataset,metric,value,source,note\n"
    (tmp_path / "published.csv").write_text(
        head + "TIPSv2 L/14,tipsv2-l,linear_segmentation,ade20k,mIoU,50.1,a paper,\n"
    )
    found = compare("published", "tipsv2-l", results=tmp_path)
    other = compare(tmp_path / "tipsv2-l", "published", results=tmp_path)
    assert (found.a, found.b, other.a, other.b) == ("published", "tipsv2-l", "tipsv2-l", "published")
    assert not found.units and found.published[0].published == 50.1
    assert "shown, not tested" in report.markdown(found)
    code, _ = run("published", "tipsv2-l", "--fail-on-regression", "--results", tmp_path)
    assert code == 2
    (tmp_path / "published.csv").unlink()  # then the numbers that come with densebench: Table 7 of arXiv:2604.12012
    assert "arXiv:2604.12012" in compare("published", "tipsv2-l", results=tmp_path).published[0].source


def test_a_part_of_the_data_confirms_no_published_number(tmp_path: Path) -> None:
    outcome = simulate("linear_segmentation", 0.6, 120, "tipsv2-l")
    data = row_data("tipsv2-l", "linear_segmentation", outcome, "ade20k", protocol_name="paper")
    folder = tmp_path / "tipsv2-l" / "linear_segmentation" / "ade20k" / "paper-1"
    head = "model,model_id,task,dataset,metric,value,source,note\n"
    value = data["metrics"]["mIoU"]["value"]
    (tmp_path / "published.csv").write_text(head + f"L,tipsv2-l,linear_segmentation,ade20k,mIoU,{value},a paper,\n")
    save_json(folder, data, outcome.samples)
    code, out = run("published", "tipsv2-l", "--results", tmp_path)
    assert "1 of 1 published numbers inside" in out and f"paper-{data['protocol']['hash'][:8]}  120" in out
    for part in ({"task": {**data["task"], "limit": 120}}, {"partial": ["test: 120 of 2,000"]}):
        save_json(folder, {**data, **part}, outcome.samples)
        code, out = run("published", "tipsv2-l", "--results", tmp_path)
        assert "0 of 0 published numbers inside" in out and "1 measured on a part of the data" in out
        assert "120, a part" in out and code == 0


def stub(folder: str, digest: str = "d", unit: str = "depth/x", protocol: str = "1" * 64) -> Any:
    """As much of a row as says whose partner it is."""
    data = SimpleNamespace(
        task=SimpleNamespace(dataset_digest=digest), protocol=SimpleNamespace(name="fast", hash=protocol)
    )
    return SimpleNamespace(unit=unit, folder=Path(folder), protocol_hash=protocol, data=data, model="m")


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        ("f1", ["f2", "f1"], "f1"),  # by the name of the folder
        ("f1 f2", ["f2", "f3"], "f3"),  # f2 is the partner of A's own f2
        ("f1", ["f2", "f3"], "B has 2 rows for A's f1. Name the folders of two rows"),
        ("f1 f2", ["f2"], "B has 0 rows for A's f1."),
        ("f1", ["f2/other", "f3"], "f3"),  # on the same data
        ("f1", ["f2/other"], "f2"),  # another digest is refused later, by name
        ("f1", ["f1/d/9"], "depth/x: not compared: the protocols differ (A fast-11111111, B fast-99999999)"),
    ],
)
def test_of_several_rows_of_one_unit_the_partner_is_the_one_that_is_left(
    mine: str, theirs: list[str], found: str
) -> None:
    rows = []
    for words in theirs:
        parts = words.split("/")
        folder, digest, protocol = parts + ["d", "1"][len(parts) - 1 :]
        rows.append(stub(folder, digest, protocol=protocol * 64))
    a, b = (SimpleNamespace(name=n, rows=tuple(of)) for n, of in (("A", map(stub, mine.split())), ("B", rows)))
    partner: Any = _partner(a.rows[0], a, b)  # type: ignore[arg-type]
    assert found in partner if isinstance(partner, str) else partner.folder.name == found


def test_units_that_only_b_has_are_named_once_and_in_order() -> None:
    a = SimpleNamespace(name="A", rows=(stub("f", unit="b"),))
    b = SimpleNamespace(name="B", rows=tuple(stub("f", unit=unit) for unit in ("d", "b", "c", "d")))
    said = _only_in_b(a, b)  # type: ignore[arg-type]
    assert said == tuple(f"{unit}: not compared: only B (B) has a row of it" for unit in ("c", "d"))


def test_a_machine_is_its_gpu_or_the_vectors_of_its_cpu_and_ids_are_positions_where_there_are_none() -> None:
    for gpu, vectors, said in (("H100", "AVX2", "H100"), (None, "AVX2", "a CPU with AVX2"), (None, None, None)):
        assert machine(SimpleNamespace(gpu=gpu, instruction_set=vectors)) == said  # type: ignore[arg-type]
    columns: dict[str, Any] = {"rmse": np.zeros(3), "sample": np.array(list("xyz")), "image_id": np.array(list("abc"))}
    for name, expected in (("image_id", ["a", "b", "c"]), ("sample", ["x", "y", "z"]), ("rmse", [0, 1, 2])):
        assert sample_ids(SimpleNamespace(samples=columns)).tolist() == expected  # type: ignore[arg-type]
        columns.pop(name)


def test_the_change_of_a_class_has_the_interval_and_p_of_a_normal_law() -> None:
    found = _change("sky", 50.0, 53.0, 1.5, 5)
    assert found.p == pytest.approx(2 * scipy_stats.norm.sf(2)) and found.delta == 3.0 and not found.too_few
    assert found.ci95 == pytest.approx(scipy_stats.norm.interval(0.95, 3.0, 1.5), abs=1e-3)
    assert _change("sky", 50.0, 47.0, 1.5, 4).p == found.p and _change("sky", 50.0, 47.0, 1.5, 4).too_few
    assert [_change("sky", 50.0, b, 0.0, 9).p for b in (50.0, 51.0)] == [1.0, 0.0]
    assert np.isnan(_change("sky", 50.0, 51.0, np.nan, 3).p)


def test_classes_have_the_rows_names_or_numbers_and_a_class_that_never_occurs_has_no_iou() -> None:
    def row(kind: str = "miou", **details: Any) -> Any:
        samples = {"i": [[3, 0, 0], [1, 2, 0]], "u": [[4, 1, 0], [4, 4, 0]]}
        statistic = Statistic(kind, ("i", "u"), 100.0)  # type: ignore[arg-type]
        return SimpleNamespace(data=SimpleNamespace(details=details), samples=samples, statistic=lambda name: statistic)

    assert (
        class_names(row(class_names=["a", "b"]), 2) == ["a", "b"] == class_names(row(per_class_iou={"a": 1, "b": 2}), 2)
    )
    assert class_names(row(class_names=["a"]), 2) == ["class 0", "class 1"] == class_names(row(), 2)
    iou = class_iou(row(), "mIoU")
    assert iou is not None and iou[:2].tolist() == [50.0, 40.0] and np.isnan(iou[2])
    assert class_iou(row("ratio"), "aAcc") is None


def test_what_is_given_goes_before_the_suites_tolerance_and_that_before_the_noise_floor(tmp_path: Path) -> None:
    row = read_row(write_row(tmp_path, "a", "depth"))
    only: Any = SimpleNamespace(tolerances={row.unit: 0.3})
    other: Any = SimpleNamespace(tolerances={})
    floors = {key_of(row): 0.2}
    main = row.data.main_metric
    assert [_tolerance(row, main, given, of, floors) for given, of in ((0.5, only), (None, only), (None, other))] == [
        0.5,
        0.3,
        0.2,
    ]
    assert [_tolerance(row, main, None, None, of) for of in (floors, {})] == [0.2, 0.0]
    assert (_tolerance(row, "δ1", None, only, floors), _tolerance(row, "δ1", 0.5, None, {})) == (0.0, 0.5)
    with pytest.raises(UsageError, match="name a measured model on one side"):
        compare("published", "published", results=tmp_path)
