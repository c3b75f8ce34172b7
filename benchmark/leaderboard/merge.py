"""Rows of several folders as one: each measurement once, and a line for each that two folders have unlike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmark.rows.row import Row, read_all
from benchmark.rows.shipped import key_of


def merged(folders: Iterable[Path]) -> tuple[list[Row], list[str]]:
    """The rows of all `folders`; one line for each file that was left out and for each conflict.

    A row that several folders have is taken from the first of them whose row is not stale.
    """
    kept: dict[tuple[str, ...], Row] = {}
    problems: list[str] = []
    for folder in folders:
        rows, damaged = read_all(folder)
        problems += damaged
        for row in rows:
            first = kept.setdefault(key_of(row), row)
            if first is row:
                continue
            keep, other = (row, first) if first.stale and not row.stale else (first, row)
            kept[key_of(row)] = keep
            problems += _conflict(keep, other)
    return list(kept.values()), problems


def _conflict(kept: Row, other: Row) -> list[str]:
    """One line where two rows of the same measurement have other values; nothing where they are equal."""
    theirs = {name: metric.value for name, metric in other.data.metrics.items()}
    differ = [n for n, m in kept.data.metrics.items() if n in theirs and theirs[n] != m.value]
    if not differ:
        return []
    name = kept.data.main_metric if kept.data.main_metric in differ else differ[0]
    weights = kept.data.model.weights.sha256 != other.data.model.weights.sha256
    why = "; their weights differ" if weights else f"; stale: {other.stale}" if other.stale else ""
    more = f" and {len(differ) - 1} more metrics differ" if len(differ) > 1 else ""
    return [
        f"{other.folder}: left out: the same row with other values: {name} is {theirs[name]:.10g}, "
        f"{kept.data.metrics[name].value:.10g} in {kept.folder}{more}{why}"
    ]


def shown_places(folders: Sequence[Path]) -> Mapping[Path, str]:
    """What a page calls each folder: "" for a single one, else the part of its path that the others do not share."""
    if len(folders) == 1:
        return {folders[0]: ""}
    whole = {folder: os.path.abspath(folder) for folder in folders}
    parent = os.path.commonpath(whole.values())
    return {folder: Path(os.path.relpath(path, parent)).as_posix() for folder, path in whole.items()}


def without_places(line: str, places: Mapping[Path, str]) -> str:
    """`line` with every folder as the page calls it: no path of the machine that built it."""
    for folder in sorted(places, key=lambda f: -len(str(f))):
        end = r"(?![\w-])" if folder.is_absolute() else r"(?=:\s)"  # `results` is a word of its own in other places
        path, shown = rf"(?<![^\s('\"])({re.escape(str(folder))})(/|{end})", places[folder]
        line = re.sub(path, lambda found, shown=shown: shown + found[2] if shown else "", line)  # type: ignore[misc]
    return line
