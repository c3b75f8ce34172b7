"""`bench reproduce tipsv2`: the published tables beside measured rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.cli import options as o
from benchmark.errors import unknown
from benchmark.system.escaping import printable
from benchmark.system.files import write_text
from benchmark.system.paths import results_dir, rows_dir

if TYPE_CHECKING:
    from benchmark.compare.papers import Reproduction

WIDE = 200


def reproduce(
    name: Annotated[str, typer.Argument(help="tipsv2, tips, siglip2 or dinov2")] = "tipsv2",
    results: Annotated[Path | None, typer.Option(help="Folder with the measured rows [default: results]")] = None,
    measured_only: Annotated[bool, typer.Option("--measured", help="Leave out what was not measured")] = False,
    markdown: o.Markdown = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Which unconfirmed fields explain a missed number, from bench sensitivity")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="First run what is missing, by the preset of its table")] = False,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="With --run: only this one; repeats")] = None,
    data: Annotated[Path | None, typer.Option(help="With --run: where datasets lie")] = None,
    device: Annotated[str, typer.Option(help="With --run: auto, cpu, cuda, cuda:N")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="With --run: no network at all")] = False,
) -> None:
    """Print the numbers of a paper beside measured ones.

    Every published number of its models, the measured one with its interval, and what is not confirmed.
    Example: bench reproduce tipsv2 --run --model tipsv2-b
    """
    from benchmark.compare import papers as report

    folder = (results or results_dir()) if run else rows_dir(results)
    found = report.reproduce(name, folder)
    failed = 0
    if run:
        failed = _run_missing(report.missing(found, _known(found, model or [])), folder, data, device, offline)
        found = report.reproduce(name, folder)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE, color_system=None)
    _print(console, report.HEADER, [report.cells(x) for x in found.lines if x.row or not measured_only])
    if found.doubts:
        console.print(f"\nFields of the {report.presets_of(found)} that are not confirmed", style="bold")
        _print(console, ("task", "field", "status", "source"), found.doubts)
    if said := report.elsewhere_lines(found):
        console.print("\nMeasured by others", style="bold")
        for line in said:
            console.print(printable(line), markup=False, highlight=False)
    if explain:
        from benchmark.sensitivity.explain import explanations

        console.print("\nWhat can explain the numbers outside the interval", style="bold")
        for line in explanations(found, folder) or ["no number was measured outside its interval"]:
            console.print(printable(line), markup=False, highlight=False)
    if markdown:
        write_text(markdown, report.markdown(found))
    console.print("\n" + report.summary(found), markup=False, highlight=False)
    if failed:
        raise typer.Exit(1)


def _known(found: Reproduction, models: list[str]) -> list[str]:
    """`models`, all of which have published numbers."""
    there = list(dict.fromkeys(line.published.model_id for line in found.lines))
    for name in models:
        if name not in there:
            raise unknown(f"model in the tables of {found.name}", name, there, ", ".join(there))
    return models


def _run_missing(
    todo: list[tuple[str, str, list[str]]], results: Path, data: Path | None, device: str, offline: bool
) -> int:
    """How many units failed."""
    from benchmark.cli.bars import bars
    from benchmark.engine.options import RunOptions
    from benchmark.engine.report import Hooks, Note
    from benchmark.engine.run import run as run_models
    from benchmark.system.paths import data_dir

    def say(note: Note) -> None:
        line = f"error: {note.model}/{note.unit}: {note.text}".replace("error: /", "error: ")
        print(printable(line), file=sys.stderr)

    failed = 0
    with bars() as (progress, _):
        for model, preset, units in todo:
            options = RunOptions(
                protocol=preset, device=device, offline=offline, data=data or data_dir(), results=results,
                command=" ".join(["bench", *sys.argv[1:]]),
            )  # fmt: skip
            failed += len(run_models(model, units, options=options, hooks=Hooks(progress, failure=say)).failures)
    return failed


def _print(console: Console, header: tuple[str, ...], rows: object) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in header:
        table.add_column(name, overflow="fold", justify="right" if name in ("published", "measured", "Δ") else "left")
    for row in rows:  # type: ignore[attr-defined]
        table.add_row(*map(Text, row))
    if table.row_count:
        console.print(table)
