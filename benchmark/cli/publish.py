"""`bench publish`: rows made ready for a pull request to a repository of results, and such a request checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli import options as o
from benchmark.errors import BenchError, UsageError
from benchmark.system.escaping import printable
from benchmark.system.files import write_text
from benchmark.system.plurals import number_of

if TYPE_CHECKING:
    from benchmark.rows.publish import Publication

HEADER = ("model", "task", "protocol", "metric", "value", "beside the accepted row")


def publish(
    results: Annotated[Path, typer.Argument(help="Folder of rows, as bench run --results made it")],
    to: Annotated[Path | None, typer.Option(help="Folder of rows in the results repository")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: exit 1 for what should not be accepted as it is")
    ] = False,
    accepted: Annotated[
        Path | None, typer.Option(help="Folder of accepted rows that these are set beside [default: --to]")
    ] = None,
    samples: Annotated[
        bool, typer.Option(help="With the samples, without which nobody can rank or compare a row")
    ] = True,
    pictures: Annotated[bool, typer.Option("--pictures", help="With the pictures of --save-predictions")] = False,
    markdown: o.Markdown = None,
) -> None:
    """Make rows ready for a shared repository of results.

    Checks them, takes private paths, host names and tokens out of them, and says what is stale or partial.
    Weights, data, protocol, command, seed and versions stay. A row whose name or samples are private is refused.
    Example: bench publish results --to ../encoder-results/rows
    """
    from benchmark.rows.publish import publish as made_ready

    if check == (to is not None):
        raise UsageError("bench publish RESULTS takes --to FOLDER, or --check, which writes nothing")
    for folder, name in ((results, "RESULTS"), (accepted, "--accepted")):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{name} {folder}: no such folder")
    found = made_ready(results, to, accepted, samples, pictures)
    for line in _lines(found):
        typer.echo(printable(line))
    for line in found.refused:
        typer.echo(printable(line), err=True)
    states = [state.partition(":")[0] for state in found.states.values() if state]
    counts = ", ".join(f"{states.count(word)} {word}" for word in dict.fromkeys(states))
    where = f" in {to}" if to else ""
    typer.echo(
        f"{number_of(len(found.rows), 'row')}{where}{f' ({counts})' if counts else ''}, {len(found.refused)} refused"
    )
    if markdown:
        write_text(markdown, _markdown(found))
    if found.refused:
        raise BenchError(f"refused: {number_of(len(found.refused), 'row')}, first: {found.refused[0]}")


def _lines(found: Publication) -> list[str]:
    """One for each thing that is so of some rows."""
    return [f"{why}: {', '.join(places)}" for why, places in found.notes.items()]


def _markdown(found: Publication) -> str:
    """The rows as one table, and what was refused: the first part of a comment on a pull request."""
    from benchmark.compare.report import table
    from benchmark.rows.tables import format_value
    from benchmark.system.escaping import escape

    cells = [
        (
            row.model, row.unit, place.name, row.data.main_metric, f"{format_value(row.main)} {row.main.unit}".strip(),
            found.states[place],
        )
        for place, row in found.rows.items() if found.states[place] != "as accepted"
    ]  # fmt: skip
    same = sum(state == "as accepted" for state in found.states.values())
    lines = [f"## {number_of(len(found.rows), 'row')}, {same} of them as accepted, {len(found.refused)} refused", ""]
    lines += [*table(HEADER, cells), ""] if cells else []
    lines += [f"- {escape(line)}" for line in (*found.refused, *_lines(found))]
    return "\n".join(lines).rstrip() + "\n"
