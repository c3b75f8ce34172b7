"""`bench run`: models × tasks, each row saved as soon as it is done."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from benchmark.errors import BenchError, UsageError
from benchmark.system.escaping import printable

EXAMPLE = "Example: bench run --model dinov2-b --model siglip2-b16-256 --task ade20k --task nyuv2 --protocol fast"


def run(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A name of bench ls models, hf:…, timm:…, open_clip:…, file.py:function"),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", help="task/dataset, a dataset, a task, a TOML file, mmseg:FILE.py (which is run); repeats"
        ),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="A name of bench ls suites")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="A preset: fast, paper, … [default: the suite's, else fast]")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What rows call the model [default: its name, or its file's with six digits]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a protocol field: field=value or task.field=value")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="A local checkpoint for --model")] = None,
    backend: Annotated[str, typer.Option(help="torch or jax")] = "torch",
    gelu: Annotated[
        str | None, typer.Option(help="tanh or erf, for TIPS [default: what each official code does]")
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(help="authors or transformers: who resamples DINOv2's positions [default: authors]"),
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="torch.compile the image tower")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    batch_size: Annotated[str, typer.Option(help="auto halves when memory runs out, or a number")] = "auto",
    limit: Annotated[int | None, typer.Option(help="At most this many samples of each split; its own rows")] = None,
    data: Annotated[Path | None, typer.Option(help="Where datasets lie [default: $BENCH_DATA or ./data]")] = None,
    results: Annotated[Path | None, typer.Option(help="Where rows go [default: $BENCH_RESULTS or ./results]")] = None,
    store: Annotated[str, typer.Option(help="How dense features are kept: float16, float32, int8")] = "float16",
    offline: Annotated[bool, typer.Option("--offline", help="No network at all")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow code from a hub repository to run")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of pixel sampling, hold-out and bootstrap")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes that decode images [default: chosen]")] = None,
    ray: Annotated[
        str | None, typer.Option(help="Encode on a Ray cluster: its address, auto, or local for processes here")
    ] = None,
    max_bad: Annotated[int, typer.Option(help="Allow so many unreadable images; the row lists them")] = 0,
    max_pixels: Annotated[
        int | None, typer.Option(help="Read pictures of so many pixels [default: $BENCH_MAX_PIXELS or 178956970]")
    ] = None,
    save_predictions: Annotated[
        int,
        typer.Option(
            help="Keep pictures of the best, median and worst N predictions; makes a row again that has fewer"
        ),
    ] = 0,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Compute mIoU a second time with mmsegmentation's IoUMetric")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Make rows again that are already there")] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="Skip the conformance check of a new model")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per row on standard output")] = False,
) -> None:
    """Evaluate models on tasks. Without arguments: the embedded model on the nine scenes tasks.

    The same command again does only what is missing.
    Example: bench run --model dinov2-b --task ade20k --task nyuv2
    """
    from benchmark.cli.bars import bars
    from benchmark.cli.tables import show_report
    from benchmark.engine.options import RunOptions
    from benchmark.engine.run import Hooks, Note
    from benchmark.engine.run import run as run_models
    from benchmark.images.decode import MAX_PIXELS
    from benchmark.rows.row import Row
    from benchmark.rows.tables import format_value, write_tables
    from benchmark.system.paths import data_dir, reference_dir, results_dir

    if max_pixels is not None:
        os.environ[MAX_PIXELS] = str(max_pixels)  # for the processes that decode, too
    models = list(model or default_models())
    if not task and suite is None:
        if model is None or weights is None:
            suite = "scenes"
        else:
            raise UsageError("give --task or --suite beside --weights")
    options = RunOptions(
        protocol=protocol,
        overrides=parse_pairs(set_ or [], "--set"),
        name=name,
        weights=weights,
        backend=backend,
        device=device,
        dtype=dtype,
        model_options=model_options(gelu, positions, compile_),
        batch_size=parse_batch(batch_size),
        limit=limit,
        store=store,
        offline=offline,
        trust_remote_code=trust_remote_code,
        seed=seed,
        workers=workers,
        ray=ray,
        max_bad=max_bad,
        save_predictions=save_predictions,
        cross_check=cross_check,
        force=force,
        check=not no_check,
        command=" ".join(["bench", *sys.argv[1:]]),
        data=data or data_dir(),
        results=results or results_dir(),
    )
    if weights is not None and len(models) != 1:
        raise UsageError("--weights belongs to one --model; give exactly one")

    def failed(note: Note) -> None:
        print(printable(f"error: {note.line}"), file=sys.stderr)

    lines = sys.stdout  # with --json for JSON alone: what an encoder or a library prints goes to standard error

    def saved(row: Row) -> None:
        say(f"{row.model}: {row.unit}: {row.data.main_metric} {format_value(row.main)} {row.main.unit}".strip())
        if json:
            typer.echo(jsonlib.dumps({**row.data.json(), "folder": str(row.folder)}, ensure_ascii=False), file=lines)

    from benchmark.cli import STARTED, debugging

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
