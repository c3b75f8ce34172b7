"""`results/results.csv` and `results/results.md`: every row there is, one line each, made from the files alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import UsageError
from benchmark.rows.row import Row, read_all, row_files
from benchmark.rows.schema import Metric
from benchmark.rows.stale import AGAIN, MARK
from benchmark.system.escaping import escape, plain_cell
from benchmark.system.files import disk_errors, write_text
from benchmark.system.paths import results_dir
from benchmark.system.processes import locked

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "model", "task", "dataset", "metric", "value", "ci95_low", "ci95_high", "chance", "unit", "n", "n_bad",
    "protocol", "protocol_hash", "weights_sha256", "dataset_digest", "seed", "dtype", "store", "total_s", "densebench",
    "created", "id", "stale",
)  # fmt: skip
HEADING = "# Results"
CEILING = "ceiling of "  # before the name of the metric it is the ceiling of


def write_tables(results: Path) -> list[Path]:
    """Writes both tables and returns their paths; files that are no whole row are left out.

    Under the folder's lock, from rows that are read under it: of several processes the last to write has read every row
    that the others saved. Where the file system gives no locks, whoever finds another row there after writing writes
    again, which comes to the same.
    """
    if not results.is_dir():
        return []
    with disk_errors(results), locked(results) as alone:
        refuse_other_tables(results)
        while True:
            seen = row_files(results)
            rows = sorted(read_all(results)[0], key=lambda r: (r.unit, r.data.protocol.name, r.model))
            if not rows:
                return []
            paths = [results / "results.csv", results / "results.md"]
            write_text(paths[0], csv_text(rows))
            write_text(paths[1], markdown(rows))
            if alone or row_files(results) == seen:
                return paths


def refuse_other_tables(results: Path) -> None:
    """Raises UsageError where a file of the tables' names holds something else: it would be lost."""
    ours = {"results.csv": ",".join(COLUMNS[:3]), "results.md": HEADING}
    for name, begins in ours.items():
        path = results / name
        with suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8")
            if text.strip() and not text.startswith(begins):
                raise UsageError(f"{path}: is no table of densebench and would be lost. Move it, or give --results DIR")


def load_results(results: Path | str | None = None, wide: bool = False) -> pd.DataFrame:
    """Every metric of every row under `results` (default: where `bench run` writes), one line each, with COLUMNS.

    `wide` gives a paper's table instead (`side_by_side`): `load_results(wide=True).to_latex(escape=True)`.
    Raises UsageError where there is no such folder. Files that are no whole row are left out;
    `benchmark.rows.row.read_all` names them and gives the rows themselves.
    """
    place = Path(results) if results is not None else results_dir()
    if not place.is_dir():
        raise UsageError(f"{place}: no such folder. Run bench run first, or name the folder of its rows")
    return (side_by_side if wide else frame)(read_all(place)[0])


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per row and metric."""
    import pandas as pd

    return pd.DataFrame(_lines(rows), columns=list(COLUMNS))


def side_by_side(rows: Sequence[Row]) -> pd.DataFrame:
    """A line for each task on a data set by one protocol, a column for each model, both in the order of `rows`: the
    main metric as text, `57.8 [56.9, 58.6]`, with chance before the models. Rows of two hashes or two states of the
    data are never in one line; one that is out of date has a ‡."""
    import pandas as pd

    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        arrow = "↑" if row.main.higher_is_better else "↓"
        key = (
            row.unit, f"{row.data.protocol.name} {row.protocol_hash[:8]}",
            f"{row.data.main_metric} {row.main.unit}".strip() + f" {arrow}", str(row.data.task.dataset_digest),
        )  # fmt: skip
        model = f"{row.model} · {row.variant}" if row.variant else row.model
        line = lines.setdefault(key, {})
        line["chance"] = line.get("chance") or chance_of([row], row.data.main_metric)
        line[model] = format_value(row.main) + (f" {MARK}" if row.stale else "")
    models = dict.fromkeys(name for line in lines.values() for name in line)
    index = pd.MultiIndex.from_tuples([key[:3] for key in lines], names=["task", "protocol", "metric"])
    return pd.DataFrame([[line.get(m, "") for m in models] for line in lines.values()], index, list(models))


def csv_text(rows: Sequence[Row]) -> str:
    """`frame` as CSV, to the letter, without the second that pandas takes to be imported."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([plain_cell(cell) for cell in line] for line in _lines(rows))
    return out.getvalue()


