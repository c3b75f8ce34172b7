"""`bench compare A B`: paired differences of two checkpoints, for people and for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark import comparison_report as report
from benchmark import noise as noise_floor
from benchmark.compare import Comparison
from benchmark.compare import compare as compare_rows
from benchmark.errors import BenchError, UsageError
from benchmark.files import write_text
from benchmark.paths import results_dir

REGRESSION = 3
WIDE, NARROW = 200, 135  # columns of a terminal
DROPPED_WHEN_NARROW = ("metric", "A", "B", "smallest visible", "n")
STYLES = {"better": "green", "worse": "bold red", "no difference": "dim", "too little data": "yellow"}


def compare(
    a: Annotated[
        str, typer.Argument(help="Baseline: a result file, a folder, a model in results/, or 'published'")
    ] = "",
    b: Annotated[str, typer.Argument(help="Candidate, in the same words")] = "",
    results: Annotated[Path | None, typer.Option(help="Where model names are looked up")] = None,
    fail_on_regression: Annotated[
        bool, typer.Option(help="Exit 3 when a unit is worse, 1 when one was refused")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Smallest drop that counts, in the metric's unit [default: noise floor, or 0]", min=0),
    ] = None,
    all_metrics: Annotated[bool, typer.Option(help="Every metric of a row, not only the main one")] = False,
    classes: Annotated[bool, typer.Option(help="Print the IoU change of every class")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown here")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML here")] = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Measure the noise floor and record it in results/noise.json")
    ] = False,
    model: Annotated[str, typer.Option(help="With --noise: the model to measure it on")] = "tipsv2-mini",
    suite: Annotated[str, typer.Option(help="With --noise: the suite")] = "scenes",
    limit: Annotated[int | None, typer.Option(help="With --noise: at most this many samples of each split")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap")] = 0,
) -> None:
    """Paired differences with intervals, adjusted p-values and the smallest effect that could have been seen."""
    place = results or results_dir()
    if noise:
        floors = noise_floor.measure(model, suite, results=place, limit=limit)
        _print_floors(floors, place)
        return
    if not (a and b):
        raise UsageError("bench compare needs two sides: bench compare BASELINE CANDIDATE (or --noise)")
    floors_known = noise_floor.read(place)
    found = compare_rows(
        a, b, results=place, tolerance=tolerance, floors=floors_known, all_metrics=all_metrics, seed=seed
    )
    if markdown:
        write_text(markdown, report.markdown(found))
    if junit:
        write_text(junit, report.to_junit(found))
    if json:
        typer.echo(report.to_json(found))
    else:
        print_comparison(found, classes)
    if fail_on_regression:
        _gate(found)


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
    for line in (*found.refused, *found.problems):
        console.print(line, markup=False, highlight=False, style="yellow")
    console.print(report.summary(found), markup=False, highlight=False)


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
        table.add_column(name, justify="left" if i in (0, 1, 6) else "right")
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
        for name in ("class", "A", "B", "Δ", "95 % interval"):
            table.add_column(name, justify="left" if name == "class" else "right")
        for c in u.classes:
            low, high = (report.number(v, "%", signed=True) for v in c.ci95)
            values = (report.number(c.a, "%"), report.number(c.b, "%"), report.number(c.delta, "%", signed=True))
            table.add_row(*map(Text, (c.name, *values, f"[{low}, {high}]")))
        console.print(table)


def _print_floors(floors: dict[str, float], place: Path) -> None:
    for key, floor in floors.items():
        typer.echo(f"{key.partition('@')[0]:40s} noise floor {floor:.4f}")
    typer.echo(f"{place / noise_floor.FILE}: bench compare takes these as its tolerance")


def _gate(found: Comparison) -> None:
    if found.published:
        raise UsageError(
            "--fail-on-regression: published numbers have no samples, so nothing can be tested against them"
        )
    if found.regressions:
        raise typer.Exit(REGRESSION)
    if found.refused:
        raise BenchError(
            f"--fail-on-regression: {len(found.refused)} of the baseline's units were not compared, "
            f"first: {found.refused[0]}"
        )
