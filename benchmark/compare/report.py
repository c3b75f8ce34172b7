"""A comparison as words: table cells, Markdown, JSON and JUnit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.compare.classes import ClassChange
from benchmark.compare.compare import ALPHA, Comparison, UnitComparison
from benchmark.compare.junit import Case, junit_xml
from benchmark.compare.published import PublishedGap, tools
from benchmark.rows.stale import MARK
from benchmark.system.digest import plain
from benchmark.system.escaping import escape

HEADER = ("task", "metric", "A", "B", "Δ (B − A)", "95 % interval", "adjusted p", "smallest visible", "n", "verdict")
PUBLISHED_HEADER = (
    "task", "metric", "measured", "95 % interval", "protocol", "n", "published", "Δ", "elsewhere", "source"
)  # fmt: skip
MARKS = {
    "better": "▲ better",
    "worse": "▼ worse",
    "no difference": "= no difference",
    "undecided": "? undecided",
    "too little data": "? too little data",
}
OUTCOMES = {"worse": "failed", "undecided": "skipped", "too little data": "skipped"}  # JUnit's words; else "passed"
CLASSES_SHOWN = 5
METHOD_NOTE = (
    "Δ and interval: paired bootstrap over the same samples; p: McNemar for hits, else a paired randomisation test, "
    "adjusted by Holm over the table; "
    "smallest visible: the true difference that this adjusted test would find four times out of five; "
    "no difference: inside the tolerance, or the interval holds 0 and nothing worth knowing (2 points; 5 % of A for "
    "metres and degrees); undecided: neither that nor a significant difference."
)


def digits(unit: str) -> int:
    """Decimals that fit a unit: 2 for percent and degrees, 4 for metres."""
    return 4 if unit == "m" else 2


def number(value: float, unit: str, signed: bool = False) -> str:
    """`value` with the decimals of its unit; a minus sign, not a hyphen."""
    return f"{value:{'+' if signed else ''}.{digits(unit)}f}".replace("-", "−")


def p_words(p: float) -> str:
    """A p-value as people read it."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def cells(u: UnitComparison) -> tuple[str, ...]:
    """The table row of one unit, in the order of HEADER."""
    low, high = (number(v, u.metric_unit, signed=True) for v in u.ci95)
    p = p_words(u.p_adjusted)
    sides = (number(v, u.metric_unit) + marked(why) for v, why in zip((u.a, u.b), u.stale))
    values = (*sides, number(u.delta, u.metric_unit, signed=True))
    name = f"{u.metric} {u.metric_unit}".strip() + (" ↑" if u.higher_is_better else " ↓")
    return (u.unit, name, *values, f"[{low}, {high}]", p, number(u.mde, u.metric_unit), str(u.n), MARKS[u.verdict])


def marked(stale: str) -> str:
    """The sign behind the value of a row that is out of date for this reason, if it is."""
    return f" {MARK}" if stale else ""


def published_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """The rows of a comparison with published numbers, in the order of PUBLISHED_HEADER."""
    return [
        (
            g.unit, f"{g.metric} {g.metric_unit}".strip(), number(g.measured, g.metric_unit) + marked(g.stale),
            f"[{number(g.ci95[0], g.metric_unit)}, {number(g.ci95[1], g.metric_unit)}]",
            g.protocol, f"{g.n}, a part" if g.partial else str(g.n),
            *_against(g), tools(g.elsewhere), g.source,
        )
        for g in comparison.published
    ]  # fmt: skip


def _against(g: PublishedGap) -> tuple[str, str]:
    """The published number and the distance from it; dashes where there is none."""
    if g.published is None:
        return "–", ""
    return f"{g.published:g}", number(g.measured - g.published, g.metric_unit, signed=True)


def notable_classes(u: UnitComparison) -> list[ClassChange]:
    """The classes whose change is significant over all classes, largest first, at most CLASSES_SHOWN."""
    clear = [c for c in u.classes if c.p < ALPHA]
    return sorted(clear, key=lambda c: -abs(c.delta))[:CLASSES_SHOWN]


