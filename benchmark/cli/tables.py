"""The tables a person sees on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.engine.report import Note, Report
from benchmark.rows.row import Row
from benchmark.rows.shipped import columns, origin
from benchmark.rows.stale import MARK
from benchmark.rows.tables import chance_of, format_value, number, stale_lines
from benchmark.system.escaping import printable
from benchmark.system.plurals import number_of

ARROW = {True: "↑", False: "↓"}


def plain_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[int] = ()) -> None:
    """A borderless table; columns whose number is in `right` are aligned right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for i, name in enumerate(headers):
        table.add_column(name, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(str(cell))) for cell in row))
    _console().print(table)


def _console() -> Console:
    """A file or a pipe has no width of its own: nothing is folded there."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def show_report(report: Report, results: Path, written: Sequence[Path], reference: Path, wall: float = 0.0) -> None:
    """Units down, models across, each value with its 95 % interval; then seconds per phase and where the files are.

    Shipped rows (under `reference`) of the same units, protocols and data stand beside them, in columns marked so.
    """
    console = _console()
    models = list(dict.fromkeys([r.model for r in report.rows] + [n.model for n in report.not_applicable]))
    shipped = [r for r in columns(report.rows, reference) if r.model not in models]
    others = list(dict.fromkeys(r.model for r in shipped))
    tables: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in (*report.rows, *shipped):
        key = (row.unit, row.data.protocol.name.removesuffix("+set"), row.protocol_hash)
        tables.setdefault(key, {})[row.model] = row
    reasons = {(n.model, str(n.unit)): n.text for n in report.not_applicable}
    if tables:
        shared = {unit.partition("/")[2] for unit, *_ in tables}
        dataset = next(iter(shared)) if len(shared) == 1 else None
        wide = console.width >= 56 + 21 * len(models + others)
        if not wide:
            others = _that_fit(others, console.width - 52 - 14 * len(models))

        def side_by_side(some: Sequence[str]) -> Table:
            beside = others if len(some) == len(models) else []
            ranked = [*models, *others]
            return _main_table(some, beside, ranked, tables, reasons, dataset=dataset, wide=wide)

        blocks = _blocks(console, models, side_by_side)
        if len(blocks) > 1 and others:  # one's own rows first
            others = []
            blocks = _blocks(console, models, side_by_side)
        for some in blocks:
            console.print(side_by_side(some))
        if shipped := [r for r in shipped if r.model in others]:
            console.print(_shipped_words(others, shipped), style="dim", markup=False, highlight=False)
        console.print(_seconds_table(models, report.rows, console.width))
        if report.clock:
            console.print(clock_line(report.clock, wall), style="dim", markup=False, highlight=False)
    for text in _not_applicable_words(report.not_applicable):
        console.print(printable(text), style="dim", markup=False, highlight=False)
    if any(row.data.task.dataset == "scenes" for row in report.rows):
        console.print(
            "scenes is rendered: it tests the plumbing and small models; it does not rank real encoders.", style="dim"
        )
    for text in (*_lacking(report.rows), *stale_lines((*report.rows, *(r for r in shipped if r.model in others)))):
        console.print(printable(text), style="yellow", markup=False, highlight=False)
    fresh = len(report.rows) - report.reused
    where = f". Rows: {results}/<model>/<task>/<dataset>/" if report.rows else ""
    console.print(f"{number_of(fresh, 'row')} made, {report.reused} were there{where}", markup=False, highlight=False)
    if written:
        console.print("Tables: " + ", ".join(map(str, written)), markup=False, highlight=False)
    if report.failures:
        names = list(map(str, report.failures))
        said = f"{len(names)} failed ({', '.join(names[:4])}{', …' if len(names) > 4 else ''})"
        again = "it" if len(names) == 1 else "them"
        line = printable(f"{said}; the same command tries {again} again.")
        console.print(line, style="bold red", markup=False, highlight=False)


def _not_applicable_words(notes: Sequence[Note]) -> list[str]:
    """One line for each model and reason, with the tasks: one that no model can do has no line in the table."""
    tasks: dict[tuple[str, str], dict[str, None]] = {}
    for note in notes:
        tasks.setdefault((note.model, note.text), {})[str(note.unit).partition("/")[0]] = None
    return [f"n/a {model}, {', '.join(names)}: {text}" for (model, text), names in tasks.items()]


def _lacking(rows: Sequence[Row]) -> list[str]:
    """One line for each unit whose data were not whole: what was left out, and how small a part was there."""
    out: dict[str, None] = {}
    for row in rows:
        if bad := row.data.bad:
            count = f"{len(bad)} image{'s' * (len(bad) > 1)}"
            out[f"left out of {row.unit}: {count}, listed in its row; the first: {bad[0]}"] = None
        for text in row.data.partial:
            out[f"a part only: {text}. This is not the official {row.unit}"] = None
    return list(out)


def _blocks(console: Console, models: Sequence[str], draw: Callable[[Sequence[str]], Table]) -> list[list[str]]:
    """`models` as they stand beside each other: as many in a table as the console is wide, never a number cut off."""
    blocks: list[list[str]] = [[]]
    endless = console.options.update(max_width=10_000)
    for model in models:
        if blocks[-1] and console.measure(draw([*blocks[-1], model]), options=endless).maximum > console.width:
            blocks.append([])
        blocks[-1].append(model)
    return blocks


def _that_fit(names: Sequence[str], width: int) -> list[str]:
    """The names whose columns, of values alone, fit into `width` characters."""
    out = []
    for name in names:
        if (width := width - max(len(name), 7) - 2) >= 0:
            out.append(name)
        else:
            width += max(len(name), 7) + 2
    return out


def _shipped_words(models: Sequence[str], rows: Sequence[Row]) -> str:
    """Where the shipped columns come from, and the command that makes them here."""
    made = "bench run " + " ".join(f"--model {name}" for name in models)
    return f"shipped: measured earlier with {origin(rows)}, not by this run. To make these rows yourself: {made}"


def _main_table(
    models: Sequence[str],
    shipped: Sequence[str],
    ranked: Sequence[str],
    tables: dict[tuple[str, str, str], dict[str, Row]],
    reasons: dict[tuple[str, str], str],
    *,
    dataset: str | None,
    wide: bool,
) -> Table:
    """`dataset` is the one all units share: it is said once, in the header. The best of `ranked`, the models of this
    table and of those below it, is bold."""
    how = "value [95 % interval]" if wide else "value ± half the 95 % interval"
    table = Table(box=None, pad_edge=False, header_style="dim", caption=how, caption_justify="left")
    table.add_column(f"task on {dataset}" if dataset else "task / dataset", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    chance = [chance_of(found.values(), next(iter(found.values())).data.main_metric) for found in tables.values()]
    if any(chance):
        table.add_column("chance", justify="right", no_wrap=True, style="dim")
    for model in models:
        table.add_column(escape(model) + ("\n" if shipped else ""), justify="right", overflow="fold")
    for model in shipped:
        table.add_column(f"{escape(model)}\nshipped", justify="right", no_wrap=True, style="dim")
    for ((unit, protocol, _), found), blind in zip(tables.items(), chance):
        rows = {model: row for model, row in found.items() if model in ranked}
        first = next(iter(rows.values()))
        name = f"{first.data.main_metric} {first.main.unit}".strip() + f" {ARROW[first.main.higher_is_better]}"
        shown = unit.partition("/")[0] if dataset else unit
        values = {m: r.main.value for m, r in rows.items()}
        best = (max if first.main.higher_is_better else min)(values.values())
        cells = []
        for model in (*models, *shipped):
            if model in rows:
                value = format_value(rows[model].main, interval=wide)
                text = _half(rows[model]) if not wide and model not in shipped else value
                text += f" {MARK}" if rows[model].stale else ""
                cells.append(f"[bold]{escape(text)}[/]" if values[model] == best and len(rows) > 1 else escape(text))
            else:
                cells.append("[dim]n/a[/]" if (model, unit) in reasons or model in shipped else "")
        floor = [blind] if any(chance) else []
        table.add_row(escape(shown if protocol == "fast" else f"{shown} ({protocol})"), escape(name), *floor, *cells)
    return table


def _half(row: Row) -> str:
    m = row.main
    return f"{number(m.value, m.unit)} ±{number((m.ci95[1] - m.ci95[0]) / 2, m.unit)}"


def clock_line(clock: Mapping[str, float], wall: float) -> str:
    """Where the seconds of this command went, of `wall` in all; the parts add up."""
    parts = {"start": clock.get("start", 0.0), **clock}
    parts = {name: round(seconds, 1) for name, seconds in parts.items()}
    wall = round(max(wall, sum(parts.values())), 1)
    parts["rest"] = round(wall - sum(parts.values()), 1)
    said = " + ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items() if seconds)
    return f"this command: {wall:.1f} s = {said or '0.0'}"


WIDE_SECONDS = 72  # characters of a terminal that has room for the seconds no stage counts


def _seconds_table(models: Sequence[str], rows: Sequence[Row], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("seconds", overflow="fold")
    on_gpu = any(r.data.peak_gpu_memory_mb for r in rows)
    rest = ["rest"] if width >= WIDE_SECONDS else []
    last = ["peak GPU MB"] if on_gpu else []
    for phase in ("extract", "fit", "score", *rest, "total", "images/s", "peak MB", *last):
        table.add_column(phase, justify="right")
    for model in models:
        mine = [r.data for r in rows if r.model == model]
        spent = [(d.timing.extract_s, d.timing.fit_s, d.timing.score_s, d.timing.total_s) for d in mine]
        sums = [sum(stage) for stage in zip(*spent)] or [0.0] * 4
        rates = [d.timing.images_per_s for d in mine if d.timing.images_per_s]
        peak = max((d.peak_memory_mb or 0 for d in mine), default=0)
        if rest:
            sums.insert(3, sums[3] - sum(sums[:3]))
        cells = [*(f"{s:.1f}" for s in sums), f"{max(rates):.0f}" if rates else "–", f"{peak:.0f}"]
        gpu = max((d.peak_gpu_memory_mb or 0 for d in mine), default=0)
        table.add_row(escape(model), *cells, *([f"{gpu:.0f}"] if on_gpu else []))
    return table
