"""The noise floor: how far a number moves when nothing but batch size, threads or dtype changes.

A drop below it is no regression. `bench compare --noise` measures it by extracting again, from nothing, under each
variation; `bench compare` then takes it as the default tolerance of the unit and protocol.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import BenchError
from benchmark.rows.row import Row
from benchmark.system import sealed

FILE = "noise.json"
SCHEMA = 2  # 2: sealed


@dataclass(frozen=True)
class Variation:
    """One way to repeat a run that should change nothing."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of benchmark.run
    threads: int | None = None


VARIATIONS = (
    Variation("reference"),
    Variation("batch size 1", {"batch_size": 1}),
    Variation("batch size 7", {"batch_size": 7}),
    Variation("1 thread", threads=1),
    Variation("2 threads", threads=2),
    Variation("bfloat16", {"dtype": "bfloat16"}),
)


def key_of(row: Row) -> str:
    """What a floor belongs to: unit, first 8 digits of the protocol hash, and --limit: a few samples move more."""
    part = f" of {row.data.task.limit}" if row.data.task.limit else ""
    return f"{row.unit}@{row.protocol_hash[:8]}{part}"


def measure(
    model: str,
    suite: str | None,
    *,
    results: Path,
    limit: int | None = None,
    tasks: Sequence[str] = (),
    variations: tuple[Variation, ...] = VARIATIONS,
) -> dict[str, float]:
    """Runs `suite` and `tasks` once for each variation; the largest moves of main metrics go to `results`/noise.json.

    Floors of other units stay; a floor measured before on the same unit is kept where it is larger on another model.
    Raises BenchError when a variation leaves a unit without a number.
    """
    values: dict[str, dict[str, float]] = {}
    for variation in variations:
        for row in _rows(model, tasks, suite, variation, limit):
            values.setdefault(key_of(row), {})[variation.name] = float(row.main.value)
    reference = variations[0].name
    entries = _load(results)
    for key, runs in values.items():
        lost = [v.name for v in variations if v.name not in runs]
        if lost:
            raise BenchError(f"{key}: no number under {', '.join(lost)}; the noise floor is not recorded")
        floor = max(abs(v - runs[reference]) for v in runs.values())
        entries.setdefault(key, {})[model] = {"floor": floor, "runs": runs}
    sealed.write_json(results / FILE, {"schema": SCHEMA, "floors": dict(sorted(entries.items()))})
    return {key: _largest(entries[key]) for key in values}


def read(results: Path) -> dict[str, float]:
    """Floor of each "unit@hash8", the largest over the models it was measured on; empty without a file."""
    return {key: _largest(models) for key, models in _load(results).items()}


def _largest(models: Mapping[str, Mapping[str, Any]]) -> float:
    return max(float(m["floor"]) for m in models.values())


def _load(results: Path) -> dict[str, dict[str, Any]]:
    path = results / FILE
    try:
        floors: dict[str, dict[str, Any]] = sealed.read_json(path, since=SCHEMA)["floors"]
        for models in floors.values():
            if not math.isfinite(_largest(models)):
                raise ValueError("a floor is not finite")
    except FileNotFoundError:
        return {}
    except (sealed.Damaged, ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
        why = str(e).removeprefix(f"{path}: ") if isinstance(e, sealed.Damaged) else repr(e)
        raise BenchError(
            f"{path}: cannot be read as noise floors ({why}). Delete it and run bench compare --noise"
        ) from None
    return floors


def _rows(model: str, tasks: Sequence[str], suite: str | None, variation: Variation, limit: int | None) -> list[Row]:
    from benchmark.engine.run import run

    with tempfile.TemporaryDirectory(prefix="bench-noise-") as scratch, _threads(variation.threads):
        options = {"results": Path(scratch) / "results", "cache": Path(scratch) / "cache", "limit": limit}
        report = run(model, tasks, suite=suite, **{**options, **variation.options})
        if report.failures:
            note = report.failures[0]
            raise BenchError(f"{note.unit} under {variation.name}: {note.text}")
        return report.rows


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
