"""`bench distill CONFIG`: a student from a frozen teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.train import Devices, Tflops, Utilisation, run_recipe


def distill(
    config: Annotated[str, typer.Argument(help="A packaged config (distil-mini, distil-l, …) or a TOML file.")],
    teacher: Annotated[Path | None, typer.Option(help="Folder of the teacher, as `bench train` writes it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command again resumes.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over the config.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it will take; train nothing.")] = False,
    devices: Devices = 1,
    tflops: Tflops = 989.0,
    utilisation: Utilisation = 0.4,
) -> None:
    """Distil a student from a frozen teacher.

    No masking, patch loss on all tokens, contrastive loss kept.
    Example: bench distill distil-mini --teacher runs/tipsv2-mini-64/final
    """
    extra = {"teacher.path": str(teacher)} if teacher else {}
    run_recipe(config, out, set_, dry_run, devices, tflops, utilisation, extra, distilling=True)
