"""`bench data`: getting data sets, and checking the ones on disk."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.system.escaping import printable

app = typer.Typer(
    help="Data sets: fetch where that is allowed, check what is there. Example: bench data verify ade20k",
    rich_markup_mode=None,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(help="A data set: bench ls datasets; or a TOML task for verify")]
Data = Annotated[Path | None, typer.Option(help="Folder of the data sets [default: $BENCH_DATA or ./data]")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line")]


@app.command()
def prepare(
    name: Name,
    data: Data = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a connection")] = False,
    json: Json = False,
) -> int:
    """Fetch a data set where its licence allows that; print what is left to do by hand.

    Example: bench data prepare ade20k --data /data
    """
    from benchmark import registry
    from benchmark.cli.bars import bars
    from benchmark.errors import unknown
    from benchmark.system.paths import data_dir

    if name not in registry.datasets():
        raise unknown("dataset", name, registry.datasets(), "bench ls datasets")
    row, left = registry.datasets()[name], 0
    if not json:
        truth = f"\nground truth: {row['ground_truth']}" if "ground_truth" in row else ""
        typer.echo(f"{row['title']}{truth}\nlicence: {row['licence']}\n{row['url']}".rstrip())
    with bars(json) as (new, _):
        steps = registry.resolve("tasks.datasets.fetch:prepare")(
            name, data or data_dir(), offline=offline, progress=new
        )
        for step in steps:
            left += not step.done
            _say(dataclasses.asdict(step) if json else f"{'done' if step.done else 'by hand'}: {step.text}", json)
    if not json:
        typer.echo(f"then: bench data verify {name}" if left or row.get("fetch") else row["how_to_get"])
    return 0


@app.command()
def verify(
    name: Name,
    data: Data = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="A choice of the data set: name=value (bench show NAME)")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Decode every file, not 2,000 spread over a split")] = False,
    workers: Annotated[int, typer.Option(help="Processes that decode", min=1)] = 2,
    json: Json = False,
) -> int:
    """Check archives, counts, sizes, labels; list files that cannot be read. Exit code 1 when something is wrong.

    Example: bench data verify nyuv2 --option source=labelled
    """
    from benchmark import registry
    from benchmark.cli.bars import bars
    from benchmark.errors import UsageError
    from benchmark.system.paths import data_dir

    choices, root = pairs(option or []), None
    if name.endswith(".toml"):
        if choices:
            raise UsageError(f"--option {(option or [])[0]}: {name} says everything itself. Change the file")
        dataset = registry.resolve("tasks.datasets.user:open_task")(Path(name)).dataset
    else:
        root = data or data_dir()
        dataset = registry.open_dataset(name, root, choices)
    wrong = 0
    with bars(json) as (new, _):
        reports = registry.resolve("tasks.datasets.verify:verify")(
            dataset, everything=everything, workers=workers, progress=new, options=choices, data=root
        )
        for report in reports:
            wrong += not report.complete
            _say({**dataclasses.asdict(report), "complete": report.complete} if json else describe(report), json)
    return 1 if wrong else 0


def pairs(words: list[str]) -> dict[str, str]:
    """{"name": "value"} of ["name=value"]. Raises UsageError for a word without "="."""
    from benchmark.errors import UsageError

    for word in words:
        if "=" not in word:
            raise UsageError(f"--option {word}: write name=value")
    return {key: value for key, _, value in (w.partition("=") for w in words)}


def describe(report: Any) -> str:
    """A split's report for people: one line of verdict, then what was found."""
    head = f"{report.kind} {report.split}: "
    if report.kind == "archive":
        return head + (f"NOT AS IT SHOULD BE, {report.unreadable[0]}" if report.unreadable else f"ok, {report.values}")
    if report.missing:
        return f"{head}MISSING\n  {report.missing}" + (
            f"\n  expected {report.expected} {report.of}" if report.expected else ""
        )
    counts = f"{report.found} {report.of}"
    if report.expected is not None:
        counts += ", as official" if report.found == report.expected else f", official: {report.expected}"
    lines = [f"{head}{'ok' if report.complete else 'NOT AS IT SHOULD BE'}, {counts}", f"  digest  {report.digest[:16]}"]
    if report.sizes:
        common = sorted(report.sizes.items(), key=lambda item: -item[1])
        more = f" and {len(common) - 3} more" if len(common) > 3 else ""
        lines.append(f"  sizes   {', '.join(f'{size} ({n})' for size, n in common[:3])}{more}")
    if report.labels:
        lines.append(f"  labels  {labels_line(report.labels)}")
    if report.values:
        lines.append(f"  values  {report.values}")
    lines += [f"  note    {line}" for line in report.notes]
    lines.append(f"  read    {report.read} of {report.found}, {len(report.unreadable)} unreadable")
    return "\n".join(lines + [f"    {line}" for line in report.unreadable])


def labels_line(labels: dict[str, int]) -> str:
    """The most and least frequent labels with their shares."""
    total = sum(labels.values())
    ranked = sorted(labels.items(), key=lambda item: -item[1])
    shown = ranked if len(ranked) <= 6 else [*ranked[:4], ("…", 0), *ranked[-2:]]
    parts = [name if name == "…" else f"{name} {100 * count / total:.1f} %" for name, count in shown]
    return f"{len(ranked)}: {', '.join(parts)}"


def _say(line: Any, json: bool) -> None:
    typer.echo(jsonlib.dumps(line, ensure_ascii=False) if json else printable(str(line)))
