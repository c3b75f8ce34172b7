"""`bench sensitivity`: what unconfirmed fields of a preset are worth, and whether the order of models hangs on them."""

from __future__ import annotations

import json as jsonlib
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.errors import UsageError
from benchmark.system.escaping import printable
from benchmark.system.files import write_text

if TYPE_CHECKING:
    from benchmark.sensitivity.measure import Sensitivity


def sensitivity(
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="As for bench run; repeats")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", "-t", help="As for bench run; repeats")] = None,
    suite: Annotated[str | None, typer.Option(help="A name of bench ls suites")] = None,
    protocol: Annotated[str | None, typer.Option(help="A preset [default: the suite's, else fast]")] = None,
    field: Annotated[
        list[str] | None, typer.Option("--field", "-f", help="Only this field: field or task.field; repeats")
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also every two alternatives of different fields")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only count what it would cost, as bench plan does")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a field of the preset first: field=value or task.field=value"),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="A local checkpoint for --model")] = None,
    backend: Annotated[str, typer.Option(help="torch or jax")] = "torch",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    batch_size: Annotated[str, typer.Option(help="auto or a number")] = "auto",
    limit: Annotated[int | None, typer.Option(help="At most this many samples of each split")] = None,
    data: Annotated[Path | None, typer.Option(help="Where datasets lie")] = None,
    results: Annotated[Path | None, typer.Option(help="Where rows go; those of variants below sensitivity/")] = None,
    store: Annotated[str, typer.Option(help="float16, float32, int8")] = "float16",
    offline: Annotated[bool, typer.Option("--offline", help="No network at all")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow code from a hub repository to run")
    ] = False,
    seed: Annotated[int, typer.Option(help="As for bench run")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images [default: chosen]")] = None,
    max_bad: Annotated[int, typer.Option(help="Allow so many unreadable images")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Make rows again that are already there")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Skip the conformance check of a new model")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write Markdown here")] = None,
) -> None:
    """Run each task by its preset and by every alternative of its fields: paired changes, order of models.

    Alternatives are data beside the fields (bench show TASK): of those that nobody has confirmed, and of our choices.
    Without --task and --suite: the nine scenes tasks. One extraction serves all that leave the view alone.
    Example: bench sensitivity --suite scenes --model tipsv2-mini --model clip-mini
    """
    from benchmark.cli import debugging
    from benchmark.cli.bars import bars
    from benchmark.cli.run import default_models, parse_batch, parse_pairs
    from benchmark.engine.options import RunOptions
    from benchmark.engine.run import Hooks, Note
    from benchmark.rows.tables import write_tables
    from benchmark.sensitivity import report as words
    from benchmark.sensitivity.measure import refuse_unvaried, variants
    from benchmark.sensitivity.measure import sensitivity as measure
    from benchmark.system.paths import data_dir, results_dir

    options = RunOptions(
        protocol=protocol, overrides=parse_pairs(set_ or [], "--set"), weights=weights, backend=backend, device=device,
        dtype=dtype, batch_size=parse_batch(batch_size), limit=limit, store=store, offline=offline, seed=seed,
        trust_remote_code=trust_remote_code, workers=workers, max_bad=max_bad, force=force, check=not no_check,
        data=data or data_dir(), results=results or results_dir(), command=" ".join(["bench", *sys.argv[1:]]),
    )  # fmt: skip
    names, fields, tasks = model or default_models(), field or [], task or []
    if weights is not None and len(names) != 1:
        raise UsageError("--weights belongs to one --model; give exactly one")
    if not tasks and suite is None:
        suite = "scenes"
    if plan:
        from benchmark.cli.plan import print_plan
        from benchmark.forecast.forecast import forecast

        refuse_unvaried(fields, tasks, suite, options)
        for one in forecast(names, tasks, suite, options, variants(fields, pairs)):
            print_plan(one, json)
        return

    def failed(note: Note) -> None:
        print(printable(f"error: {note.line}"), file=sys.stderr)

    lines = sys.stdout
    with bars(quiet=json) as (progress, _), redirect_stdout(sys.stderr if json else lines):
        hooks = Hooks(progress, failure=failed, debug=debugging())
        found = measure(names, tasks, suite=suite, fields=fields, pairs=pairs, options=options, hooks=hooks)
        write_tables(options.results)
    if markdown:
        write_text(markdown, words.markdown(found))
    if json:
        typer.echo(jsonlib.dumps(_body(found), ensure_ascii=False))
    else:
        _print(found)
    if found.report.failures:
        raise typer.Exit(1)


def _print(found: Sensitivity) -> None:
    from benchmark.cli.tables import plain_table
    from benchmark.sensitivity import report as words

    for some in words.units(found).values():
        typer.echo(printable(words.preset_line(some)))
        plain_table([f"  {words.header(some)[0]}", *words.header(some)[1:]], [
            [f"  {line[0]}", *line[1:]] for line in words.lines(some, found.orders)
        ])  # fmt: skip
        typer.echo("")
    for note in found.report.not_applicable:
        if note.change is None:
            typer.echo(printable(f"{note.model}/{note.unit}: not applicable: {note.text}"))
    for line in words.published_lines(found):
        typer.echo(printable(line))
    typer.echo(words.summary(found))


def _body(found: Sensitivity) -> dict[str, Any]:
    """The whole as `--json` prints it."""
    from dataclasses import asdict

    from benchmark.sensitivity.effects import as_json

    notes = ((n.model, str(n.unit), str(n.change or ""), n.text) for n in found.report.not_applicable)
    return {
        "effects": [as_json(e) for e in found.effects],
        "orders": [asdict(order) for order in found.orders],
        "orders_held": found.held,
        "not_applicable": [dict(zip(("model", "unit", "change", "reason"), note)) for note in notes],
        "forwards": found.report.forwards,
    }