def _lines(rows: Sequence[Row]) -> list[list[Any]]:
    return [_line(row, name, metric) for row in rows for name, metric in row.data.metrics.items()]


def _line(row: Row, name: str, metric: Metric) -> list[Any]:
    d = row.data
    return [
        row.model, d.task.name, d.task.dataset, name, metric.value, *metric.ci95, metric.chance, metric.unit, d.task.n,
        d.n_bad, d.protocol.name, d.protocol.hash, d.model.weights.sha256, d.task.dataset_digest, d.seed, d.model.dtype,
        row.store or "", d.timing.total_s, d.environment.densebench.version, d.created, d.id, row.stale,
    ]  # fmt: skip


def markdown(rows: Sequence[Row]) -> str:
    """One table per protocol hash of a unit: rows of different hashes are never in one table."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        key = (row.unit, row.data.protocol.name, row.protocol_hash + str(row.data.task.dataset_digest))
        groups.setdefault(key, []).append(row)
    out = [HEADING, ""]
    for (unit, protocol, _), members in groups.items():
        first = members[0]
        out += [
            f"## {escape(unit)}",
            "",
            f"protocol `{escape(protocol)}` `{escape(first.protocol_hash[:8])}`, n = {first.data.task.n}",
            "",
        ]
        names = list(dict.fromkeys(name for row in members for name in row.data.metrics))
        out += ["| model | " + " | ".join(escape(n) for n in names) + " |", "|---" * (len(names) + 1) + "|"]
        for row in members:
            cells = [format_value(row.data.metrics[n]) if n in row.data.metrics else "" for n in names]
            name = f"{row.model} · {row.variant}" if row.variant else row.model
            name += f" {MARK}" if row.stale else ""
            out.append(f"| {escape(name)} | " + " | ".join(cells) + " |")
        if any(cells := [chance_of(members, n) for n in names]):
            out.append("| *chance* | " + " | ".join(cells) + " |")
        out += stale_lines(members, "- ")
        out.append("")
    return "\n".join(out)


def stale_lines(rows: Iterable[Row], lead: str = "") -> list[str]:
    """One line for each model and reason of the rows that are out of date, each as Markdown where it has a `lead`."""
    units: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.stale:
            units.setdefault(f"{row.model}: {row.stale}", {})[row.unit] = None
    said = [f"{MARK} stale: {', '.join(names)} of {why}. {AGAIN}" for why, names in units.items()]
    return ["", *(lead + escape(line) for line in said)] if said and lead else said


def chances(rows: Sequence[Row]) -> dict[str, float]:
    """metric -> what an answer that sees no picture gets, from the first of `rows` that says so."""
    return {n: m.chance for row in reversed(rows) for n, m in row.data.metrics.items() if m.chance is not None}


def ceilings(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """metric -> the lowest and the highest that any answer could get on the patch grids of `rows`, where rows say so: a
    metric "ceiling of PCK@0.1" is that of "PCK@0.1"."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, metric in row.data.metrics.items():
            if name.startswith(CEILING):
                found.setdefault(name.removeprefix(CEILING), []).append(metric.value)
    return {name: (min(values), max(values)) for name, values in found.items()}


def digits(unit: str) -> int:
    """Decimals shown: percent and degrees 1, metres and ratios 3."""
    return 1 if unit in ("%", "°") else 3


def number(value: float, unit: str) -> str:
    """`value` with the decimals of its unit."""
    return f"{value:.{digits(unit)}f}"


def format_value(metric: Metric, interval: bool = True) -> str:
    """`57.8 [56.9, 58.6]`."""
    value, low, high = (number(v, metric.unit) for v in (metric.value, *metric.ci95))
    return f"{value} [{low}, {high}]" if interval else value


def chance_of(rows: Iterable[Row], metric: str, write: Callable[[float, str], str] = number) -> str:
    """The chance of `metric` as a table shows it, from the first of `rows` that says so; empty where none does."""
    said = (m for row in rows if (m := row.data.metrics.get(metric)) is not None)
    return next((write(m.chance, m.unit) for m in said if m.chance is not None), "")
