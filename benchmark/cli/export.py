"""`bench export`: weights from one published layout to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.contracts import ModelSpec
from benchmark.errors import unknown
from benchmark.registry import models, resolve


def export(
    model: Annotated[str, typer.Option(help="A TIPS or TIPSv2 model: bench ls models.")],
    to: Annotated[str, typer.Option(help="transformers, torch-npz or scenic-npz.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    weights: Annotated[str | None, typer.Option(help="Folder with the weights to read; default: the hub's.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not reach for the network.")] = False,
) -> None:
    """Convert TIPS weights between transformers' layout and the official PyTorch and JAX files.

    Example: bench export --model tipsv2-b --weights FOLDER --to scenic-npz --out converted
    """
    rows = models()
    if model not in rows:
        raise unknown("model", model, rows, "bench ls models")
    spec = ModelSpec(model, row=rows[model], weights=weights, offline=offline)
    for path in resolve("adapters.tipsv2.export:export")(spec, to, out):
        typer.echo(str(path))
