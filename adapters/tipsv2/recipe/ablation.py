"""The ablation: every row of `ablation_rows.toml`, several seeds, equal FLOPs, one read-out fixed in advance.

Distilled rows take as teacher the "CLIP + DINO + iBOT++" run of the same seed. `perf/ablation.py` trains and scores.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.cost import step_flops
from benchmark.system import sealed

ROWS = Path(__file__).with_name("ablation_rows.toml")
TEACHER = "CLIP + DINO + iBOT++"
SCHEMA = 1  # of scores.json: since then sealed


def plan(changes: dict[str, Any], out: Path) -> list[tuple[str, int, RecipeConfig]]:
    """(row, seed, config) in the order they are trained; `train.steps` gives each row the FLOPs of the base config."""
    table = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    changes = {"train.steps": table["steps"], **changes}
    base = read_config(table["base"], changes)
    budget = step_flops(base) * base.train.steps
    runs = []
    for seed in table["seeds"]:
        for row, own in table["rows"].items():
            teacher = folder_of(out, TEACHER, seed) / "final"
            values = {k: str(teacher) if v == "{teacher}" else v for k, v in own.items()}
            config = read_config(table["base"], {**changes, **values, "name": row, "train.seed": seed})
            steps = max(round(budget / step_flops(config)), 1)
            values |= {"name": row, "train.seed": seed, "train.steps": steps}
            runs.append((row, seed, read_config(table["base"], {**changes, **values})))
    return runs


def scored(path: Path) -> dict[str, Any] | None:
    """The scores that are there; None where there are none, or where they are damaged, which is said."""
    try:
        return sealed.read_json(path, since=SCHEMA)
    except FileNotFoundError:
        return None
    except sealed.Damaged as e:
        sealed.remake(path, e, "the run is scored again")
        return None


def folder_of(out: Path, row: str, seed: int) -> Path:
    """Where a run lies."""
    return out / f"{re.sub(r'[^a-z0-9]+', '-', row.lower().replace('++', '-pp')).strip('-')}-seed{seed}"


def summary(measured: dict[str, list[dict[str, float]]]) -> list[str]:
    """A Markdown table: mean over seeds ± half the 95 % t-interval, for each row and task."""
    return _table("row", _tasks(measured), measured)


def differences(measured: dict[str, list[dict[str, float]]], pairs: list[list[str]]) -> list[str]:
    """A Markdown table: mean difference of two rows ± half the 95 % t-interval, over the seeds both have."""
    rows = {
        f"{first} − {second}": [
            {task: a[task] - b[task] for task in a.keys() & b.keys()}
            for a, b in zip(measured.get(first, ()), measured.get(second, ()))
        ]
        for first, second in pairs
    }
    return _table("difference", _tasks(measured), rows)


def _tasks(measured: dict[str, list[dict[str, float]]]) -> list[str]:
    return sorted({task for runs in measured.values() for run in runs for task in run})


def _table(title: str, tasks: list[str], rows: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = [f"| {title} | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name, runs in rows.items():
        cells = [cell(np.array([run[task] for run in runs if task in run])) for task in tasks]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def cell(values: np.ndarray) -> str:
    """ "mean ± half-width" of a t-interval; a single seed has no interval."""
    if len(values) == 0:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.3g} (one seed)"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3g} ± {half:.2g}"
