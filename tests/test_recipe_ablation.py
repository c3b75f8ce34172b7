"""The ablation spends the same compute on every row, and its table says how many seeds stand behind a number."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from adapters.tipsv2.recipe.ablation import ROWS, TEACHER, cell, differences, folder_of, plan, summary
from adapters.tipsv2.recipe.cost import step_flops
from adapters.tipsv2.recipe.publish import publish
from benchmark.errors import WeightsError


def test_every_row_spends_the_same_flops_over_three_seeds(tmp_path: Path) -> None:
    runs = plan({}, tmp_path)
    assert len({seed for _, seed, _ in runs}) >= 3
    budget = next(c.train.steps * step_flops(c) for row, _, c in runs if row == TEACHER)
    for _, _, config in runs:  # as near as whole steps allow
        assert abs(config.train.steps * step_flops(config) - budget) <= 0.5 * step_flops(config)


def test_distilled_rows_come_after_the_teacher_of_their_seed(tmp_path: Path) -> None:
    runs = plan({}, tmp_path)
    order = [(row, seed) for row, seed, _ in runs]
    distilled = [(i, seed, c) for i, (_, seed, c) in enumerate(runs) if c.teacher.path]
    assert {c.teacher.mask for _, _, c in distilled} == {False, True}
    for i, seed, config in distilled:
        assert order.index((TEACHER, seed)) < i
        assert config.teacher.path == str(folder_of(tmp_path, TEACHER, seed) / "final")


def test_the_table_gives_mean_and_t_interval_or_says_one_seed() -> None:
    assert cell(np.array([1.0, 2.0, 3.0])) == "2 ± 2.5"
    assert cell(np.array([1.5])) == "1.5 (one seed)"
    lines = summary({"a": [{"x": 1.0}, {"x": 1.0}], "b": []})
    assert lines[0] == "| row | x |"
    assert lines[2:] == ["| a | 1 ± 0 |", "| b | – |"]


def test_differences_are_paired_by_seed_and_name_rows_of_the_table() -> None:
    measured = {"a": [{"x": 1.0}, {"x": 5.0}, {"x": 9.0}], "b": [{"x": 0.5}, {"x": 4.5}, {"x": 8.5}], "c": [{"x": 2.0}]}
    lines = differences(measured, [["a", "b"], ["c", "a"], ["a", "missing"]])
    assert lines[2:] == ["| a − b | 0.5 ± 0 |", "| c − a | 1 (one seed) |", "| a − missing | – |"]
    table = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    assert {name for pair in table["compare"] for name in pair} <= set(table["rows"])


def test_publishing_an_unfinished_run_says_how_to_finish_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing. Finish the run first"):
        publish(tmp_path, tmp_path / "out")
