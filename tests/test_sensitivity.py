"""`bench sensitivity`: alternatives are data, variants are `--set` runs on one extraction, effects are paired."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import bench, told
from rows import simulate, write_row
from test_protocol import OTHER, TOML, Toy, file, load  # noqa: F401  # `file` is a fixture

from benchmark.compare.sides import open_side
from benchmark.engine.report import Report
from benchmark.engine.run import run
from benchmark.errors import UsageError
from benchmark.leaderboard import build
from benchmark.leaderboard.collect import collect
from benchmark.protocol import EvalProtocol, load_protocol, presets, variants
from benchmark.registry import load_task, protocol_file, tasks
from benchmark.rows.published import PublishedNumber
from benchmark.rows.row import Row, read_all, read_row
from benchmark.sensitivity.effects import as_json, changes_of, effects, is_variant, orders
from benchmark.sensitivity.kept import keep
from benchmark.sensitivity.measure import Sensitivity, sensitivity
from benchmark.sensitivity.report import lines, summary
from benchmark.statistics.paired import paired

MODEL = f"{Path(__file__).parent}/small_model.py:build"
UNITS = ("zero_shot_classification/scenes", "instance_retrieval/scenes")


def every_preset() -> Iterator[EvalProtocol]:
    for task in tasks():
        path, schemas = protocol_file(task), load_task(task).schemas
        for name in presets(path):
            for dataset in (None, *variants(path, name)):
                yield load_protocol(task, schemas, path, name, None, dataset)


def test_every_unconfirmed_field_has_alternatives_or_the_reason_why_not() -> None:
    for task in tasks():
        for preset, table in presets(protocol_file(task)).items():
            inner = [(preset, table), *((f"{preset}.{k}", v) for k, v in table.items() if isinstance(v, dict))]
            for where, fields in inner:
                for name, entry in fields.items():
                    if isinstance(entry, dict) and entry.get("status") in ("inferred", "unknown"):
                        assert entry.get("alternatives") or entry.get("only"), f"{task} [{where}] {name}"


def test_no_preset_takes_an_alternative_for_what_it_is_already(monkeypatch) -> None:
    monkeypatch.setattr("benchmark.protocol.presets", functools.cache(presets))
    found = list(every_preset())
    assert sum(len(p.alternatives) for p in found) > 250
    for protocol in found:
        for change in protocol.changes():
            schemas, path = load_task(protocol.task).schemas, protocol_file(protocol.task)
            if protocol.name in presets(path) and not variants(path, protocol.name):
                set_ = load_protocol(protocol.task, schemas, path, protocol.name, change.settings)
                assert set_.hash != protocol.hash and set_.name.endswith("+set"), f"{protocol.task} {change}"


def test_pairs_are_of_two_fields_that_go_together() -> None:
    task = "classification"
    found = load_protocol(task, load_task(task).schemas, protocol_file(task), "paper").changes(
        ("cls", "view"), pairs=True
    )
    words = [str(change) for change in found]
    seen = "view = short-side, view_size = 256, crop = 224, interpolation = bicubic"
    assert words[:2] == [seen, "cls = last"] and f"{seen}, cls = mean" in words
    assert "cls = last, cls = mean" not in words and len(words) == 4 + 3


def test_an_alternative_is_set_with_the_fields_that_change_with_it(file: Path) -> None:
    more = f'{OTHER}value = 2, reason = "r", also = {{ mode = "b", sizes = [7] }} }}, {{ value = 5, reason = "s" }}] }}'
    file.write_text(TOML.replace('source = "code" }', more))
    found = load(file)
    first, second = found.changes()
    assert first.values == {"rate": 2.0, "mode": "b", "sizes": (7,)} and second.values == {"rate": 5.0}
    assert first.settings == {"rate": "2.0", "mode": "b", "sizes": "[7]"} and str(second) == "rate = 5.0"
    assert load(file, **first.settings).values == Toy(3, 2.0, "b", (7,)) and found.changes(["k"]) == []
    assert found.changes(pairs=True) == [first, second]  # both are of one field
    assert [change.values["rate"] for change in load(file, k="9").changes()] == [2.0, 5.0]
    assert load(file, rate="3").changes() == []  # of a field that is set there is nothing left to ask


SHORT = [w for unit in UNITS for w in ("--task", unit)] + ["--limit", "12", "--no-check", "--workers", "0"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sensitivity, dict[str, int]]:
    """The results folder, what was found, and the forwards of the preset alone."""
    folder = tmp_path_factory.mktemp("measured")
    options: dict[str, Any] = {"limit": 12, "check": False, "workers": 0}
    plain = run(MODEL, UNITS, results=folder / "alone", cache=folder / "c1", **options)
    return (
        folder / "r",
        sensitivity([MODEL], UNITS, results=folder / "r", cache=folder / "c2", **options),
        plain.forwards,
    )


def test_all_variants_share_one_extraction(measured) -> None:
    _, found, alone = measured
    assert found.report.forwards == alone and all(count > 0 for count in alone.values())
    assert len(found.effects) == 8 and not found.report.failures


def test_every_variants_row_is_that_of_a_plain_set_run(measured, tmp_path) -> None:
    results, found, _ = measured
    options: dict[str, Any] = {"limit": 12, "check": False, "workers": 0, "cache": results.parent / "c1"}
    for effect in {e.folder: e for e in found.effects}.values():
        variant, base = read_row(effect.folder), read_row(effect.base_folder)
        change = next(c for c in changes_of(base) if str(c) == effect.change)
        (plain,) = run(MODEL, effect.unit, overrides=change.settings, results=tmp_path, **options).rows
        assert variant.folder.name == plain.folder.name and variant.data.metrics == plain.data.metrics
        assert variant.data.id == plain.data.id and variant.data.protocol == plain.data.protocol
        assert effect.value == plain.main.value and effect.delta == plain.main.value - effect.base


def test_rows_of_variants_are_never_among_those_of_the_preset(measured) -> None:
    results, found, _ = measured
    rows, problems = read_all(results)
    assert {row.data.protocol.name for row in rows} == {"fast"} and len(rows) == 2 and not problems
    assert not any("sensitivity" in line for line in collect(results)[1])
    assert len(list((results / "sensitivity").glob("*/*/*/*/result.json"))) == len(found.effects)
    assert {row.data.protocol.name for row in open_side(str(results), results).rows} == {"fast"}


def test_the_same_command_again_makes_nothing(measured, capsys) -> None:
    results, found, _ = measured
    assert bench("sensitivity", *SHORT, "--results", str(results), "--json", "-m", MODEL) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["effects"] == json.loads(json.dumps([as_json(e) for e in found.effects]))
    assert not sum(again["forwards"].values())


def test_a_plan_counts_variants_first(tmp_path, capsys, monkeypatch) -> None:
    """At most 1.5 times the forwards of the plain run, for both embedded encoders on all of scenes."""
    monkeypatch.setattr("benchmark.forecast.forecast.CALIBRATION_S", 0.05)
    words = ["--suite", "scenes", "-m", "tipsv2-mini", "-m", "clip-mini", "--limit", "9", "--json"]
    words += ["--results", str(tmp_path)]
    assert bench("plan", *words) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    plain = [plan for plan in said if "model" in plan]  # and a line for all models together
    assert bench("sensitivity", *words, "--plan") == 0
    varied = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(plain, varied, strict=True):
        assert len(one["units"]) == 9 and len(other["units"]) > 27 and "forwards_of_presets" not in one
        assert other["forwards_of_presets"] == one["forwards"] > 0
        assert other["forwards"] <= 1.5 * one["forwards"]
        assert any(u["change"] == "cls = last" for u in other["units"])


def test_a_field_without_alternatives_is_named(tmp_path, capsys) -> None:
    code, _, error = told(capsys, "sensitivity", "--task", UNITS[0], "--field", "view_size", "--results", str(tmp_path))
    assert code == 2 and "view_size" in error and "cls" in error and error.count("\n") == 1
    code, _, error = told(capsys, "sensitivity", "--task", "ade150", "--protocol", "notebook", "-f", "clss")
    assert code == 2 and "clss" in error


TASK = "text_to_image_retrieval"


def pair(tmp_path: Path, model: str, before: float, after: float) -> tuple[Row, Row]:
    """Rows of a model by `paper` on scenes, and with the last CLS."""
    base = read_row(write_row(tmp_path, model, TASK, before, protocol_name="paper"))
    said = ("value", "status", "source")
    fields = {k: {n: getattr(v, n) for n in said} for k, v in base.data.protocol.fields.items()}
    fields["cls"] = {"value": "last", "status": "confirmed", "source": "set by the user"}
    place = tmp_path / "sensitivity"
    return base, read_row(write_row(place, model, TASK, after, protocol_name="paper+set", fields=fields))


def test_an_effect_is_the_paired_bootstrap_of_compare(tmp_path) -> None:
    base, row = pair(tmp_path, "a", 0.5, 0.7)
    told_ = PublishedNumber("A", "a", TASK, "scenes", "R@1", row.main.value, "a paper", "")
    (found,) = effects([base], [row], [told_], resamples=500)
    assert (found.change, found.status, found.fields) == ("cls = last", "unknown", ("cls",))
    same = paired(base.samples, row.samples, base.statistic(), resamples=500, seed=0)
    assert (found.delta, found.delta_ci95) == (pytest.approx(same.delta), same.ci95)
    assert found.brings_inside == (told_,) and not found.takes_outside
    (back,) = effects([base], [row], [PublishedNumber("A", "a", TASK, "scenes", "R@1", base.main.value, "", "")], 500)
    assert back.takes_outside and not back.brings_inside


def test_the_order_of_models_is_said_to_turn_only_where_it_turns(tmp_path) -> None:
    rows = [pair(tmp_path, "a", 0.5, 0.8), pair(tmp_path, "b", 0.6, 0.6)]
    found = effects([base for base, _ in rows], [row for _, row in rows], [], 100)
    (order,) = orders(found)
    assert (order.base, order.found, order.holds) == (("b", "a"), ("a", "b"), False)
    (still,) = orders(effects([b for b, _ in rows], [pair(tmp_path / "2", "a", 0.5, 0.55)[1], rows[1][1]], [], 100))
    assert still.holds and still.base == still.found


def test_the_order_is_said_of_the_metric_whose_table_it_is_in(tmp_path) -> None:
    (one,) = effects([(rows := pair(tmp_path, "a", 0.5, 0.8))[0]], [rows[1]], [], 100)
    found = [replace(one, model=m, metric=metric, base=base, value=value) for m, metric, base, value in (
        ("a", "kNN", 80, 81), ("b", "kNN", 79, 79.5), ("a", "linear", 80, 81), ("b", "linear", 79, 85))]  # fmt: skip
    told_ = {some: lines([e for e in found if e.metric == some], orders(found))[0][-1] for some in ("kNN", "linear")}
    assert told_ == {"kNN": "holds", "linear": "b > a"}
    whole = Sensitivity(Report(), tuple(found), tuple(orders(found)))
    assert whole.held == 1 and "holds in 1 of 1" in summary(whole)


def test_variants_of_other_data_or_older_code_explain_nothing(tmp_path) -> None:
    base, row = pair(tmp_path, "a", 0.5, 0.7)
    assert is_variant(row, tmp_path) and not is_variant(base, tmp_path)
    other = replace(row, data=replace(row.data, task=replace(row.data.task, dataset_digest="f" * 64)))
    older = replace(row, data=replace(row.data, task=replace(row.data.task, version=99)))
    assert older.stale and len(effects([base], [row], [], 100)) == 1 and effects([base], [other, older], [], 100) == []


def test_a_results_folder_may_be_called_like_that_of_variants(tmp_path) -> None:
    base, row = pair(tmp_path / "sensitivity", "a", 0.5, 0.7)
    assert is_variant(row, tmp_path / "sensitivity") and not is_variant(base, tmp_path / "sensitivity")


def test_rows_of_another_model_preset_or_limit_are_no_variants(tmp_path) -> None:
    _, row = pair(tmp_path, "a", 0.5, 0.7)
    other, _ = pair(tmp_path / "b", "b", 0.5, 0.7)
    fast = read_row(write_row(tmp_path, "a", TASK, 0.5))
    assert effects([other, fast], [row], [], 100) == []
    assert len(simulate(TASK, 0.5, 10, "a").samples["id"]) == 10


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('alternatives = [{ value = "c", reason = "r" }]', "'c' is not one of a, b"),
        ('alternatives = [{ value = "b" }]', "an alternative must be"),
        ('alternatives = [{ value = "b", reason = "" }]', "an alternative must be"),
        ('alternatives = [{ value = "a", reason = "r" }]', "is no other protocol"),
        ('alternatives = [{ value = "b", reason = "r", also = { size = 1 } }]', "size, which is no field"),
        ('alternatives = "b"', "alternatives is a list"),
        ('alternatives = [], only = "r"', "alternatives is a list"),
        ("others = []", "must be {"),
    ],
)
def test_a_wrong_alternative_is_named_where_it_stands(tmp_path, entry, message) -> None:
    from test_protocol import TOML, Toy

    file = tmp_path / "toy.toml"
    old = 'mode = { value = "a", status = "unknown", source = "nobody" }'
    file.write_text(TOML.replace(old, old.replace(" }", f", {entry} }}")), encoding="utf-8")
    with pytest.raises(UsageError) as e:
        load_protocol("toy", {"toy": Toy}, file, "base")
    assert message in str(e.value) and "mode" in str(e.value) and "\n" not in str(e.value)


def test_a_missed_number_is_explained_by_what_was_run(tmp_path, capsys) -> None:
    base, row = pair(tmp_path, "tipsv2-b", 0.4, 0.9)
    toy = "model,model_id,task,dataset,metric,value,source,note\n"
    toy += f"B,tipsv2-b,{TASK},scenes,R@1,{base.main.value + 2 * (row.main.value - base.main.value)},a paper,\n"
    (tmp_path / "published.csv").write_text(toy, encoding="utf-8")
    assert bench("reproduce", "tipsv2", "--results", str(tmp_path), "--explain") == 0
    said = capsys.readouterr().out
    assert "cls = last (unknown)" in said and "50 % of the gap" in said and "brings it" not in said
    assert "not run: cls = mean. bench" in said and "--protocol paper" in said


def page_effects(results: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    built = build(results)
    html = (results / "leaderboard.html").read_text(encoding="utf-8")
    return json.loads(html.partition('id="data">')[2].partition("</script>")[0])["effects"], built.problems


def test_what_was_found_stands_beside_the_rows_and_is_in_the_page(measured) -> None:
    results, found, _ = measured
    kept = json.loads((results / "sensitivity" / "effects.json").read_text())["effects"]
    assert len(kept) == len(found.effects) == 8  # and as many after the same command again
    assert all(not Path(e["folder"]).is_absolute() for e in kept)
    effects_, problems = page_effects(results)
    assert not problems and {(e["change"], e["metric"], e["base"], e["value"]) for e in effects_} == {
        (e.change, e.metric, e.base, e.value) for e in found.effects
    }
    assert {e["r"] for e in effects_} == {0, 1}


def test_an_effect_whose_rows_have_changed_is_not_shown(tmp_path) -> None:
    base, row = pair(tmp_path, "a", 0.5, 0.7)
    keep(tmp_path, effects([base], [row], [], 100))
    (one,), problems = page_effects(tmp_path)
    assert (one["base"], one["value"], one["status"]) == (base.main.value, row.main.value, "unknown") and not problems
    pair(tmp_path, "a", 0.5, 0.8)
    none, (line,) = page_effects(tmp_path)
    assert none == [] and "1 effects left out: their rows have changed since" in line
    (tmp_path / "sensitivity" / "effects.json").write_text('{"effects": [{"metric": 3}], "schema": 1}')
    none, (line,) = page_effects(tmp_path)
    assert none == [] and "effects.json: left out" in line and "Run bench sensitivity again" in line


def test_effects_of_two_runs_are_kept_together(tmp_path) -> None:
    first, second = pair(tmp_path, "a", 0.5, 0.7), pair(tmp_path, "b", 0.6, 0.6)
    for base, row in (first, second, first):
        keep(tmp_path, effects([base], [row], [], 100))
    assert sorted(e["r"] for e in page_effects(tmp_path)[0]) == [0, 1]
