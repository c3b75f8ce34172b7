"""`bench show NAME`: everything known about one name."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli import options as o
from benchmark.errors import BenchError, DataError, UsageError, unknown
from benchmark.system.escaping import printable
from benchmark.system.plurals import number_of

if TYPE_CHECKING:
    from benchmark.engine.options import RunOptions
    from benchmark.rows.row import Row


def show(
    name: Annotated[
        str | None,
        typer.Argument(help="A model (of your own too), family, task, task/dataset, dataset, suite, my_task.toml"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="As NAME: a word of bench run --task")] = None,
    protocol: Annotated[str | None, typer.Option(help="Only this preset of a task")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", "--out", help="Draw samples of a data set beside their targets into this PNG"),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", "-n", help="Of each split, and as many that have a fault", min=1, max=200)
    ] = 4,
    limit: Annotated[int, typer.Option(help="Samples of each split looked at for faults", min=1)] = 100,
    data: o.Data = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="A choice of the data set: name=value, as for bench data verify"),
    ] = None,
    json: o.Json = False,
) -> None:
    """Show what is known of a model, task, data set or suite.

    A model's facts, a protocol's fields with status and source, a dataset's layout, licence and how to get it.
    Data can be looked at before any model is loaded: --pictures draws samples beside their targets, what is not scored
    striped, with class shares and ranges. Samples that cannot be read or whose target does not fit come first.

    Examples: bench show linear_segmentation; bench show my_task.toml --pictures look.png
    """
    from benchmark import registry

    if (name is None) == (task is None):
        raise UsageError("bench show takes one name. See bench ls models|tasks|datasets|suites")
    name = str(task) if name is None else name
    file = name.endswith(".toml") or name.startswith("mmseg:")
    if pictures is not None and not (file or "/" in name or name in registry.datasets()):
        raise UsageError(f"--pictures: {name} is no data set. Name one (bench ls datasets), a task/dataset or a file")
    o.refuse_no_png("--pictures", pictures)
    if not file:
        _facts(name, protocol, json)
    if file or pictures is not None:
        from benchmark.cli.run import parse_pairs
        from benchmark.engine.options import RunOptions
        from benchmark.system.paths import data_dir

        options = RunOptions(
            protocol=protocol, data=data or data_dir(), dataset_options=parse_pairs(option or [], "--option")
        )
        _samples(name, options, pictures, samples, limit, json)


def _facts(name: str, protocol: str | None, json: bool) -> None:
    """Everything that is known of a name without opening data."""
    from benchmark import registry

    if found := _rows_on(name):
        _data_of_rows(name, found, json)
        return
    task, _, dataset = name.partition("/")
    if dataset and ":" not in name and (task in registry.tasks() or not Path(name).exists()):  # or a row's folder
        registry.units(name)  # an unknown half is named here
        name = task
    if name in registry.models():
        _model(name, json)
    elif members := [m for m, row in registry.models().items() if row.get("family") == name]:
        for member in members:
            _model(member, json)
    elif name in registry.tasks():
        _task(name, protocol, dataset or None, json)
    elif name in registry.datasets():
        _pairs(name, registry.datasets()[name], json)
    elif name in registry.suites():
        suite = dict(registry.suites()[name])
        suite["tasks"] = suite.pop("units")
        _pairs(name, suite, json)
    elif rows := _rows_of(name):
        _model_of_rows(rows, json)
    elif ":" in name:
        _encoder(name, json)
    else:
        families = {row["family"] for row in registry.models().values() if "family" in row}
        known = [*registry.models(), *sorted(families), *registry.tasks(), *registry.datasets(), *registry.suites()]
        raise unknown("name", name, known, "bench ls models|tasks|datasets|suites")


def _model(name: str, json: bool) -> None:
    """A registered model: its row, and how its weights are had."""
    from benchmark import registry
    from benchmark.cli.weights import steps

    row = {k: v for k, v in registry.models()[name].items() if k != "entry_point"}
    found = steps(name, row)
    how = {"how_to_get": found if json else "\n".join(found)} if found else {}
    _pairs(name, {**{k: v for k, v in row.items() if k != "files"}, **how}, json)


def _rows_of(name: str) -> list[Row]:
    """The rows of a model that `bench run` has measured, by its name there or by what it was asked for by."""
    from benchmark.compare.sides import open_side
    from benchmark.system.paths import rows_dir

    try:
        return list(open_side(name, rows_dir(None)).rows)
    except BenchError:
        return []


def _rows_on(name: str) -> list[Row]:
    """The rows on data of one's own that tables call `name`: task/data set, or the data set alone."""
    from benchmark import registry
    from benchmark.rows.row import read_all
    from benchmark.system.paths import results_dir

    tables = (registry.models(), registry.tasks(), registry.datasets(), registry.suites())
    if any(name.rpartition("/")[2] in table for table in tables) or not results_dir().is_dir():
        return []
    return [row for row in read_all(results_dir())[0] if name in (row.unit, row.data.task.dataset)]


def _data_of_rows(name: str, rows: list[Row], json: bool) -> None:
    """What rows say of the data of one's own that they were measured on, and the main number of each."""
    from benchmark.compare.sides import label

    said = [f"{row.model} on {row.unit} by {label(row)}: {_main(row)}, n = {row.data.task.n}" for row in rows]
    made = list(dict.fromkeys(row.data.command for row in rows))
    facts = {"rows": said, "made by": made, "its data": ["bench show FILE.toml, with the file that --task names there"]}
    _pairs(name, facts if json else {key: "\n".join(lines) for key, lines in facts.items()}, json)


