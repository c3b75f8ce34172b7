"""Paired comparison: what is paired, what is refused, what the verdicts and exit codes say."""

from __future__ import annotations

import dataclasses
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import NINE, row_data, save_json, simulate, write_row, write_rows

from benchmark.cli import main
from benchmark.compare import noise_floor as noise
from benchmark.compare import report as report
from benchmark.compare.classes import _ratio_influence
from benchmark.compare.compare import UnitComparison, _compare_metric, _judge, _judged_metrics, compare, verdict
from benchmark.compare.sides import open_side
from benchmark.errors import UsageError
from benchmark.rows.row import Row, read_row, save
from benchmark.rows.schema import parse_row
from benchmark.system.paths import reference_dir

FAST: dict[str, Any] = {"resamples": 1000}


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


def test_of_two_rows_of_one_unit_the_one_on_the_same_data_is_compared(tmp_path: Path) -> None:
    write_row(tmp_path, "a", "depth")
    folder = write_row(tmp_path, "b", "depth")
    other = folder.parent.with_name("scenes-0a1b2c") / folder.name  # of another file of this name
    row = read_row(folder)
    data = row.data.json()
    data["task"]["dataset_digest"] = "0" * 64
    save_json(other, data, row.samples)
    (unit,) = compare("a", "b", results=tmp_path, **FAST).units
    assert unit.unit == "depth/scenes"


def test_what_each_picture_does_to_a_class_adds_up_to_nothing(tmp_path: Path) -> None:
    """The derivative of a ratio of sums, by hand for one class: intersections 3 and 1 of unions 4 and 4."""
    row = read_row(write_row(tmp_path, "a", "linear_segmentation"))
    assert np.abs(_ratio_influence(row, "mIoU").sum(0)).max() < 1e-9
    row.__dict__["samples"] = {"intersection": np.array([[3], [1]]), "union": np.array([[4], [4]])}
    assert _ratio_influence(row, "mIoU").tolist() == [[12.5], [-12.5]]


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
    line = "normals/scenes: not compared: b has no row of it. Make it: bench run --model b --task normals/scenes"
    assert compare("a", "b", results=tmp_path, **FAST).refused == (line,)


@pytest.mark.parametrize(
    ("made_by", "next_step"),
    [
        (
            "bench run --model x:b --name=b --task depth --seed 3 --limit 9 --trust-remote-code",
            "--model x:b --name=b --seed 3 --trust-remote-code",
        ),
        ("bench run --model p --model q --suite scenes", "--model b"),
        ("run(['p'], ['depth'])", "--model b"),
        ('bench run --model "torn', "--model b"),
    ],
)
def test_the_row_that_is_missing_is_made_as_the_others_of_its_model_were(
    made_by: str, next_step: str, tmp_path: Path
) -> None:
    write_rows(tmp_path, {"a": 0.6, "b": 0.6}, ["depth"])
    own = read_row(write_row(tmp_path, "a", "normals", protocol_name="paper"))
    own_facts = {**own.data.json()["task"], "place": "1a2b3c", "limit": 200}
    save_json(
        own.folder, {**own.data.json(), "task": own_facts, "command": "bench run --model a --task my.toml"}, own.samples
    )
    row = read_row(next((tmp_path / "b" / "depth" / "scenes").iterdir()))
    save_json(row.folder, {**row.data.json(), "command": made_by}, row.samples)
    (line,) = compare("a", "b", results=tmp_path, **FAST).refused
    assert line.endswith(f"Make it: bench run {next_step} --task my.toml --protocol paper --limit 200")


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
        outcome = dataclasses.replace(outcome, samples={**outcome.samples, "scene": np.arange(40) % 5})
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


def test_tolerances_of_a_unit_are_of_its_main_metric(tmp_path: Path) -> None:
    """A floor in points says nothing of metres, and a ceiling is no quality of a model."""
    pair = [read_row(next((reference_dir() / m / "depth" / "scenes").glob("*"))) for m in ("tipsv2-mini", "clip-mini")]
    main = pair[0].data.main_metric
    floors = {noise.key_of(pair[0]): 1e9}
    words: dict[str, Any] = {"results": tmp_path, "tasks": ["depth"], "floors": floors, "all_metrics": True, **FAST}
    found = {u.metric: u.tolerance for u in compare("tipsv2-mini", "clip-mini", **words).units}
    assert len(found) > 3 and found.pop(main) == 1e9 and set(found.values()) == {0}
    metrics = {main: pair[0].main, f"ceiling of {main}": pair[0].main}
    assert _judged_metrics(*(replace(row, data=replace(row.data, metrics=metrics)) for row in pair)) == [main]


def test_two_seeds_of_one_recipe_are_told_apart_in_at_most_5_percent_of_200_pairs() -> None:
    """What bench compare says of nine tasks: any verdict of better or worse is a false one here."""
    wrong, rejected = 0, 0
    for pair in range(200):
        units = []
        for task in NINE:
            a, b = in_memory(task, 2 * pair), in_memory(task, 2 * pair + 1)
            units.append(_compare_metric(a, b, str(a.data.main_metric), 0.0, 400, pair))
        verdicts = [u.verdict for u in _judge(units)]
        wrong += "worse" in verdicts or "better" in verdicts
        rejected += sum(u.p < 0.05 for u in units)
    assert wrong <= 10
    assert rejected / 1800 <= 0.05


@cache
def of_one_recipe(task: str) -> Row:
    return Row(parse_row(row_data("same", task, simulate(task, 0.6, 60, "same"))), Path(task))


def in_memory(task: str, seed: int) -> Row:
    """A row of one recipe with the samples of `seed`, never written; its values are not looked at."""
    row = replace(of_one_recipe(task))
    row.__dict__["samples"] = simulate(task, 0.6, 60, "same", seed).samples
    return row
