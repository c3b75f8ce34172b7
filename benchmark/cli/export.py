"""`bench export`: weights from one published layout to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.contracts import ModelSpec
from benchmark.errors import UsageError, unknown
from benchmark.registry import models, resolve


def export(
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="RUN/step-N of `bench train`, also of one that is going on.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A TIPS or TIPSv2 model: bench ls models.")] = None,
    to: Annotated[str | None, typer.Option(help="transformers, torch-npz or scenic-npz.")] = None,
    weights: Annotated[str | None, typer.Option(help="Folder with the weights to read; default: the hub's.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not reach for the network.")] = False,
) -> None:
    """Convert TIPS weights between the layouts they come in.

    Between transformers' and the official PyTorch and JAX files, or out of a checkpoint of a training run.

    Example: bench export --model tipsv2-b --weights FOLDER --to scenic-npz --out converted
    Example: bench export runs/g-224/step-00001000 --out g-at-1000
    """
    if checkpoint is not None:
        if model or to or weights:
            raise UsageError("a checkpoint of a run becomes a transformers folder. Leave --model, --to, --weights")
        made = resolve("adapters.tipsv2.recipe.export:export_checkpoint")(_whole_name(checkpoint), out)
        typer.echo(str(made))
        return
    if model is None or to is None:
        raise UsageError("nothing to export. Name RUN/step-N of a training run, or --model and --to")
    rows = models()
    if model not in rows:
        raise unknown("model", model, rows, "bench ls models")
    spec = ModelSpec(model, row=rows[model], weights=weights, offline=offline)
    for path in resolve("adapters.tipsv2.export:export")(spec, to, out):
        typer.echo(str(path))


def _whole_name(checkpoint: Path) -> Path:
    """RUN/step-8 is RUN/step-00000008. Raises UsageError with the steps that are there."""
    number = checkpoint.name.removeprefix("step-")
    place = checkpoint.with_name(f"step-{int(number):08d}") if number.isdecimal() else checkpoint
    if not place.is_dir():
        there = ", ".join(sorted(path.name for path in checkpoint.parent.glob("step-*"))) or "no checkpoint"
        raise UsageError(f"{checkpoint}: no such folder. {checkpoint.parent} holds {there}")
    return place
