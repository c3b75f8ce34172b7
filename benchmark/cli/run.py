"""`bench run`: models × tasks, each row saved as soon as it is done."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli import options as o
from benchmark.errors import BenchError, UsageError
from benchmark.system.escaping import printable

if TYPE_CHECKING:
    from benchmark.engine.options import RunOptions

EXAMPLE = "Example: bench run --model dinov2-b --model siglip2-b16-256 --task ade20k --task nyuv2 --protocol fast"


def run(
    model: o.Models = None,
    task: o.Tasks = None,
    suite: o.Suite = None,
    protocol: o.Protocol = None,
    name: o.Name = None,
    set_: o.Set = None,
    weights: o.Checkpoints = None,
    backend: o.Backend = "torch",
    gelu: o.Gelu = None,
    positions: o.Positions = None,
    compile_: o.Compile = False,
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
    ray: Annotated[
        str | None, typer.Option(help="Run on a Ray cluster: its address, auto, or local for all GPUs or cores here")
    ] = None,
    gpus: o.Gpus = None,
    max_bad: o.MaxBad = 0,
    max_pixels: Annotated[
        int | None, typer.Option(help="Read pictures of so many pixels [default: $BENCH_MAX_PIXELS or 178956970]")
    ] = None,
    save_predictions: o.SavePredictions = 0,
    save_heads: o.SaveHeads = False,
    cross_check: o.CrossCheck = False,
    force: o.Force = False,
    no_check: o.NoCheck = False,
    json: o.Json = False,
) -> None:
    """Evaluate models on tasks. Without arguments: the embedded model on the nine scenes tasks.

    The same command again does only what is missing.
    Example: bench run --model dinov2-b --task ade20k --task nyuv2
    """
    options = run_options(locals())

    from benchmark.cli.bars import bars
    from benchmark.cli.tables import show_report
    from benchmark.engine.report import Hooks, Note
    from benchmark.engine.run import run as run_models
    from benchmark.images.decode import MAX_PIXELS
    from benchmark.rows.row import Row
    from benchmark.rows.tables import format_value, write_tables
    from benchmark.system.paths import reference_dir

    if max_pixels is not None:
        os.environ[MAX_PIXELS] = str(max_pixels)  # for the processes that decode, too
    models = list(model or default_models())
    if not task and suite is None:
        if model is None or weights is None:
            suite = "scenes"
        else:
            raise UsageError("give --task or --suite beside --weights")
    if weights is not None and len(models) != 1:
        raise UsageError("--weights belongs to one --model; give exactly one")

    def failed(note: Note) -> None:
        print(printable(f"error: {note.line}"), file=sys.stderr)

    lines = sys.stdout  # with --json for JSON alone: what an encoder or a library prints goes to standard error

    def saved(row: Row) -> None:
        say(f"{row.model}: {row.unit}: {row.data.main_metric} {format_value(row.main)} {row.main.unit}".strip())
        if json:
            typer.echo(jsonlib.dumps({**row.data.json(), "folder": str(row.folder)}, ensure_ascii=False), file=lines)

    from benchmark.cli import STARTED
    from benchmark.cli.commands import debugging

    before = time.perf_counter() - STARTED
    with bars(quiet=json) as (progress, say), redirect_stdout(sys.stderr if json else lines):
        report = run_models(
            models, task or [], suite=suite, options=options, hooks=Hooks(progress, saved, failed, debugging())
        )
    try:
        written, unwritten = write_tables(options.results), None
    except BenchError as e:  # rows that were made are shown all the same
        written, unwritten = [], e
    if json:
        for note in report.not_applicable:
            typer.echo(jsonlib.dumps({"model": note.model, "unit": str(note.unit), "not_applicable": note.text}))
    else:
        report.clock = {"start": before, **report.clock}
        show_report(report, options.results, written, reference_dir(), time.perf_counter() - STARTED)
    if unwritten:
        raise unwritten
    if report.failures:
        raise typer.Exit(1)


def run_options(words: Mapping[str, Any]) -> RunOptions:
    """The options that the words of a command say: its parameters by name, those that are no option left out.

    Raises UsageError for a word that cannot be read.
    """
    from benchmark.engine.options import RunOptions
    from benchmark.system.paths import data_dir, results_dir

    known = {field.name for field in fields(RunOptions)}
    given = {name: value for name, value in words.items() if name in known}
    return RunOptions(
        **{
            **given,
            "overrides": parse_pairs(words.get("set_") or [], "--set"),
            "model_options": model_options(words.get("gelu"), words.get("positions"), words.get("compile_", False)),
            "batch_size": parse_batch(words["batch_size"]),
            "data": words["data"] or data_dir(),
            "results": words["results"] or results_dir(),
            "ray": words.get("ray") or ("local" if words.get("gpus") else None),
            "check": not words.get("no_check"),
            "command": " ".join(["bench", *sys.argv[1:]]),
        }
    )


def default_models() -> list[str]:
    """What `bench run` evaluates when it is told nothing; the floors stand beside it from the shipped rows."""
    return ["tipsv2-mini"]


def model_options(gelu: str | None, positions: str | None, compiled: bool) -> dict[str, str]:
    """The options of a model that its adapter reads; they are in its name and in its stored features' key."""
    given = {"gelu": gelu, "positions": positions, "compile": "1" if compiled else None}
    return {k: v for k, v in given.items() if v is not None}


def parse_pairs(words: list[str], flag: str) -> dict[str, str]:
    """`key=value` words as a dictionary. Raises UsageError for a word without `=`."""
    out = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{flag} {word!r}: must be field=value")
        out[key.strip()] = value.strip()
    return out


def parse_batch(text: str) -> int | None:
    """None for `auto`. Raises UsageError for anything that is no positive number."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text!r}: must be auto or a positive number")
    return int(text)
