"""The leaderboard as CSV (one line for each row) and Markdown (one table for each board)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from benchmark.compare.report import number, table
from benchmark.engine.environment import package_version
from benchmark.leaderboard.agreement import disagreement
from benchmark.leaderboard.collect import Board, Entry, newest
from benchmark.rows.published import PublishedNumber
from benchmark.rows.stale import LEGEND as LEGEND_OF_STALE
from benchmark.rows.stale import MARK
from benchmark.rows.tables import ceilings, chance_of, stale_lines
from benchmark.system.escaping import escape, plain_cell

COLUMNS = (
    "task", "dataset", "protocol", "protocol_hash", "dataset_digest", "metric", "unit", "higher_is_better", "n",
    "rank", "tied_with_best", "model", "store", "family", "params", "licence", "value", "ci95_low", "ci95_high",
    "chance", "delta_to_best", "p_adjusted", "weights_sha256", "source", "stale",
)  # fmt: skip
NUMBERS = ("value", "ci95_low", "ci95_high", "chance", "delta_to_best", "p_adjusted")  # a minus sign is no formula
LEGEND = (
    "≈: not significantly worse than the best (paired, 5 % over all pairs of a board). Intervals: 95 %. The page "
    "`leaderboard.html` has costs, classes, samples and every row's origin."
)
SHIPPED_LEGEND = "Rows marked † came with densebench: they were measured before, on another machine."
SHIPPED = "shipped with densebench"
MARKDOWN_HEADER_TAIL = ("95 % interval", "Δ to best")


def as_csv(boards: Sequence[Board], published: Sequence[PublishedNumber]) -> str:
    """Measured rows, then the published numbers, whose `source` names the paper."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for board in boards:
        for entry in board.entries:
            writer.writerow(_words_plain(_cells(board, entry)))
    for p in published:
        known = {"task": p.task, "dataset": p.dataset, "metric": p.metric, "value": repr(p.value), "source": p.source}
        writer.writerow(_words_plain({**known, "protocol": "published", "model": p.model}))
    return out.getvalue()


def _words_plain(cells: dict[str, object]) -> dict[str, object]:
    return {name: value if name in NUMBERS else plain_cell(value) for name, value in cells.items()}


def _cells(board: Board, entry: Entry) -> dict[str, object]:
    d, main, m, s = board.first.data, entry.row.main, entry.row.data.model, entry.standing
    return {
        "task": d.task.name, "dataset": d.task.dataset, "protocol": d.protocol.name,
        "protocol_hash": d.protocol.hash, "dataset_digest": d.task.dataset_digest,
        "metric": d.main_metric, "unit": main.unit, "higher_is_better": main.higher_is_better,
        "n": board.total_samples, "rank": s.rank, "tied_with_best": s.tied, "model": entry.name,
        "store": entry.row.store or "",
        "family": m.family, "params": m.params, "licence": m.licence,
        "value": repr(main.value), "ci95_low": repr(main.ci95[0]), "ci95_high": repr(main.ci95[1]),
        "chance": "" if main.chance is None else repr(main.chance),
        "delta_to_best": f"{s.delta:.6g}", "p_adjusted": f"{s.p:.4g}",
        "weights_sha256": m.weights.sha256, "source": SHIPPED if entry.shipped else "measured",
        "stale": entry.row.stale,
    }  # fmt: skip


def as_markdown(boards: Sequence[Board], problems: Sequence[str]) -> str:
    """One table for each board: rows of different protocol hashes or datasets never share one."""
    made = f"densebench {package_version('densebench') or 'source'}"
    lines = ["# Leaderboard", "", made + (f", newest row of {day}" if (day := newest(boards)) else ""), "", LEGEND, ""]
    if any(e.shipped for b in boards for e in b.entries):
        lines += [SHIPPED_LEGEND, ""]
    if any(e.row.stale for b in boards for e in b.entries):
        lines += [LEGEND_OF_STALE, ""]
    for board in boards:
        d, main = board.first.data, board.first.main
        metric = f"{d.main_metric} {main.unit}".strip() + (" ↑" if main.higher_is_better else " ↓")
        protocol = f"protocol `{escape(d.protocol.name)}` `{d.protocol.hash[:8]}`"
        lines += [f"## {escape(board.unit)}", "", f"{escape(metric)}, {protocol}, n = {board.total_samples}", ""]
        rows = [_markdown_cells(e, main.unit) for e in board.entries]
        if chance := chance_of((e.row for e in board.entries), d.main_metric, number):
            rows.append(("", "*chance*", chance, "", ""))
        if top := ceilings([e.row for e in board.entries]).get(d.main_metric):
            rows.append(("", "*ceiling*", " – ".join(dict.fromkeys(number(v, main.unit) for v in top)), "", ""))
        lines += [
            *table(("", "model", d.main_metric, *MARKDOWN_HEADER_TAIL), rows),
            *stale_lines((e.row for e in board.entries), "- "),
            "",
        ]
        if said := disagreement([(e.name, e.row) for e in board.entries]):
            lines += [f"{escape(said)}.", ""]
    if problems:
        lines += ["## Left out", "", *(f"- {escape(p)}" for p in problems), ""]
    return "\n".join(lines)


def _markdown_cells(entry: Entry, unit: str) -> tuple[str, ...]:
    s, main = entry.standing, entry.row.main
    value, low, high = (number(v, unit) for v in (main.value, *main.ci95))
    mark = "1" if s.rank == 1 else f"{s.rank} ≈" if s.tied else str(s.rank)
    return (
        mark,
        entry.name + (" †" if entry.shipped else "") + (f" {MARK}" if entry.row.stale else ""),
        value,
        f"{low} – {high}",
        number(s.delta, unit, signed=True) if s.rank > 1 else "",
    )
