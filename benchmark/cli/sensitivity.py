"""`bench sensitivity`: what unconfirmed fields of a preset are worth, and whether the order of models hangs on them."""

from __future__ import annotations

import json as jsonlib
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli import options as o
from benchmark.errors import UsageError
from benchmark.system.escaping import printable
from benchmark.system.files import write_text

if TYPE_CHECKING:
    from benchmark.sensitivity.measure import Sensitivity


def sensitivity(
    model: o.Models = None,
    task: o.Tasks = None,
    suite: o.Suite = None,
    protocol: o.Protocol = None,
    field: Annotated[
        list[str] | None, typer.Option("--field", "-f", help="Only this field: field or task.field; repeats")
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also every two alternatives of different fields")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only count what it would cost, as bench plan does")] = False,
    set_: o.Set = None,
    weights: o.Weights = None,
    backend: o.Backend = "torch",
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    batch_size: o.BatchSize = "auto",
    limit: o.Limit = None,
    data: o.Data = None,
    results: o.Results = None,
    store: o.Store = "float16",
    offline: o.Offline = False,
    trust_remote_code: o.TrustRemoteCode = False,
    seed: o.Seed = 0,
    workers: o.Workers = None,
    max_bad: o.MaxBad = 0,
    force: o.Force = False,
    no_check: o.NoCheck = False,
    json: o.Json = False,
    markdown: o.Markdown = None,
) -> None:
    """Measure what the unconfirmed fields of a preset are worth.

    Runs each task by its preset and by every alternative of its fields: paired changes, order of models.
    Alternatives are data beside the fields (bench show TASK): of those that nobody has confirmed, and of our choices.
    Without --task and --suite: the nine scenes tasks. One extraction serves all that leave the view alone.
    Example: bench sensitivity --suite scenes --model tipsv2-mini --model clip-mini
    """
    from benchmark.cli.run import default_models, run_options

    options = run_options(locals())

    from benchmark.cli.bars import bars
    from benchmark.cli.commands import debugging
    from benchmark.engine.report import Hooks, Note
    from benchmark.rows.tables import write_tables
    from benchmark.sensitivity import report as words
    from benchmark.sensitivity.measure import refuse_unvaried, variants
    from benchmark.sensitivity.measure import sensitivity as measure

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
