"""The leaderboard as CSV (one line for each row) and Markdown (one table for each board)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from benchmark.comparison_report import escape, number, table
from benchmark.leaderboard.collect import Board, Entry
from benchmark.sides import PublishedNumber

COLUMNS = (
    "task", "dataset", "protocol", "protocol_hash", "dataset_digest", "metric", "unit", "higher_is_better", "n", "rank", "tied_with_best",
    "model", "family", "params", "licence", "value", "ci95_low", "ci95_high", "delta_to_best", "p_adjusted", "weights_sha256",
    "source",
)  # fmt: skip


def as_csv(boards: Sequence[Board], published: Sequence[PublishedNumber]) -> str:
    """Measured rows, then the published numbers, whose `source` names the paper."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for board in boards:
        for entry in board.entries:
            writer.writerow(_cells(board, entry))
    for p in published:
        writer.writerow([p.task, p.dataset, "published", "", "", p.metric, "", "", "", "", "", _plain_cell(p.model), "", "", "",
                         repr(p.value), "", "", "", "", "", p.source])  # fmt: skip
    return out.getvalue()


def _cells(board: Board, entry: Entry) -> list[object]:
    d, main, s = board.first.data, entry.row.main, entry.standing
    m = entry.row.data["model"]
    return [
        d["task"]["name"], d["task"]["dataset"], d["protocol"]["name"], d["protocol"]["hash"], d["task"]["dataset_digest"],
        d["main_metric"], main["unit"], main["higher_is_better"], board.total_samples, s.rank, s.tied, _plain_cell(entry.name),
        m["family"], m["params"], m.get("licence", ""), repr(main["value"]), repr(main["ci95"][0]), repr(main["ci95"][1]),
        f"{s.delta:.6g}", f"{s.p:.4g}", m["weights"].get("sha256", ""), "measured",
    ]  # fmt: skip


def _plain_cell(text: str) -> str:
    """`text` so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def as_markdown(boards: Sequence[Board], problems: Sequence[str]) -> str:
    """One table for each board: rows of different protocol hashes or datasets never share one."""
    lines = ["# Leaderboard", "", "≈: not significantly worse than the best (paired, Holm, 5 %). "
             "Intervals: 95 %. The page `leaderboard.html` has costs, classes, samples and every row's origin.", ""]  # fmt: skip
    for board in boards:
        d, main = board.first.data, board.first.main
        unit = main["unit"]
        lines += [f"## {escape(board.unit)}", "", f"{escape(d['main_metric'])} {unit} {'↑' if main['higher_is_better'] else '↓'}, "
                  f"protocol `{escape(d['protocol']['name'])}` `{d['protocol']['hash'][:8]}`, n = {board.total_samples}", ""]  # fmt: skip
        rows = [_markdown_cells(e, unit) for e in board.entries]
        lines += [*table(("", "model", str(d["main_metric"]), "95 % interval", "Δ to best"), rows), ""]
    if problems:
        lines += ["## Left out", "", *(f"- {escape(p)}" for p in problems), ""]
    return "\n".join(lines)


def _markdown_cells(entry: Entry, unit: str) -> tuple[str, ...]:
    s, main = entry.standing, entry.row.main
    value = number(main["value"], unit)
    low, high = (number(v, unit) for v in main["ci95"])
    mark = "1" if s.rank == 1 else f"{s.rank} ≈" if s.tied else str(s.rank)
    return (mark, entry.name, value, f"{low} – {high}", number(s.delta, unit, signed=True) if s.rank > 1 else "")
