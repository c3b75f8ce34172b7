"""Paired comparison: what is paired, what is refused, what the verdicts and exit codes say."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rows import NINE, row_data, save_json, simulate, write_row, write_rows

from benchmark.cli import main
from benchmark.compare import noise_floor as noise
from benchmark.compare import report as report
from benchmark.compare.classes import class_changes
from benchmark.compare.compare import UnitComparison, _compare_metric, _judge, compare, verdict
from benchmark.compare.sides import open_side
from benchmark.errors import UsageError
from benchmark.rows.row import Row, read_row, save
from benchmark.rows.schema import parse_row
from benchmark.statistics.jackknife import influence, paired_error

FAST = {"resamples": 1000}


def run(*words: object) -> tuple[int, str]:
    """Exit code and standard output of `bench compare …`."""
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as done:
        main(["compare", *map(str, words)])
    return int(done.value.code or 0), out.getvalue()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_rows(folder, {"base": 0.6, "worse": 0.5})
    return folder


def test_a_model_compared_with_itself_shows_no_difference_on_any_task(measured: Path) -> None:
    found = compare("base", "base", results=measured, **FAST)
    assert len(found.units) == 9
    assert {u.verdict for u in found.units} == {"no difference"}
    assert all(u.delta == 0 and u.p_adjusted == 1 for u in found.units)


def test_a_weaker_model_is_worse_whichever_way_the_metric_points(measured: Path) -> None:
    verdicts = {u.unit.split("/")[0]: u for u in compare("base", "worse", results=measured, **FAST).units}
    assert verdicts["depth"].verdict == "worse" and verdicts["depth"].delta > 0
    assert verdicts["linear_segmentation"].verdict == "worse" and verdicts["linear_segmentation"].delta < 0
    back = {u.unit.split("/")[0]: u.verdict for u in compare("worse", "base", results=measured, **FAST).units}
    assert back["depth"] == back["linear_segmentation"] == "better"


def test_what_was_kept_or_computed_otherwise_is_named_beside_the_difference(tmp_path: Path) -> None:
    """Features as int8 in B are no effect of the model; so too another number type, machine or seed."""
    for name, store, vectors in (("a", "float16", "AVX2"), ("b", "int8", "AVX512")):
        write_row(tmp_path, name, "depth")
        (file,) = (tmp_path / name).rglob("result.json")
        data = json.loads(file.read_text())
        data["model"]["stored_as"], data["environment"]["instruction_set"] = store, vectors
        file.write_text(json.dumps(data))
    found = compare("a", "b", results=tmp_path, **FAST)
    words = "depth/scenes: features were kept (--store) as float16 in A and int8 in B"
    assert (
        found.conditions[0].startswith(words)
        and "a CPU with AVX2 in A and a CPU with AVX512 in B" in found.conditions[1]
    )
    assert words in run("a", "b", "--results", tmp_path)[1] and words in report.markdown(found)
    assert json.loads(report.to_json(found))["conditions"] == list(found.conditions)
    assert compare("a", "a", results=tmp_path, **FAST).conditions == ()


def test_delta_equals_the_difference_of_the_stored_values(measured: Path) -> None:
    for u in compare("base", "worse", results=measured, **FAST).units:
        rows = [read_row(next((measured / m / u.unit).iterdir())) for m in ("base", "worse")]
        assert u.delta == pytest.approx(rows[1].main.value - rows[0].main.value)
        assert u.ci95[0] <= u.delta <= u.ci95[1]


def test_files_folders_and_names_mean_the_same_row(measured: Path) -> None:
    folder = next((measured / "base" / "depth" / "scenes").iterdir())
    other = next((measured / "worse" / "depth" / "scenes").iterdir())
    by_folder = compare(folder, other, results=measured, **FAST)
    by_file = compare(folder / "result.json", other / "result.json", results=measured, **FAST)
    assert by_folder.units == by_file.units
    assert [u.unit for u in by_folder.units] == ["depth/scenes"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol_name": "paper"}, "the protocols differ"),
        ({"n": 60}, "the dataset digests differ"),
    ],
)
def test_rows_of_another_protocol_or_dataset_are_refused_by_name(tmp_path: Path, change: dict, words: str) -> None:
    write_row(tmp_path, "a", "depth")
    write_row(tmp_path, "b", "depth", **change)
    with pytest.raises(UsageError, match=f"depth/scenes: not compared: {words}"):
        compare("a", "b", results=tmp_path)


def test_rows_whose_samples_overlap_are_refused_not_paired_on_the_overlap(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth")
    write_row(tmp_path, "a", "normals")
    folder = write_row(tmp_path, "b", "depth")
    write_row(tmp_path, "b", "normals")
    row = read_row(folder)
    save(folder, replace(row.data, schema=2), {k: v[:-3] for k, v in row.samples.items()})
    found = compare("a", "b", results=tmp_path, **FAST)
    assert [u.unit for u in found.units] == ["normals/scenes"]
    assert found.refused == ("depth/scenes: not compared: the samples differ (120 and 117, 117 in common)",)


@pytest.mark.parametrize("older", ["a", "b"])
def test_a_row_that_another_version_resamples_otherwise_is_refused_alone(tmp_path: Path, older: str) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.6}, ["depth", "normals"])
    for name in {"a", "b"} - {older}:
        row = read_row(next((tmp_path / name / "depth" / "scenes").iterdir()))
        data = row.data.json()
        data["metrics"]["RMSE"]["statistic"]["cluster"] = "thing"
        save_json(row.folder, data, {**row.samples, "thing": np.arange(120) // 10})
    found = compare("a", "b", results=tmp_path, **FAST)
    assert [u.unit for u in found.units] == ["normals/scenes"]
    assert len(found.refused) == 1 and "depth/scenes: not compared: RMSE is computed or resampled" in found.refused[0]


def test_a_unit_the_candidate_lacks_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6}, ["depth", "normals"])
    write_rows(tmp_path, {"b": 0.6}, ["depth"])
    assert compare("a", "b", results=tmp_path, **FAST).refused == ("normals/scenes: not compared: b has no row of it",)


def test_a_folder_with_several_models_is_ambiguous(measured: Path) -> None:
    with pytest.raises(UsageError, match="holds rows of 2 models"):
        compare(measured, "base", results=measured)


def test_a_name_stands_for_ones_own_rows_and_else_for_the_shipped_ones(tmp_path: Path) -> None:
    mine, shipped = tmp_path / "results", tmp_path / "shipped"
    write_rows(shipped, {"mini": 0.6, "floor": 0.2}, ["depth", "normals"])
    write_row(mine, "mini", "depth", 0.6)
    assert [r.folder.is_relative_to(mine) for r in open_side("mini", mine, shipped).rows] == [True]
    assert len(open_side("floor", mine, shipped).rows) == 2
    with pytest.raises(UsageError, match="Did you mean 'floor'"):
        open_side("flor", mine, shipped)


def test_a_model_is_found_by_the_name_that_tables_show(tmp_path: Path) -> None:
    """Names of the hub and of own code are no names of folders."""
    write_row(tmp_path, "hf:owner/name", "depth", 0.6)
    assert open_side("hf:owner/name", tmp_path).name == "hf:owner/name"


ZEROED = """
import dataclasses
import torch
from benchmark import ImageRequest, load_encoder
class Zeroed:
    def __init__(self, share):
        self.inner, self.share = load_encoder("tipsv2-mini"), share
        card = self.inner.card
        weights = dataclasses.replace(card.weights, sha256=("0" if share else "1") * 64)
        self.card = dataclasses.replace(card, name="zeroed", weights=weights, has_text=False, has_text_patches=False)
        self.transform, self.device = self.inner.transform, self.inner.device
    def encode_image(self, images, request=ImageRequest()):
        found = self.inner.encode_image(images, ImageRequest(request.layers))
        kept = torch.rand(found.patches.shape[1:3], generator=torch.Generator().manual_seed(0)) >= self.share
        return dataclasses.replace(found, patches=found.patches * kept[..., None].to(self.device))
