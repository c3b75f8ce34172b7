"""The Papers view: published, measured by others, measured here, and what of the protocols differs or is not known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmark.compare.papers import PRESET, preset_of
from benchmark.compare.published import STATUSES
from benchmark.errors import BenchError
from benchmark.protocol import preset_table, presets
from benchmark.registry import protocol_file, tasks
from benchmark.rows.published import MeasuredElsewhere, PublishedNumber, measured_elsewhere, read_published
from benchmark.system.digest import plain

Tables = tuple[list[PublishedNumber], list[MeasuredElsewhere]]


def read_papers(folders: Sequence[Path], reference: Path | None) -> tuple[Tables, list[str]]:
    """The two tables of the first folder that has them, else those that come with densebench, where `reference` says
    so; and a line for one that cannot be read."""
    places = [*folders, *([reference.parent] if reference else [])]
    published: list[PublishedNumber] = []
    elsewhere: list[MeasuredElsewhere] = []
    problems = []
    try:
        published = next(filter(None, map(read_published, places)), [])
        elsewhere = next(filter(None, (measured_elsewhere(place, shipped=False) for place in places)), [])
    except BenchError as e:
        problems.append(str(e))
    return (published, elsewhere), problems


def paper_lines(published: Sequence[PublishedNumber], elsewhere: Sequence[MeasuredElsewhere]) -> list[dict[str, Any]]:
    """One line for each published number, and for each that others alone have: `value` is then None."""
    rest: dict[tuple[str, str, str, str], list[MeasuredElsewhere]] = {}
    for e in elsewhere:
        rest.setdefault((e.model, e.task, e.dataset, e.metric), []).append(e)
    lines, met = [], set()
    for p in published:
        key = (p.model_id, p.task, p.dataset, p.metric)
        met.add(key)
        lines.append(_line(plain(p), preset_of(p), rest.get(key, [])))
    for key, some in rest.items():
        if key not in met:
            model, task, dataset, metric = key
            facts = {"model": model, "model_id": model, "task": task, "dataset": dataset, "metric": metric}
            lines.append(_line({**facts, "value": None, "source": "", "note": ""}, PRESET, some))
    return lines


def _line(facts: dict[str, Any], preset: str, elsewhere: Sequence[MeasuredElsewhere]) -> dict[str, Any]:
    said = ("value", "tool", "protocol", "differs", "date", "source", "split")
    others = [{name: getattr(e, name) for name in said} for e in elsewhere]
    doubts = unconfirmed(facts["task"], facts["dataset"], preset)
    return {**facts, "preset": preset, "elsewhere": others, "doubts": doubts}


@cache
def unconfirmed(task: str, dataset: str, preset: str) -> dict[str, list[str]]:
    """Status -> fields of the preset that nobody has confirmed; nothing for a task or preset that is not here."""
    if task not in tasks() or preset not in presets(protocol_file(task)):
        return {}
    table, _ = preset_table(task, protocol_file(task), preset, dataset)
    fields = {name: entry.get("status") for name, entry in table.items() if isinstance(entry, dict)}
    found = {status: [name for name, own in fields.items() if own == status] for status in STATUSES}
    return {status: names for status, names in found.items() if names}
