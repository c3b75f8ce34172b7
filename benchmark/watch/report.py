"""A watched run as files for people and CI: history.csv, summary.md, junit.xml, trend.png."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.compare.compare import ALPHA
from benchmark.compare.junit import Case, junit_xml
from benchmark.compare.report import OUTCOMES, number, table
from benchmark.system.escaping import escape
from benchmark.system.files import write_atomic, write_text
from benchmark.system.plurals import number_of
from benchmark.watch.history import Entry, History, Point, rows_folder

FEW = "too little data"  # a verdict
SUMMARY = "summary.md"
REPORTS = ("history.csv", SUMMARY, "trend.png", "junit.xml")
MARK = {"worse": " ▼", "better": " ▲", "no difference": " =", "undecided": " ?", FEW: " ?"}
LEGEND = (
    "▼ worse, ▲ better, = no difference, ? undecided or too few samples to tell: paired on the same samples, p "
    "adjusted by Holm over the tasks of a checkpoint."
)
WORSE, LINE, BAND = "#c0362c", "#2f5d8a", "#2f5d8a"


def write_reports(history: History, waiting: Sequence[str] = ()) -> None:
    """Writes REPORTS beside the history (trend.png once there is a number); `waiting` names checkpoints that could not
    be scored yet."""
    folder = history.folder
    write_text(folder / "history.csv", history.csv())
    write_text(folder / SUMMARY, markdown(history, waiting))
    write_text(folder / "junit.xml", junit_xml(f"bench watch {history.model}", cases(history, waiting)))
    if history.units():
        image = trend_png(history)
        write_atomic(folder / "trend.png", lambda f: f.write(image))


def cases(history: History, waiting: Sequence[str] = ()) -> list[Case]:
    """One case for each checkpoint, as it was scored last, and unit: failed where it is worse, error where it could
    not be scored."""
    out = []
    for e in history.latest():
        seconds = e.seconds / max(len(e.points), 1)
        for p in e.points:
            outcome = OUTCOMES.get(p.verdict, "passed")
            out.append(Case(e.name, p.unit, outcome, _words(p), seconds))  # type: ignore[arg-type]
        out += [Case(e.name, line.split(":")[0], "error", line) for line in (*e.failures, *e.refused)]
    return out + [Case(line.split(":")[0], "readable", "error", line) for line in waiting]


def _words(p: Point) -> str:
    value = f"{p.metric} {number(p.value, p.metric_unit)} {p.metric_unit}".strip()
    if p.delta is None or p.p_adjusted is None:
        return value
    return f"{p.verdict}: {value} (Δ {number(p.delta, p.metric_unit, signed=True)}, adjusted p {p.p_adjusted:.3g})"


def markdown(history: History, waiting: Sequence[str] = ()) -> str:
    """The history as a table: checkpoints down, units across; ▼ worse and ▲ better than the baseline."""
    units = history.units()
    title = f"{history.model} on {history.suite}: {verdict(history)}"
    lines = [f"## {escape(title)}", ""]
    if units:
        latest = history.latest()
        named = {rows_folder(e.name, e.stamp): e.name for e in history.entries}
        rows = [_line(e, units, e not in latest, named) for e in history.entries]
        lines += table(("checkpoint", "compared with", *units), rows)
        lines += ["", f"{LEGEND} {_chance(history)}".rstrip(), "", escape(_order(history))]
        lines += ["", "![Each task over the checkpoints](trend.png)"]
    for e in history.latest():
        lines += [f"- {escape(e.name)}: {escape(line)}" for line in (*e.failures, *e.refused)]
    lines += [f"- {escape(line)}" for line in waiting]
    return "\n".join(lines) + "\n"


def verdict(history: History) -> str:
    """`3 checkpoints scored, 1 could not be scored, 1 with a regression: step-20`: a checkpoint without a number is not
    counted among the first, one that was written anew counts once, as it was scored last."""
    latest = history.latest()
    scored = sum(bool(e.points) for e in latest)
    failed = len(latest) - scored
    worse = [e.name for e in latest if e.regressions]
    words = [f"{scored} checkpoint{'' if scored == 1 else 's'} scored"]
    words += [f"{failed} could not be scored"] if failed else []
    words += [f"{len(worse)} with a regression: {', '.join(worse)}" if worse else "none with a regression"]
    return ", ".join(words)


def _chance(history: History) -> str:
    """How many of the compared checkpoints are called worse where none is: Holm holds 5 % for each checkpoint, half of
    it on this side, and a mean needs no independence of checkpoints that share a baseline and samples."""
    compared = sum(any(p.verdict not in ("", FEW) for p in e.points) for e in history.latest())
    if not compared:
        return ""
    mean = compared * ALPHA / 2
    count = f"{mean:.0f}" if mean >= 10 else f"{mean:.2g}"
    return (
        f"Without any true difference, of {number_of(compared, 'compared checkpoint')} at most about {count} would be "
        "called worse by chance."
    )


def _order(history: History) -> str:
    """What the checkpoints are ordered by, and which of them by another rule than the rest."""
    by_name = history.ordered_by_name()
    timed = [e.name for e in history.latest() if e.name not in by_name]
    if not by_name:
        return "In the order of their times: no name says a step or an epoch."
    words = f"In the order of the {next(iter(by_name.values())).unit} in their names"
    return f"{words}; {', '.join(timed)}: by time, as the name says none." if timed else f"{words}."


def _line(entry: Entry, units: Sequence[str], replaced: bool, named: Mapping[str, str]) -> tuple[str, ...]:
    found = {p.unit: p for p in entry.points}
    cells = [f"{number(p.value, p.metric_unit)}{MARK.get(p.verdict, '')}" if (p := found.get(u)) else "" for u in units]
    baseline = entry.baseline.rstrip("/").rsplit("/", 1)[-1]
    return (entry.name + (" (written anew since)" if replaced else ""), named.get(baseline, baseline), *cells)


def trend_png(history: History) -> bytes:
    """One small panel for each unit: value and 95 % interval over the checkpoints, regressions in red."""
    from matplotlib.figure import Figure

    units = history.units()
    columns = min(3, len(units))
    rows = -(-len(units) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.5 * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, unit in zip(axes.flat, units):
        _panel(axis, history, unit)
    for axis in axes.flat[len(units) :]:
        axis.set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _panel(axis: Any, history: History, unit: str) -> None:
    found = [(i, e, p) for i, e in enumerate(history.entries) for p in e.points if p.unit == unit]
    by_name = history.ordered_by_name()
    said = [by_name[e.name] for _, e, _ in found if e.name in by_name]
    by_step = len({s.number for s in said}) == len(found)
    x = [s.number for s in said] if by_step else [i for i, _, _ in found]
    x, points = (list(part) for part in zip(*sorted(zip(x, (p for _, _, p in found)), key=lambda pair: pair[0])))
    axis.fill_between(x, [p.ci95[0] for p in points], [p.ci95[1] for p in points], color=BAND, alpha=0.15, linewidth=0)
    axis.plot(x, [p.value for p in points], color=LINE, linewidth=1.4, marker="o", markersize=3.5)
    bad = [(xi, p.value) for xi, p in zip(x, points) if p.verdict == "worse"]
    if bad:
        axis.scatter(*zip(*bad), color=WORSE, s=46, zorder=3, marker="v", label="worse")
        axis.legend(frameon=False, fontsize=7)
    first = points[0]
    axis.set_title(unit, fontsize=8.5, loc="left")
    axis.set_ylabel(f"{first.metric} ({first.metric_unit}) {'↑' if first.higher_is_better else '↓'}", fontsize=7.5)
    axis.set_xlabel(said[0].unit if by_step else "checkpoint, in the order scored", fontsize=7.5)
    axis.tick_params(labelsize=7)
    axis.locator_params(axis="x", nbins=6, integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
