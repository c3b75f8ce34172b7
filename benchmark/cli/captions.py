"""`bench captions PLACE`: synthetic captions for pictures to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli import options as o
from benchmark.errors import UsageError
from benchmark.registry import resolve
from benchmark.system.plurals import number_of

MODULE = "adapters.tipsv2.recipe.captioning"


def captions(
    place: Annotated[str, typer.Argument(help="A folder of pictures, with captions.jsonl or without, or shards/*.tar")],
    model: Annotated[str, typer.Option("--model", "-m", help="An image-text-to-text model: a folder or a hub id")],
    out: Annotated[Path, typer.Option(help="Folder for captions.jsonl, or for the shards with captions in them")],
    kind: Annotated[str, typer.Option(help="What the column is called: paligemma, gemini, or yours with --prompt")] = (
        "paligemma"
    ),
    prompt: Annotated[
        str | None, typer.Option(help="What is asked; {alt} and other columns are filled in [default: the kind's]")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Of a caption at most [default: the kind's, else 128]", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time", min=1)] = 8,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    offline: o.Offline = False,
    trust_remote_code: o.TrustRemoteCode = False,
) -> None:
    """Write synthetic captions for pictures to train on.

    With any image-text-to-text model, as one more column of the data.
    Example: bench captions "shards/*.tar" --model google/paligemma2-3b-pt-448 --kind paligemma --out captioned
    Then: bench train continue-b --set data.source=tar --set data.path="captioned/*.tar"
    --set 'data.synthetic=["paligemma"]'
    """
    from benchmark.engine.loading import resolve_device
    from benchmark.system.files import writable

    usual = 128
    if prompt is None:
        prompt, usual = resolve(f"{MODULE}:known_prompt")(kind)
    if kind in ("image", "alt", "txt"):
        raise UsageError(f"--kind {kind} is a column that is there already. Give captions a name of their own")
    writable(out, "captions", "--out")
    asked = resolve(f"{MODULE}:Asked")(kind, prompt, batch_size)
    options = {"tokens": tokens or usual, "device": resolve_device(device), "dtype": dtype}
    options |= {"offline": offline, "trust": trust_remote_code}
    counts = resolve(f"{MODULE}:caption")(place, out, asked, model, options)
    if counts.bad:
        typer.echo(f"no caption for {number_of(counts.bad, 'unreadable picture')}; the first: {counts.first}", err=True)
    typer.echo(f"{number_of(counts.written, 'caption')}: {out}")
