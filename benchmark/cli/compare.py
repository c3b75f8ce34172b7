"""`bench compare A B`: paired differences of two checkpoints, for people and for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli import options as o
from benchmark.compare import noise_floor as noise_floor
from benchmark.errors import BenchError, UsageError
from benchmark.system.files import write_text
from benchmark.system.paths import results_dir, rows_dir

if TYPE_CHECKING:
    from benchmark.compare.compare import Comparison

REGRESSION = 3


def compare(
    a: Annotated[
        str, typer.Argument(help="Baseline: a result file, a folder, a model in results/, or 'published'")
    ] = "",
    b: Annotated[str, typer.Argument(help="Candidate, in the same words")] = "",
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Only these, as for bench run: a task, a data set, a file; repeats"),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Only what this suite measures, a name or a TOML file [--noise: scenes]")
    ] = None,
    results: o.Results = None,
    fail_on_regression: Annotated[
        bool, typer.Option(help="Exit 3 when a task is worse, 1 when one was refused or is damaged")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Smallest drop that counts, on the metric's own scale [default: noise floor, or 0]", min=0),
    ] = None,
    all_metrics: Annotated[bool, typer.Option(help="Every metric of a row, not only the main one")] = False,
    classes: Annotated[bool, typer.Option(help="Print the IoU change of every class")] = False,
    json: o.Json = False,
    markdown: o.Markdown = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML here")] = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Measure the noise floor and record it in results/noise.json")
    ] = False,
    model: Annotated[str, typer.Option(help="With --noise: the model to measure it on")] = "tipsv2-mini",
    limit: Annotated[int | None, typer.Option(help="With --noise: at most this many samples of each split")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap", min=0)] = 0,
) -> None:
    """Compare two models on the same samples.

    Paired differences with intervals, adjusted p-values and the smallest effect that could have been seen.
    Example: bench compare tipsv2-mini clip-mini --fail-on-regression
    """
    if noise:
        place = results or results_dir()
        whole = suite or (None if task else "scenes")
        floors = noise_floor.measure(model, whole, results=place, limit=limit, tasks=task or ())
        _print_floors(floors, place)
        return
    if not (a and b):
        raise UsageError("bench compare needs two sides: bench compare BASELINE CANDIDATE (or --noise)")
    from benchmark.cli.comparison_tables import print_comparison
    from benchmark.compare import report as report
    from benchmark.compare.compare import compare as compare_rows

    place = rows_dir(results)
    floors_known = noise_floor.read(place)
    found = compare_rows(
        a, b, results=place, tasks=task or (), suite=suite, tolerance=tolerance, floors=floors_known,
        all_metrics=all_metrics, seed=seed,
    )  # fmt: skip
    if markdown:
        write_text(markdown, report.markdown(found))
    if junit:
        write_text(junit, report.to_junit(found))
    if json:
        typer.echo(report.to_json(found))
    else:
        print_comparison(found, classes)
    if fail_on_regression:
        _gate(found)


def _print_floors(floors: dict[str, float], place: Path) -> None:
    for key, floor in floors.items():
        typer.echo(f"{key.partition('@')[0]:40s} noise floor {floor:.4f}")
    typer.echo(f"{place / noise_floor.FILE}: bench compare takes these as its tolerance")


def _gate(found: Comparison) -> None:
    if found.published:
        raise UsageError(
            "--fail-on-regression: published numbers have no samples, so nothing can be tested against them"
        )
    if found.regressions:
        raise typer.Exit(REGRESSION)
    if lost := (*found.refused, *found.problems):
        raise BenchError(
            f"--fail-on-regression: {len(found.refused)} of the baseline's tasks were not compared, "
            f"{len(found.problems)} of its rows damaged or half-written, first: {lost[0]}"
        )
