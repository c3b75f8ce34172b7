"""`bench watch DIR`: scores each new checkpoint of a training run, for people and for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.cli import options as o
from benchmark.cli.streams import say_while_heard
from benchmark.errors import BenchError
from benchmark.registry import suites
from benchmark.system.escaping import printable
from benchmark.system.paths import results_dir
from benchmark.watch.history import History

REGRESSION = 3
FAILED = 1


def watch(
    folder: Annotated[Path, typer.Argument(help="The folder that training writes checkpoints into", metavar="DIR")],
    model: Annotated[str, typer.Option(help="The model whose weights the checkpoints are")],
    task: o.Tasks = None,
    suite: Annotated[
        str | None, typer.Option(help="A name of bench ls suites, or a TOML file [default: scenes, without --task]")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Compare with this model or folder [default: the checkpoint before]")
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between two looks", min=0.05)] = 30.0,
    settle: Annotated[
        float, typer.Option(help="Seconds without a change until a checkpoint counts as written", min=0)
    ] = 10.0,
    once: Annotated[
        bool,
        typer.Option(
            help="Score what is there, then exit: 3 after a regression, 1 after a failure or without a checkpoint"
        ),
    ] = False,
    until_regression: Annotated[bool, typer.Option(help="Exit 3 at the first regression")] = False,
    idle: Annotated[float | None, typer.Option(help="Exit after so many seconds without a new checkpoint")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Smallest drop that counts [default: the noise floor, or 0]", min=0)
    ] = None,
    prepare: Annotated[
        str | None,
        typer.Option(help="Command that makes a model folder of each training state: 'COMMAND {checkpoint} {out}'"),
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Where baselines and noise floors are looked up")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Rows, history and reports [default: RESULTS/watch/DIR-HASH]")
    ] = None,
    protocol: o.Protocol = None,
    data: o.Data = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    limit: o.Limit = None,
    seed: Annotated[int, typer.Option(help="Seed of the probes")] = 0,
    offline: o.Offline = False,
) -> None:
    """Score each new checkpoint of a training run.

    Once, when it is complete; history, trend, JUnit and Markdown lie in --out.
    Example: bench watch runs/mine --model tipsv2-b --task my_task.toml --until-regression
    """
    from benchmark.compare.wanted import wanted
    from benchmark.engine.suites import choose, identity, label
    from benchmark.watch.report import REPORTS, SUMMARY, verdict
    from benchmark.watch.watcher import Plan, Watcher, default_out, engine_scorer

    place, words = results or results_dir(), tuple(task or ())
    if suite is None and not words:
        suite = "scenes"
    chosen = choose(words, suite)
    asked = [f"--suite {suite}"] * (suite is not None) + [f"--task {word}" for word in words]
    options = {
        "protocol": protocol, "device": device, "dtype": dtype, "limit": limit, "seed": seed, "offline": offline,
        "command": f"bench watch {folder} --model {model} {' '.join(asked)}", **({"data": data} if data else {}),
    }  # fmt: skip
    scoring: dict[str, Any] = {
        "protocol": protocol,
        "dtype": dtype,
        "limit": limit,
        "seed": seed,
        "data": data and str(data),
    }
    if words or suite not in suites():  # what a file of one's own says may change
        scoring["tasks"] = identity(chosen)
    plan = Plan(
        folder, model, label(words, suite), out or default_out(folder, place), place, scoring=scoring,
        only=wanted(chosen, protocol, limit),
        baseline=baseline, tolerance=tolerance, every=every, settle=settle, once=once,
        until_regression=until_regression, idle=idle, prepare=prepare,
    )  # fmt: skip
    watcher = Watcher(
        plan, engine_scorer(model, words, suite, **options), say=lambda line: say_while_heard(printable(line))
    )
    history = watcher.run()
    others = [name for name in REPORTS if name != SUMMARY and (plan.out / name).is_file()]
    typer.echo(f"{plan.out / SUMMARY}: {verdict(history)}; also {', '.join(others)}")
    unreadable = watcher.unreadable(history)
    if not history.entries and not unreadable:
        raise BenchError(f"{folder}: no checkpoint was found: a safetensors file or folder, or a TIPS npz pair")
    if code := exit_code(history, unreadable):
        raise typer.Exit(code)


def exit_code(history: History, unreadable: list[str]) -> int:
    """3 when a checkpoint, as it was scored last, is worse than what it was compared with; 1 when one failed, when a
    unit of its baseline could not be compared, or when there was no checkpoint at all; else 0."""
    if any(e.regressions for e in history.latest()):
        return REGRESSION
    failed = any(e.failures or e.refused or not e.points for e in history.latest())
    return FAILED if failed or unreadable or not history.entries else 0
