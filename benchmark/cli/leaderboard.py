"""`bench leaderboard`: the page, CSV and Markdown of everything under results/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.system.escaping import printable
from benchmark.system.paths import reference_dir, rows_dir


def leaderboard(
    results: Annotated[Path | None, typer.Option(help="Where the rows are [default: results]")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the three files go [default: the same folder]")] = None,
    reference: Annotated[
        bool, typer.Option(help="Also the rows that come with densebench, where you have none of your own")
    ] = True,
) -> None:
    """Writes leaderboard.html (one self-contained page), leaderboard.csv and leaderboard.md from the files alone.

    Example: bench leaderboard --results results
    """
    from benchmark.leaderboard import build

    built = build(rows_dir(results), out, reference_dir() if reference else None)
    for line in built.problems:
        typer.echo(printable(f"left out: {line}"), err=True)
    for path in built.paths:
        typer.echo(str(path))
    typer.echo(
        f"{built.rows} rows on {built.boards} boards"
        + (f", {built.shipped} of them (†) come with densebench" if built.shipped else "")
        + (f", {len(built.problems)} files left out" if built.problems else "")
    )