def whole(spec):
    return Zeroed(0.0)
def zeroed(spec):
    return Zeroed(0.05)
"""


def test_a_model_with_5_percent_of_its_patch_features_zeroed_is_found_to_be_worse(tmp_path: Path) -> None:
    """The same encoder file, whole and with 5 % of its patch tokens at zero, through the command line."""
    (tmp_path / "mine.py").write_text(ZEROED)
    results = tmp_path / "results"
    for name in ("whole", "zeroed"):
        words = ["--model", f"{tmp_path}/mine.py:{name}", "--task", "normals/scenes", "--limit", "100", "--no-check"]
        with pytest.raises(SystemExit) as done:
            main(["run", *words, "--results", str(results)])
        assert not done.value.code
    sides = [next(results.glob(f"*{name}")) for name in ("whole", "zeroed")]
    assert run(sides[0], sides[0], "--fail-on-regression", "--results", results)[0] == 0
    code, out = run(*sides, "--fail-on-regression", "--results", results)
    assert code == 3 and "▼ worse" in out
    code, out = run(*reversed(sides), "--fail-on-regression", "--results", results)
    assert code == 0 and "▲ better" in out


def test_an_unknown_side_suggests_the_close_name(measured: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'base'"):
        compare("bsae", "base", results=measured)


def test_too_few_samples_give_no_verdict(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth", 0.9, n=6)
    write_row(tmp_path, "b", "depth", 0.1, n=6)
    assert compare("a", "b", results=tmp_path, **FAST).units[0].verdict == "too little data"


def test_a_drop_inside_the_tolerance_is_no_regression(measured: Path) -> None:
    loose = {u.unit: u for u in compare("base", "worse", results=measured, tolerance=50.0, **FAST).units}
    assert {u.verdict for u in loose.values()} == {"no difference"}


def unit(ci95: tuple[float, float], p: float, **changes: object) -> UnitComparison:
    """A difference of two percentages with this interval and adjusted p."""
    facts = {
        "unit": "depth/scenes", "protocol": "fast-1", "metric": "m", "metric_unit": "%", "higher_is_better": True,
        "n": 100, "independent": 100, "a": 50.0, "b": 50.0 + sum(ci95) / 2, "delta": sum(ci95) / 2, "ci95": ci95,
        "p": p, "p_adjusted": p, "method": "", "error": 1.0, "mde": 1.0, "tolerance": 0.0, "verdict": "undecided",
    }  # fmt: skip
    return UnitComparison(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ci95", "p", "changes", "expected"),
    [
        ((0.1, 0.9), 0.01, {}, "better"),
        ((0.1, 0.9), 0.01, {"tolerance": 0.6}, "no difference"),
        ((-0.5, 0.9), 0.6, {}, "no difference"),
        ((-0.5, 2.1), 0.2, {}, "undecided"),  # 2.1 points are not ruled out
        ((0.1, 0.9), 0.09, {}, "undecided"),  # leaves out 0, and Holm does not let it count
        ((0.1, 0.9), 0.09, {"tolerance": 1.0}, "no difference"),
        ((0.0159, 0.1150), 0.094, {"metric_unit": "m", "a": 1.44}, "undecided"),
        ((-0.06, 0.07), 0.9, {"metric_unit": "m", "a": 1.44}, "no difference"),  # 5 % are 0.072 m
        ((5.0, 9.0), 0.001, {"independent": 9}, "too little data"),
    ],
)
def test_no_difference_is_said_only_where_the_data_rule_one_out(
    ci95: tuple[float, float], p: float, changes: dict, expected: str
) -> None:
    assert verdict(unit(ci95, p, **changes), p) == expected


def test_the_smallest_visible_effect_grows_with_the_table(measured: Path) -> None:
    alone = compare(*(next((measured / m / "depth").rglob("result.json")) for m in ("base", "worse")), **FAST).units[0]
    of_nine = next(u for u in compare("base", "worse", results=measured, **FAST).units if u.unit == alone.unit)
    assert of_nine.error == alone.error and of_nine.mde / alone.mde == pytest.approx(3.614 / 2.802, rel=1e-3)


def test_samples_of_a_few_clusters_are_too_little_data(tmp_path: Path) -> None:
    """40 samples of 5 scenes are five, however clear their difference."""
    for model, skill in (("a", 0.9), ("b", 0.3)):
        outcome = simulate("depth", skill, 40, model)
        outcome.samples["scene"] = np.arange(40) % 5
        data = row_data(model, "depth", outcome)
        data["metrics"]["RMSE"]["statistic"]["cluster"] = "scene"
        save_json(tmp_path / model / "depth" / "scenes" / "fast-1", data, outcome.samples)
    found = compare("a", "b", results=tmp_path, **FAST).units[0]
    assert (found.n, found.independent, found.verdict) == (40, 5, "too little data")


def test_the_noise_floor_is_the_default_tolerance(tmp_path: Path) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.5}, ["linear_segmentation"])
    unit = compare("a", "b", results=tmp_path, **FAST).units[0]
    assert unit.verdict == "worse"
    key = noise.key_of(read_row(next((tmp_path / "a" / "linear_segmentation" / "scenes").iterdir())))
    floors = {"schema": 1, "floors": {key: {"a": {"floor": abs(unit.delta) + 1, "runs": {}}}}}
    (tmp_path / "noise.json").write_text(json.dumps(floors))
    again = compare("a", "b", results=tmp_path, floors=noise.read(tmp_path), **FAST).units[0]
    assert again.tolerance == pytest.approx(abs(unit.delta) + 1) and again.verdict == "no difference"


def test_two_seeds_of_one_recipe_are_told_apart_in_at_most_5_percent_of_200_pairs() -> None:
    """What bench compare says of nine tasks: any verdict of better or worse is a false one here."""
    wrong, rejected = 0, 0
    for pair in range(200):
        units = []
        for task in NINE:
            a, b = in_memory(task, 2 * pair), in_memory(task, 2 * pair + 1)
            units.append(_compare_metric(a, b, str(a.data.main_metric), None, {}, 400, pair))
        verdicts = [u.verdict for u in _judge(units)]
        wrong += "worse" in verdicts or "better" in verdicts
        rejected += sum(u.p < 0.05 for u in units)
    assert wrong <= 10
    assert rejected / 1800 <= 0.05


def in_memory(task: str, seed: int) -> Row:
    """A row of one recipe and `seed`, never written."""
    outcome = simulate(task, 0.6, 60, "same", seed)
    row = Row(parse_row(row_data("same", task, outcome)), Path(task))
    row.__dict__["samples"] = outcome.samples
    return row


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
