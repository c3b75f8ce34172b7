"""`bench leaderboard`: the page, CSV and Markdown of everything under results/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.errors import UsageError
from benchmark.system.escaping import printable
from benchmark.system.paths import reference_dir, results_dir, rows_dir
from benchmark.system.plurals import number_of


def leaderboard(
    results: Annotated[Path | None, typer.Option(help="Where the rows are [default: results]")] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of rows, as of another machine; repeats, and they become one leaderboard"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the three files go [default: the same folder]")] = None,
    reference: Annotated[
        bool, typer.Option(help="Also the rows that come with densebench, where you have none of your own")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Also write over files that git tracks")] = False,
) -> None:
    """Write one page of all rows, and the same as CSV and Markdown.

    leaderboard.html is self-contained: send it as it is. All three are made from the files alone.
    With --rows the files go to --out or results/, and rows that two folders have with other values are named.
    Example: bench leaderboard --rows machine-a/results --rows machine-b/results
    """
    from benchmark.leaderboard import build

    if lost := next((folder for folder in rows or [] if not folder.is_dir()), None):
        raise UsageError(f"--rows {lost}: no such folder. Rows are where bench run --results put them")
    folders = list({f.resolve(): f for f in [*([results] if results else []), *(rows or [])]}.values())
    if not folders or results:
        rows_dir(results)
    built = build(
        folders or results_dir(),
        out or (None if results or not rows else results_dir()),
        reference_dir() if reference else None,
        force,
    )
    for line in built.problems:
        typer.echo(printable(line if ": left out: " in line else f"left out: {line}"), err=True)
    for path in built.kept:
        typer.echo(f"{path}: left as it is, git tracks it; --force writes over it", err=True)
    for path in built.paths:
        typer.echo(str(path))
    typer.echo(
        f"{number_of(built.rows, 'row')} on {number_of(built.boards, 'board')}"
        + (f", {built.shipped} of them (†) come with densebench" if built.shipped else "")
        + (f", {number_of(len(built.problems), 'file')} left out" if built.problems else "")
    )
