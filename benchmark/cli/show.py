"""`bench show NAME`: everything known about one name."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.errors import UsageError, unknown


def show(
    name: Annotated[str, typer.Argument(help="A model, family, task, task/dataset, dataset or suite")],
    protocol: Annotated[str | None, typer.Option(help="Only this preset of a task")] = None,
    out: Annotated[Path | None, typer.Option(help="For scenes: draw a contact sheet into this PNG")] = None,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable")] = False,
) -> None:
    """Show a model's facts, a protocol's fields with status and source, a dataset's layout, licence and how to get it.

    Example: bench show linear_segmentation
    """
    from benchmark import registry

    task, _, dataset = name.partition("/")
    if dataset:
        registry.units(name)  # an unknown half is named here
        name = task
    if name in registry.models():
        _pairs(name, {k: v for k, v in registry.models()[name].items() if k != "entry_point"}, json)
    elif members := [m for m, row in registry.models().items() if row.get("family") == name]:
        for member in members:
            _pairs(member, {k: v for k, v in registry.models()[member].items() if k != "entry_point"}, json)
    elif name in registry.tasks():
        _task(name, protocol, dataset or None, json)
    elif name in registry.datasets():
        _dataset(name, out, json)
    elif name in registry.suites():
        _pairs(name, registry.suites()[name], json)
    else:
        families = {row["family"] for row in registry.models().values() if "family" in row}
        known = [*registry.models(), *sorted(families), *registry.tasks(), *registry.datasets(), *registry.suites()]
        raise unknown("name", name, known, "bench ls models|tasks|datasets|suites")


def _pairs(name: str, row: dict[str, Any], json: bool) -> None:
    if json:
        typer.echo(jsonlib.dumps({"name": name, **row}, ensure_ascii=False))
        return
    typer.echo(name)
    for key, value in row.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        lines = text.strip().splitlines() or [""]
        typer.echo(f"  {key:16} {lines[0]}")
        for line in lines[1:]:
            typer.echo(f"  {'':16} {line}")


def _task(name: str, only: str | None, dataset: str | None, json: bool) -> None:
    from benchmark import registry
    from benchmark.protocol import presets, variants

    path = registry.protocol_file(name)
    for preset in [only] if only else list(presets(path)):
        for where in [dataset] if dataset else [None, *variants(path, preset)]:
            _preset(name, preset, where, json)


def _preset(name: str, preset: str, dataset: str | None, json: bool) -> None:
    from benchmark import registry
    from benchmark.cli.tables import plain_table
    from benchmark.protocol import load_protocol

    found = load_protocol(name, registry.load_task(name).schemas, registry.protocol_file(name), preset, None, dataset)
    fields = found.fields()
    if json:
        body = {"task": name, "dataset": dataset, "protocol": preset, "hash": found.hash, "schema": found.schema}
        typer.echo(jsonlib.dumps({**body, "fields": fields}, ensure_ascii=False))
        return
    title = f"{name}/{dataset}" if dataset else name
    typer.echo(f"{title} [{preset}] {found.hash[:8]}: {found.description}")
    plain_table(
        ["  field", "value", "status", "source"],
        [[f"  {k}", v["value"], v["status"], v["source"]] for k, v in fields.items()],
    )
    typer.echo("")


def _dataset(name: str, out: Path | None, json: bool) -> None:
    from benchmark import registry

    if out is not None and name != "scenes":
        raise UsageError("--out: only scenes has a contact sheet. bench run --save-predictions keeps pictures")
    _pairs(name, registry.datasets()[name], json)
    if out is not None:
        path = registry.resolve("tasks.scenes.sheet:contact_sheet")(out)
        if not json:
            typer.echo(f"  contact sheet    {path}")
