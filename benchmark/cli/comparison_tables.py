"""A comparison on the terminal: the table, its classes, and one line for each thing left out."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.compare import report as report
from benchmark.compare.compare import Comparison
from benchmark.system.escaping import printable
from benchmark.system.plurals import number_of

WIDE, NARROW = 200, 135  # columns of a terminal
DROPPED_WHEN_NARROW = ("metric", "A", "B", "smallest visible", "n")
STYLES = {
    "better": "green",
    "worse": "bold red",
    "no difference": "dim",
    "undecided": "yellow",
    "too little data": "yellow",
}


def print_comparison(found: Comparison, classes: bool = False) -> None:
    """The comparison as a table, then one line for each thing left out."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE, color_system=None)  # a log has no edge to wrap at
    if found.units:
        console.print(_table(found, narrow=console.width < NARROW))
    if found.published:
        console.print(_published_table(found))
    for u in found.units:
        if classes:
            _print_classes(console, found, u.unit)
        elif line := report.class_line(u):
            console.print(line, markup=False, highlight=False, style="dim")
    for line in (*found.conditions, *report.left_out(found)):
        console.print(printable(line), markup=False, highlight=False, style="yellow")
    console.print(printable(report.summary(found)), markup=False, highlight=False)


def _table(found: Comparison, narrow: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    kept = [i for i, name in enumerate(report.HEADER) if not (narrow and name in DROPPED_WHEN_NARROW)]
    for i in kept:
        table.add_column(
            report.HEADER[i], justify="left" if i in (0, 1, 9) else "right", no_wrap=i != 0, overflow="fold"
        )
    for u in found.units:
        cells = report.cells(u)
        table.add_row(*(Text(cells[i], style=STYLES[u.verdict] if i == 9 else "") for i in kept))
    return table


def _published_table(found: Comparison) -> Table:
    table = Table(
        box=None, pad_edge=False, header_style="dim", title="published numbers: shown, not tested", title_justify="left"
    )
    for i, name in enumerate(report.PUBLISHED_HEADER):
        table.add_column(name, justify="left" if i in (0, 1, 4, 8) else "right")
    for row in report.published_cells(found):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _print_classes(console: Console, found: Comparison, unit: str) -> None:
    for u in found.units:
        if u.unit != unit or not u.classes:
            continue
        table = Table(
            box=None, pad_edge=False, header_style="dim", title=f"{unit}: IoU per class", title_justify="left"
        )
        for name in ("class", "A", "B", "Δ", "95 % interval", "adjusted p"):
            table.add_column(name, justify="left" if name == "class" else "right")
        for c in u.classes:
            low, high = (report.number(v, "%", signed=True) for v in c.ci95)
            values = (report.number(c.a, "%"), report.number(c.b, "%"), report.number(c.delta, "%", signed=True))
            few = f"too few: {number_of(c.images, 'image')}"
            known = (few, "") if c.too_few else (f"[{low}, {high}]", report.p_words(c.p))
            table.add_row(*map(Text, (c.name, *values, *known)))
        console.print(table)
