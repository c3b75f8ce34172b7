"""`bench dedup CONFIG`: which training pictures are near-copies of evaluation pictures."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli import options as o
from benchmark.cli.train import RECIPE, RENDERER
from benchmark.errors import UsageError
from benchmark.registry import resolve


def dedup(
    config: Annotated[str, typer.Argument(help="The training: a packaged config or a TOML file; its [data] is read")],
    against: Annotated[
        list[str] | None, typer.Option("--against", help="A task or data set whose test pictures count; repeats")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Whose vectors are compared, e.g. dinov2-b")
    ] = "tipsv2-mini",
    threshold: Annotated[
        float | None, typer.Option(help="Cosine from which a picture is left out [default: measured on spoilt copies]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the lists and the report")] = Path("dedup"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over the config")] = None,
    data: o.Data = None,
    limit: o.Limit = None,
    weights: o.Weights = None,
    device: o.Device = "auto",
    offline: o.Offline = False,
) -> None:
    """Find training pictures that are near-copies of test pictures.

    Writes the list that training leaves out.
    Example: bench dedup continue-b --set data.path=pictures --against coco --against ade20k --model dinov2-b
    Then: bench train continue-b --set data.path=pictures --set data.leave_out=dedup/left-out.json
    """
    if not against:
        raise UsageError("no evaluation pictures are named. Say which with --against, for example --against ade20k")
    from benchmark.cli.bars import bars
    from benchmark.dedup.near import evaluation_pictures, find_near
    from benchmark.dedup.report import parts, write_report
    from benchmark.engine.options import RunOptions
    from benchmark.engine.session import Session
    from benchmark.system.files import writable
    from benchmark.system.paths import data_dir

    files = importlib.import_module(f"{RECIPE}.config_file")
    recipe = files.read_config(config, dict(files.parse_override(text) for text in set_ or []))
    writable(out, "the lists", "--out")
    training = resolve(f"{RECIPE}.pictures:training_pictures")(recipe.data, resolve(RENDERER))
    options = RunOptions(data=data or data_dir(), weights=weights, device=device, offline=offline, limit=limit)
    with bars() as (progress, _):
        session = Session.open(model, model, options, progress)
        evaluated, there = evaluation_pictures(session, against, progress)
        found = find_near(session, training, evaluated, threshold)
    compared = {unit: (len(images), there[unit]) for unit, images in evaluated.items()}
    places = write_report(out, found, training, training.ids_digest, model, compared)
    typer.echo(
        f"{len(found.left_out)} of {len(training)} training pictures are near-copies (cosine ≥ {found.threshold:.4f})"
    )
    if part := parts(compared):
        typer.echo(f"a part alone was compared: {part}")
    for place in places:
        typer.echo(str(place))
