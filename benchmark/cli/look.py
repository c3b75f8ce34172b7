"""`bench look IMAGE`: patch features and texts of several models over one picture, as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli import options as o
from benchmark.errors import UsageError
from benchmark.system.files import write_atomic


def look(
    image: Annotated[Path, typer.Argument(help="A picture")],
    model: o.Models = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="One heat map each: --text 'a dog' --text grass")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(help="Further texts", metavar="[TEXT]...")] = None,
    size: Annotated[int, typer.Option(help="Input side in pixels [default: the model's]", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="The PNG [default: IMAGE-look.png in this folder]")] = None,
    weights: o.Weights = None,
    backend: o.Backend = "torch",
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    offline: o.Offline = False,
) -> None:
    """PCA of the patch features, a heat map for each text, and the argmax segmentation, models below each other.

    Example: bench look photo.jpg "a dog" grass --model tipsv2-b --model dinov2-b
    """
    from benchmark.look import look_at

    models = model or ["tipsv2-mini"]
    if weights and len(models) > 1:
        raise UsageError(
            f"--weights is for one model, {len(models)} are named. Run bench look once for each checkpoint"
        )
    if not image.is_file():
        raise UsageError(f"{image}: no such picture")
    target = out or Path(f"{image.stem}-look.png")
    png = look_at(
        image, models, [*(text or []), *(more or [])], size, weights,
        backend=backend, device=device, dtype=dtype, offline=offline,
    )  # fmt: skip
    write_atomic(target, lambda f: f.write(png))
    typer.echo(str(target))
