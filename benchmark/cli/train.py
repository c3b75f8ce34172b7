"""`bench train CONFIG`: the TIPSv2 recipe, from a packaged config or a TOML file."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.errors import UsageError
from benchmark.registry import resolve

RECIPE = "adapters.tipsv2.recipe"
RENDERER = "tasks.scenes.render:render"
Devices = Annotated[int, typer.Option(help="--dry-run: number of devices.", min=1)]
Tflops = Annotated[float, typer.Option(help="--dry-run: peak TFLOP/s of a device (989: H100, dense bf16).", min=0.001)]
Utilisation = Annotated[float, typer.Option(help="--dry-run: share of the peak that is reached.", min=0.001, max=1)]


def train(
    config: Annotated[str, typer.Argument(help="A packaged config (tipsv2-mini, g-224, …) or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command again resumes.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE over the config, e.g. train.steps=100.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, FLOPs, memory, device-days; train nothing.")
    ] = False,
    devices: Devices = 1,
    tflops: Tflops = 989.0,
    utilisation: Utilisation = 0.4,
) -> None:
    """Train the TIPSv2 recipe.

    The result is a transformers folder that `bench run --weights` takes.
    Example: bench train tipsv2-mini-64 --out runs/tipsv2-mini-64
    """
    run_recipe(config, out, set_, dry_run, devices, tflops, utilisation, {})


def run_recipe(
    config: str,
    out: Path | None,
    changes: list[str] | None,
    dry_run: bool,
    devices: int,
    tflops: float,
    utilisation: float,
    extra: dict[str, Any],
    distilling: bool = False,
) -> None:
    """What `bench train` and `bench distill` share; `extra` are dotted keys that win over the file.

    Raises UsageError when `distilling` without a teacher: it would be ordinary training.
    """
    files = importlib.import_module(f"{RECIPE}.config_file")
    recipe = files.read_config(config, {**extra, **dict(files.parse_override(text) for text in changes or [])})
    if distilling and not recipe.teacher.path:
        raise UsageError(f"{config} names no teacher to distil from. Name its folder with --teacher")
    if dry_run:
        cost = importlib.import_module(f"{RECIPE}.cost").estimate(recipe, devices, tflops, utilisation)
        typer.echo(f"{recipe.name}: {recipe.train.steps} steps of {recipe.train.batch_size} on {devices} device(s)")
        typer.echo("\n".join(cost.lines()))
        return
    folder = out or Path("runs") / recipe.name
    from benchmark.engine.run import run  # a dry run does without torch

    train = resolve(f"{RECIPE}.trainer:train")
    final = train(recipe, folder, render=resolve(RENDERER), run=run)
    if os.environ.get("RANK", "0") == "0":  # torchrun's processes would each say it
        typer.echo(f"weights: {final}\nscore them: bench run --model tipsv2-mini --weights {final}")
