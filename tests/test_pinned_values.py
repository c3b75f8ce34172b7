"""Every metric of every task of `scenes`, its chance and the details, on few pictures, against stored values.

The values say nothing of quality. They hold what no unit test sees whole: which pixels, which rows, which order. When
one changes by intention, `python tests/test_pinned_values.py` writes them again, and docs/changelog.md says why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmark import run
from benchmark.engine.report import Hooks

FILE = Path(__file__).parent / "pinned" / "scenes.json"
LIMIT = 24
TASKS = ("scenes", "in_context_segmentation/scenes", "correspondence/scenes")
SHORT = {
    "linear_segmentation.penalties": "[1e-3]", "depth.penalties": "[1e-2]", "depth.bin_steps": "20",
    "in_context_segmentation.memory": "1500", "classification.judged_images": "3",
}  # fmt: skip


@dataclass
class Bar:
    """Counts what it is told."""

    label: str
    total: int
    done: int = 0

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        """Not counted."""


def numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """What is a number in a row's details, by its path: not of lists, which have a record for each try of a fit, nor of
    single classes, which a few pixels tip."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not str(key).startswith("per_"):
                yield from numbers(f"{name}, {key}", inner)
    elif isinstance(value, (int, float)):
        yield name, float(value)


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Task -> metric, chance of a metric, number of the details -> value; and how many samples there are."""
    bars: list[Bar] = []

    def new(label: str, total: int) -> Bar:
        bars.append(Bar(label, total))
        return bars[-1]

    options: dict[str, Any] = {
        "results": folder / "results",
        "cache": folder / "cache",
        "device": "cpu",
        "overrides": SHORT,
    }
    report = run("tipsv2-mini", list(TASKS), limit=LIMIT, check=False, hooks=Hooks(progress=new), **options)
    assert not report.failures, [note.line for note in report.failures]
    assert len(bars) > 11 and not [bar for bar in bars if bar.done != bar.total]
    for timing in (row.data.timing for row in report.rows):
        parts = (timing.extract_s, timing.fit_s, timing.score_s)
        assert min(parts) >= 0 and sum(parts) <= timing.total_s + 0.01
    out: dict[str, dict[str, float]] = {}
    for row in report.rows:
        found = out[str(row.unit)] = {"samples": float(row.data.task.n)}
        for name, metric in sorted(row.data.metrics.items()):
            assert metric.higher_is_better == (metric.unit == "%"), f"{row.unit} {name}: errors have units, hits shares"
            found[name] = metric.value
            if metric.chance is not None:
                found[f"chance of {name}"] = metric.chance
        found |= dict(numbers("details", row.data.details))
    return out


def test_every_metric_has_its_value(tmp_path: Path) -> None:
    """To half a percent of the value: other processors round otherwise, and so few pictures may tip."""
    found, stored = measured(tmp_path), json.loads(FILE.read_text(encoding="utf-8"))
    assert {task: list(metrics) for task, metrics in found.items()} == {t: list(m) for t, m in stored.items()}
    off: dict[str, Any] = {}
    for task, metrics in stored.items():
        for name, value in metrics.items():
            if found[task][name] != pytest.approx(value, rel=5e-3, abs=1e-6):
                off[f"{task} {name}"] = (found[task][name], value)
    assert not off


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        values = measured(Path(place))
    FILE.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
