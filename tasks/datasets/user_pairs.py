"""A user's own pairs of pictures: a table with a line for each point that is marked in both."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

from benchmark.errors import DataError
from tasks.datasets.pairs import PairSet
from tasks.datasets.user_source import Source, table_rows

PLACES = ("source_x", "source_y", "target_x", "target_y")


def read_pairs(source: Source) -> PairSet:
    """The pairs of the table `pairs`, in the order in which they come. Raises DataError with the line of a mistake."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    lines: dict[tuple[Any, ...], str] = {}
    for where, row in table_rows(source, "pairs", ("source", "target", *PLACES)):
        names = source.find(str(row["source"]), where), source.find(str(row["target"]), where)
        point = [_number(row[key], f"{where}: {key}") for key in PLACES]
        if (other := lines.setdefault((*names, *point), where)) != where:
            raise DataError(f"{where}: this point of {names[0]} and {names[1]} is in {other} too. Keep one of the two")
        said = str(row.get("category") or "").strip()
        extent = _number(row["extent"], f"{where}: extent") if row.get("extent") not in (None, "") else 0.0
        if extent < 0 or (extent == 0 and row.get("extent") not in (None, "")):
            raise DataError(
                f"{where}: extent {extent:g} must be above 0: pixels, the longer side of the target's object"
            )
        pair = found.setdefault(names, {"where": where, "points": [], "category": said, "extent": extent})
        if (pair["category"], pair["extent"]) != (said, extent):
            raise DataError(f"{where}: has another category or extent than {pair['where']}, of the same pair. Keep one")
        pair["points"].append((where, point))
    if not found:
        raise DataError(f"{source.file.place(source.fields['pairs'])}: holds no pair")
    used = sorted({name for names in found for name in names})
    source.names = used
    images, place = source.images, {name: i for i, name in enumerate(used)}
    sizes: dict[int, tuple[int, ...] | None] = {}
    marked, extents = [], []
    for names, pair in found.items():
        shapes = []
        for name in names:
            at = place[name]
            if at not in sizes:
                sizes[at] = None  # of one that cannot be read: it is named, or left out, when it is
                with suppress(DataError):
                    sizes[at] = images.picture(at).shape[:2]
            shapes.append(sizes[at])
        for where, point in pair["points"]:
            for side, shape in enumerate(shapes):
                if shape is None:
                    continue
                (height, width), (x, y) = shape, point[2 * side : 2 * side + 2]
                if not (0 <= x <= width and 0 <= y <= height):
                    raise DataError(f"{where}: {x:g}, {y:g} lies outside of {names[side]}, which is {width}x{height}")
        points = np.array([point for _, point in pair["points"]])
        marked.append((points[:, :2], points[:, 2:]))
        extents.append(pair["extent"] or float(max(shapes[1] or (1,))))
    pairs = np.array([[place[name] for name in names] for names in found], np.int64)
    return PairSet(images, pairs, marked, extents, [pair["category"] for pair in found.values()])


def _number(value: Any, where: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise DataError(f"{where} is {value!r}, must be a number of pixels")
    return found