def class_line(u: UnitComparison) -> str:
    """One line of the per-class IoU changes worth reading; empty when there is none."""
    parts = [f"{c.name} {number(c.delta, '%', signed=True)}" for c in notable_classes(u)]
    return f"{u.unit}: IoU per class: {', '.join(parts)}" if parts else ""


def summary(comparison: Comparison) -> str:
    """One line: how many units are better, worse, the same, undecided."""
    counts = [(v, sum(u.verdict == v for u in comparison.units)) for v in MARKS]
    parts = [f"{n} {v}" for v, n in counts if n]
    if comparison.published:
        known = [g for g in comparison.published if g.published is not None]
        whole = [g for g in known if not g.partial]
        inside = sum(g.inside for g in whole)
        parts.append(f"{inside} of {len(whole)} published numbers inside the measured interval (not a test)")
        if others := len(comparison.published) - len(known):
            parts.append(f"{others} measured elsewhere alone")
        if part := len(known) - len(whole):
            parts.append(f"{part} measured on a part of the data")
    if lost := len(comparison.refused) + len(comparison.unpaired):
        parts.append(f"{lost} not compared")
    if comparison.problems:
        parts.append(f"{len(comparison.problems)} damaged or half-written")
    return f"{comparison.a} → {comparison.b}: " + (", ".join(parts) or "nothing compared")


def left_out(comparison: Comparison) -> tuple[str, ...]:
    """One line for each thing that was not compared: pairs that were refused, damaged rows, units only B has."""
    return (*comparison.refused, *comparison.problems, *comparison.unpaired)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; `|` and line breaks in cells are escaped."""

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(escape(v) for v in values) + " |"

    return [line(header), "|" + " --- |" * len(header), *(line(r) for r in rows)]


def markdown(comparison: Comparison) -> str:
    """The comparison for a pull request or a job summary."""
    lines = [f"## {escape(summary(comparison))}", ""]
    if comparison.units:
        lines += table(HEADER, [cells(u) for u in comparison.units])
        lines += ["", METHOD_NOTE]
    if comparison.published:
        lines += table(PUBLISHED_HEADER, published_cells(comparison))
        lines += ["", "Published numbers have no samples and their protocol may differ: shown, not tested."]
    classes = [line for u in comparison.units if (line := class_line(u))]
    lines += [f"- {escape(line)}" for line in (*classes, *comparison.conditions, *left_out(comparison))]
    return "\n".join(lines) + "\n"


def without_nan(value: Any) -> Any:
    """`value` with None for NaN and infinities, which JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): without_nan(v) for k, v in value.items()}
    return [without_nan(v) for v in value] if isinstance(value, (list, tuple)) else value


def to_json(comparison: Comparison) -> str:
    """The whole comparison, classes included."""
    data = without_nan({"summary": summary(comparison), **plain(comparison)})
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def cases(comparison: Comparison) -> list[Case]:
    """One JUnit case for each unit: failed for a regression, error for a pair that was refused or a damaged row,
    skipped for a unit that only B has."""
    suite = f"{comparison.a} → {comparison.b}"
    out = []
    for u in comparison.units:
        text = dict(zip(HEADER, cells(u)))
        change = f"Δ {text['Δ (B − A)']} {text['95 % interval']}, adjusted p {text['adjusted p']}"
        words = f"{u.metric} {text['A']} → {text['B']} ({change})"
        outcome = OUTCOMES.get(u.verdict, "passed")
        out.append(Case(suite, f"{u.unit} {u.metric}", outcome, f"{u.verdict}: {words}"))  # type: ignore[arg-type]
    lost = (*comparison.refused, *comparison.problems)
    out += [Case(suite, line.split(":")[0], "error", line) for line in lost]
    return out + [Case(suite, line.split(":")[0], "skipped", line) for line in comparison.unpaired]


def to_junit(comparison: Comparison) -> str:
    """The comparison as JUnit XML."""
    return junit_xml("bench compare", cases(comparison))
