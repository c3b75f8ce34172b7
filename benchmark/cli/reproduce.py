"""`bench reproduce tipsv2`: the published tables beside measured rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.files import write_text
from benchmark.paths import results_dir

WIDE = 200


def reproduce(
    name: Annotated[str, typer.Argument(help="tipsv2, tips, siglip2 or dinov2")] = "tipsv2",
    results: Annotated[Path | None, typer.Option(help="Folder with rows and published.csv [default: results]")] = None,
    measured_only: Annotated[bool, typer.Option("--measured", help="Leave out what was not measured")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown here")] = None,
) -> None:
    """Every published number of a paper's models, the measured one with its interval, and what is not confirmed.

    Example: bench reproduce tipsv2
    """
    from benchmark import reproduce as report

    found = report.reproduce(name, results or results_dir())
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE, color_system=None)
    _print(console, report.HEADER, [report.cells(x) for x in found.lines if x.row or not measured_only])
    if found.doubts:
        console.print(f"\nFields of the {report.PRESET} preset that are not confirmed", style="bold")
        _print(console, ("task", "field", "status", "source"), found.doubts)
    if markdown:
        write_text(markdown, report.markdown(found))
    console.print("\n" + report.summary(found), markup=False, highlight=False)


def _print(console: Console, header: tuple[str, ...], rows: object) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in header:
        table.add_column(name, overflow="fold", justify="right" if name in ("published", "measured", "Δ") else "left")
    for row in rows:  # type: ignore[attr-defined]
        table.add_row(*map(Text, row))
    if table.row_count:
        console.print(table)
