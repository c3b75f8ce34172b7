"""`bench plan`: what a run would cost, before it costs it."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli import options as o
from benchmark.system.plurals import number_of

if TYPE_CHECKING:
    from benchmark.forecast.decoding import Decoding
    from benchmark.forecast.lines import Forecast
    from benchmark.forecast.schedule import Schedule

UNUSED = "Taken so that the words of bench run will do; changes no count"
UNCOUNTED = ("workers", "ray", "max_bad", "max_pixels", "no_check")

MOST = 3  # models that a line names


def plan(
    model: o.Models = None,
    task: o.Tasks = None,
    suite: o.Suite = None,
    protocol: o.Protocol = None,
    name: o.Name = None,
    set_: o.Set = None,
    weights: o.Checkpoints = None,
    backend: o.Backend = "torch",
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    batch_size: o.BatchSize = "auto",
    limit: o.Limit = None,
    data: o.Data = None,
    results: o.Results = None,
    store: o.Store = "float16",
    offline: o.Offline = False,
    trust_remote_code: o.TrustRemoteCode = False,
    seed: o.Seed = 0,
    gelu: o.Gelu = None,
    positions: o.Positions = None,
    compile_: o.Compile = False,
    save_predictions: o.SavePredictions = 0,
    save_heads: o.SaveHeads = False,
    cross_check: o.CrossCheck = False,
    force: o.Force = False,
    workers: Annotated[int | None, typer.Option(help=UNUSED)] = None,
    ray: Annotated[str | None, typer.Option(help=UNUSED)] = None,
    gpus: Annotated[
        int | None, typer.Option(help="Also the schedule on so many GPUs (or cores) like this device")
    ] = None,
    max_bad: Annotated[int, typer.Option(help=UNUSED)] = 0,
    max_pixels: Annotated[int | None, typer.Option(help=UNUSED)] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help=UNUSED)] = False,
    json: o.Json = False,
) -> None:
    """Say what a run would cost, before it costs it.

    Forwards, time, disk and memory per task, and what tasks share, after ten seconds of calibration. Works before
    anything is downloaded: absent data are counted from the catalogue, an absent model by its size.
    Example: bench plan --suite scenes --model random-vit
    """
    words = {name: value for name, value in locals().items() if name not in UNCOUNTED}

    from benchmark.cli.run import default_models, run_options
    from benchmark.forecast.decoding import decoding
    from benchmark.forecast.forecast import forecast
    from benchmark.forecast.schedule import schedule

    options = run_options(words)
    if not task and suite is None:
        suite = "scenes"
    plans = forecast(model or default_models()[:1], task or [], suite, options)
    for found in plans:
        print_plan(found, json)
    if len(plans) > 1:
        print_decoding(decoding(plans), json)
    if gpus is not None:
        print_schedule(schedule(plans, gpus), json)


def print_plan(found: Forecast, json: bool) -> None:
    """The plan of one model, as a table or as a line of JSON."""
    from benchmark.cli.cache import human
    from benchmark.cli.tables import plain_table

    if json:
        typer.echo(jsonlib.dumps(_body(found)))
        return
    typer.echo(found.model)
    header = ["task / dataset", "pictures", "forwards", "shared", "not kept", "head steps", "head rows", "disk"]
    plain_table(
        [*header, "hours", ""],
        [
            [
                f"{line.unit} {line.change}".strip(), f"{line.images:,}", f"{line.forwards - line.shared:,}",
                f"{line.shared:,}", f"{line.live:,}", f"{line.head_steps:,}", f"{line.head_rows:,}", human(line.disk),
                f"{line.seconds / 3600:.2f}", line.note,
            ]
            for line in found.lines
        ],
        right=range(1, 9),
    )  # fmt: skip
    rates = ", ".join(f"{rate:.3g} images/s at {h}×{w} px" for (h, w), rate in found.images_per_s.items())
    typer.echo(f"{found.forwards:,} forwards instead of {found.forwards_unshared:,} without sharing. {rates}")
    if found.of_presets is not None:
        times = f", {found.forwards / found.of_presets:.2f} times as many with alternatives" if found.of_presets else ""
        typer.echo(f"{found.of_presets:,} forwards by the presets alone{times}")
    if found.note:
        typer.echo(found.note)
    disk = sum(line.disk for line in found.lines)
    typer.echo(
        f"encoding {_duration(found.seconds)} on this device, disk {human(disk)}, "
        f"about {human(found.memory)} of memory beside the encoder"
    )
    if found.fast:
        typer.echo(
            f"by the fast preset: {found.fast.forwards:,} forwards, {_duration(found.fast.seconds)}, "
            f"disk {human(sum(line.disk for line in found.fast.lines))}"
        )


def print_decoding(found: Decoding, json: bool) -> None:
    """How often pictures are decoded for all models."""
    if json:
        typer.echo(jsonlib.dumps({"decoding": {**asdict(found), "saved": found.saved}}))
        return
    named = [*found.apart[:MOST], *([f"{len(found.apart) - MOST} more"] if len(found.apart) > MOST else [])]
    apart = f"; memory leaves no room beside others for {', '.join(named)}" if named else ""
    typer.echo(
        f"with --ray {number_of(found.decoded, 'picture')} decoded, not {found.encoded:,}: models that see the same "
        f"pixels are encoded side by side{apart}"
    )


def print_schedule(found: Schedule, json: bool) -> None:
    """How long all models take on many workers."""
    if json:
        typer.echo(jsonlib.dumps({"schedule": {**asdict(found), "bound": found.bound, "idle": found.idle}}))
        return
    ratio = f", {found.makespan / found.bound:.2f} times the least there can be" if found.bound else ""
    typer.echo(
        f"on {number_of(found.workers, 'worker')}: {_duration(found.makespan)}{ratio} (the longest piece of work takes "
        f"{_duration(found.longest)}, all of it shared evenly {_duration(found.total / found.workers)}), "
        f"{100 * found.idle:.0f} % idle, {number_of(found.jobs, 'piece')}, {number_of(found.loads, 'load')} of a model"
    )
    chain = " → ".join(f"{name} {_duration(seconds)}" for name, seconds in found.path)
    typer.echo(f"longest chain: {chain or 'nothing to do'}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 3600:.1f} h"


def _body(found: Forecast) -> dict[str, Any]:
    """The plan as `--json` prints it."""
    units = [{k: v for k, v in asdict(line).items() if k not in ("todo", "crops", "pixels")} for line in found.lines]
    body = {
        "model": found.model,
        "units": units,
        "images_per_s": {f"{h}x{w}": rate for (h, w), rate in found.images_per_s.items()},
        "forwards": found.forwards,
        "forwards_without_sharing": found.forwards_unshared,
        "seconds": found.seconds,
        "disk": sum(line.disk for line in found.lines),
        "memory": found.memory,
        "note": found.note,
    }
    if found.of_presets is not None:
        body["forwards_of_presets"] = found.of_presets
    if found.fast:
        body["fast"] = {k: v for k, v in _body(found.fast).items() if k in ("forwards", "seconds", "disk")}
    return body
