"""`<results>/sensitivity/effects.json`: what every run of `bench sensitivity` found, for the leaderboard's picture.

The rows stay what counts: an effect is read back only where the preset's row and the variant's still hold its values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import BenchError
from benchmark.rows.parse import Misfit, Name, Record, parse
from benchmark.rows.row import VARIANTS, Row, read_row
from benchmark.sensitivity.effects import Effect
from benchmark.system import sealed
from benchmark.system.files import only_writer

FILE = "effects.json"


@dataclass(frozen=True, kw_only=True)
class KeptEffect(Record):
    """One metric of one model, one change of its preset."""

    base_folder: Name  # of the preset's row, below the results
    folder: Name  # of the variant's
    metric: Name
    change: Name
    status: Name  # of the least sure field that it is about
    reason: str = ""
    base: float
    value: float
    delta_ci95: tuple[float, float] | None = None  # of value - base, paired; None where they cannot be
    brings: tuple[str, ...] = ()  # published numbers that it brings inside the measured interval
    takes: tuple[str, ...] = ()  # and those that it takes out


def keep(results: Path, found: Iterable[Effect]) -> None:
    """Adds `found` to the file; what it had of the same row, change and metric is replaced."""
    path = results / VARIANTS / FILE
    new = {_key(body): body for body in (_body(e, results) for e in found)}
    if not new:
        return
    with only_writer(path.parent):
        old: list[Any] = []
        with suppress(FileNotFoundError, sealed.Damaged):
            old = list(sealed.read_json(path).get("effects") or [])
        kept = [body for body in old if isinstance(body, Mapping) and _key(body) not in new]
        sealed.write_json(path, {"schema": 1, "effects": [*kept, *new.values()]})


def read_kept(results: Path, rows: Mapping[Path, Row]) -> tuple[list[tuple[Row, KeptEffect]], list[str]]:
    """Every effect whose preset's row is among `rows` (folder -> row), and one line for a file that cannot be read and
    for what the rows have outlived."""
    path = results / VARIANTS / FILE
    try:
        listed = sealed.read_json(path).get("effects")
        found = [parse(KeptEffect, body) for body in listed if isinstance(body, Mapping)] if listed else []
    except FileNotFoundError:
        return [], []
    except (BenchError, Misfit, TypeError) as e:
        return [], [f"{path}: left out: {str(e).removeprefix(f'{path}: ')}. Run bench sensitivity again"]
    out, old = [], 0
    for effect in found:
        row = rows.get(results / effect.base_folder)
        if row is None:
            continue
        whole = _holds(row, effect.metric, effect.base) and _holds(results / effect.folder, effect.metric, effect.value)
        old += not whole
        if whole:
            out.append((row, effect))
    lost = [f"{path}: {old} effects left out: their rows have changed since. Run bench sensitivity again"]
    return out, lost * bool(old)


def _holds(row: Row | Path, metric: str, value: float) -> bool:
    try:
        facts = (row if isinstance(row, Row) else read_row(row)).data.metrics.get(metric)
    except BenchError:
        return False
    return facts is not None and facts.value == value


def _key(body: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(str(body.get(name)) for name in ("base_folder", "change", "metric"))


def _body(e: Effect, results: Path) -> dict[str, Any]:
    def below(folder: Path) -> str:
        return folder.relative_to(results).as_posix()

    effect = KeptEffect(
        base_folder=below(e.base_folder), folder=below(e.folder), metric=e.metric, change=e.change, status=e.status,
        reason=e.reason, base=e.base, value=e.value, delta_ci95=e.delta_ci95,
        brings=tuple(f"{p.value:g} ({p.source})" for p in e.brings_inside),
        takes=tuple(f"{p.value:g} ({p.source})" for p in e.takes_outside),
    )  # fmt: skip
    return effect.json()
