"""`bench look`: what models see in a picture, or what a probe made of the pictures of a task, as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli import options as o
from benchmark.errors import UsageError
from benchmark.rows.row import slug
from benchmark.system.files import write_atomic


def look(
    image: Annotated[Path | None, typer.Argument(help="A picture, or none with --task")] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Repeats; models stand below each other")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="One heat map each: --text 'a dog' --text grass")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(help="Further texts", metavar="[TEXT]...")] = None,
    size: Annotated[int, typer.Option(help="Input side in pixels [default: the model's]", min=0)] = 0,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Samples of this task beside what the model's probe predicts")
    ] = None,
    picture: Annotated[
        list[str] | None, typer.Option("--picture", help="With --task: this test picture, by name; repeats")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", help="With --task: so many, spread evenly", min=1)] = 4,
    split: Annotated[str, typer.Option(help="With --task: test, or train: how well the head fits its own pictures")] = (
        "test"
    ),
    head: Annotated[
        Path | None, typer.Option("--head", help="Draw what a head of bench run --save-heads says of the pictures")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The PNG [default: IMAGE-look.png, or TASK-look.png, here]")] = None,
    protocol: o.Protocol = None,
    set_: o.Set = None,
    limit: o.Limit = None,
    data: o.Data = None,
    weights: o.Weights = None,
    backend: o.Backend = "torch",
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    offline: o.Offline = False,
) -> None:
    """Draw what a model sees, or what a probe answered.

    PCA of the patch features, a heat map for each text, and the argmax segmentation, models below each other.
    With --task: what a probe saw beside what it predicted (maps with their error and range, neighbours, classes), its
    score, the score without seeing a picture and that of the true shares on the patch grid.

    With --head: the maps, or the class, that a trained head gives on pictures of your own. It reads no other encoder.

    Examples: bench look photo.jpg "a dog" grass --model tipsv2-b --model dinov2-b; bench look --task depth/scenes
    """
    from benchmark.cli.bars import bars
    from benchmark.cli.run import parse_pairs
    from benchmark.engine.options import RunOptions
    from benchmark.look.maps import look_at
    from benchmark.look.task import look_at_task
    from benchmark.system.paths import data_dir

    o.refuse_no_png("--out", out)
    models = model or ["tipsv2-mini"]
    if weights and len(models) > 1:
        raise UsageError(
            f"--weights is for one model, {len(models)} are named. Run bench look once for each checkpoint"
        )
    if head is not None:
        from benchmark.look.head import look_with_head

        if image is None or text or task or len(model or []) > 1:
            raise UsageError("--head takes pictures and at most one --model: bench look --head FILE photo.jpg")
        photos = [image, *map(Path, more or [])]
        for photo in photos:
            if not photo.is_file():
                raise UsageError(f"{photo}: no such picture")
        options = RunOptions(weights=weights, backend=backend, device=device, dtype=dtype, offline=offline)
        png, target = (
            look_with_head(head, photos, next(iter(model or []), None), options),
            out or Path(f"{image.stem}-look.png"),
        )
    elif task is not None:
        if image is not None or text or len(models) > 1:
            raise UsageError(
                "--task takes one --model, no picture of your own and no texts: bench look --task TASK --model MODEL"
            )
        options = RunOptions(
            protocol=protocol, overrides=parse_pairs(set_ or [], "--set"), limit=limit, data=data or data_dir(),
            weights=weights, backend=backend, device=device, dtype=dtype, offline=offline,
        )  # fmt: skip
        with bars() as (progress, _):
            found = look_at_task(models[0], task, picture or [], samples, split, options, progress)
        png, target = found.png, out or Path(f"{slug(task.removesuffix('.toml'))}-look.png")
        for line in found.lines:
            typer.echo(line)
    else:
        if image is None:
            raise UsageError("bench look takes a picture, or --task. For example bench look --task depth/scenes")
        if not image.is_file():
            raise UsageError(f"{image}: no such picture")
        target = out or Path(f"{image.stem}-look.png")
        png = look_at(
            image, models, [*(text or []), *(more or [])], size, weights,
            backend=backend, device=device, dtype=dtype, offline=offline,
        )  # fmt: skip
    write_atomic(target, lambda f: f.write(png))
    typer.echo(str(target))