def _main(row: Row) -> str:
    """`RMSE 1.412 [1.384, 1.441] m`."""
    from benchmark.rows.tables import format_value

    return f"{row.data.main_metric} {format_value(row.main)} {row.main.unit}".strip()


def _model_of_rows(rows: list[Row], json: bool) -> None:
    """What rows say of their model, and the main number of each."""
    from benchmark.compare.sides import label
    from benchmark.rows.history import predecessors

    facts = rows[0].data.model.json()
    weights = facts.pop("weights")
    facts |= {"weights": weights["source"], "sha256": weights["sha256"]}
    if laid := facts.get("transform"):  # rows of before it was written have none
        facts |= {"transform": ", ".join(f"{k} {v}" for k, v in laid.items())}
    facts["rows"] = [] if json else ""
    for row in rows:
        part = f", n = {row.data.task.n}, a part of the data" if row.part else ""
        said = f"{row.unit} {label(row)}: {_main(row)}{part}"
        facts["rows"] += [said] if json else f"{said}\n"
        for old, why in predecessors(row):
            said = f"  before, of {old.data.created[:10]}: {_main(old)}; then changed: {why}"
            facts["rows"] += [said.strip()] if json else f"{said}\n"
    _pairs(rows[0].model, {k: v for k, v in facts.items() if k != "name" and v not in ({}, None)}, json)


def _encoder(name: str, json: bool) -> None:
    """The card of a model that nothing here has measured yet: it is loaded for it."""
    from dataclasses import asdict

    from benchmark.engine.loading import open_encoder
    from benchmark.registry import check_local, check_model_name
    from benchmark.system.digest import plain

    check_model_name(name)
    check_local(name)
    encoder = open_encoder(name)
    facts = {**asdict(encoder.card), **asdict(encoder.card.weights)}
    facts["options"] = dict(encoder.card.options)
    facts["transform"] = ", ".join(f"{k} {v}" for k, v in plain(encoder.transform).items())
    _pairs(name, {k: v for k, v in facts.items() if k not in ("name", "weights")}, json)


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
    others: dict[str, list[str]] = {name: [] for name in fields}
    for one in found.alternatives:
        others[one.field].append(str(one).removeprefix(f"{one.field} = "))
    if json:
        fields = {name: {**said, "alternatives": others[name]} for name, said in fields.items()}
        body = {"task": name, "dataset": dataset, "protocol": preset, "hash": found.hash, "schema": found.schema}
        typer.echo(jsonlib.dumps({**body, "fields": fields}, ensure_ascii=False))
        return
    title = f"{name}/{dataset}" if dataset else name
    typer.echo(f"{title} [{preset}] {found.hash[:8]}: {found.description}")
    plain_table(
        ["  field", "value", "status", "or", "source"],
        [[f"  {k}", v["value"], v["status"], " | ".join(others[k]), v["source"]] for k, v in fields.items()],
    )
    typer.echo("")


def _samples(name: str, options: RunOptions, pictures: Path | None, count: int, limit: int, json: bool) -> None:
    """What the data of a file, a task/dataset or a data set are; with `pictures`, as one PNG.

    Raises DataError at the end where a sample of the `limit` looked at cannot be read."""
    from benchmark import registry
    from benchmark.cli.bars import bars
    from benchmark.engine.jobs import JobMaker
    from benchmark.images.faults import scan
    from benchmark.images.samples import look_at_samples
    from benchmark.images.sheets import drawn
    from benchmark.system.files import write_atomic

    alone = name in registry.datasets()
    found = [registry.Unit(task, name) for task in registry.tasks_on(name)] if alone else registry.units(name)
    kinds: dict[str, registry.Unit] = {}
    for unit in found:
        kinds.setdefault(registry.tasks()[unit.task]["kind"], unit)  # each kind of data once
    sheets, unread = [], list[str]()
    with bars(json) as (progress, _):
        maker = JobMaker(options, "fast", progress)
        for kind, unit in kinds.items():
            for split, samples in maker.make(unit).data.items():
                if alone and split != "test":  # of many kinds one split says enough
                    continue
                for images in samples.pictures().values():
                    images.prepare(progress)
                seen = scan(samples, limit, progress)
                unread += [fault.text for fault in seen.faults if fault.unread]
                some = f"{len(seen.chosen(count))} of {number_of(len(samples), 'sample')}"
                title = f"{f'{name}, {kind}' if alone else unit}, {split}: {some} drawn"
                sheets.append(look_at_samples(samples, title, count, scanned=seen))
    if pictures is not None:
        png = drawn(sheets)
        write_atomic(pictures, lambda f: f.write(png))
    if json:
        told = {"name": name, "samples": {sheet.title: sheet.facts for sheet in sheets}}
        typer.echo(jsonlib.dumps(told | ({"pictures": str(pictures)} if pictures else {}), ensure_ascii=False))
    else:
        for sheet in sheets:
            typer.echo(printable("\n  ".join([sheet.title, *sheet.facts])))
        more = f"bench show {name} --pictures FILE.png draws them beside their targets"
        typer.echo(str(pictures) if pictures else more)
    if unread:
        raise DataError(f"{number_of(len(unread), 'sample')} cannot be read or scored, the first: {unread[0]}")
