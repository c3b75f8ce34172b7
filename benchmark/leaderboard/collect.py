"""Rows to boards: a board holds the rows that may be compared, and only those."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark.compare.classes import class_iou, class_names
from benchmark.compare.compare import sample_ids
from benchmark.compare.sides import WATCHED
from benchmark.errors import first_line
from benchmark.leaderboard.merge import merged
from benchmark.leaderboard.standing import Standing, standings
from benchmark.rows.row import VARIANTS, Row, half_written, read_all
from benchmark.rows.shipped import FOLDER, beside, key_of
from benchmark.statistics.jackknife import influence

SAMPLES_SHOWN = 160  # of each board, evenly spaced; all of them decide intervals and ties
DAY = re.compile(r"\d{4}-\d\d-\d\d")
ROW_DEPTH = 5  # parts of MODEL/TASK/DATASET/PROTOCOL-HASH/result.json
NUMBERS_SHOWN = 400_000  # per-sample and per-class numbers in the whole page


@dataclass
class Entry:
    """One row on a board."""

    row: Row
    variant: str  # `Row.variant`
    standing: Standing = field(default_factory=Standing)  # known when all rows of the board are
    classes: list[float] | None = None  # IoU in percent, NaN where a class never occurs
    samples: list[float] | None = None  # the metric of single samples
    shipped: bool = False  # a row that came with densebench, not measured by the user
    drawn: Path | None = None  # the shipped row whose pictures stand for it, as it has none of its own

    @property
    def name(self) -> str:
        return f"{self.row.model} · {self.variant}" if self.variant else self.row.model


@dataclass
class Board:
    """Rows of one unit, protocol hash, dataset digest and main metric, best first."""

    unit: str
    first: Row
    entries: list[Entry] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    sample_ids: list[str] = field(default_factory=list)
    total_samples: int = 0


def collect(results: Path | Sequence[Path], reference: Path | None = None) -> tuple[list[Board], list[str]]:
    """Every board of the rows under `results`, one folder or several, and of those under `reference` (the shipped ones)
    that they lack.

    Beside the boards: one line for each file that was left out and for each row that two folders have unlike.
    """
    folders = [results] if isinstance(results, Path) else list(results)
    rows, problems = merged(folders)
    problems += [line for folder in folders for line in _unfinished(folder)]
    reference = None if reference in folders else reference
    shipped, damaged = beside(rows, reference)
    drawn = _shipped_pictures(rows, reference)
    came = {row.folder for row in shipped}
    rows, problems = rows + shipped, problems + damaged
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    budget = NUMBERS_SHOWN // max(len(rows), 1)
    boards = [_board(groups[key], budget, problems) for key in sorted(groups)]
    for entry in (e for b in boards for e in b.entries):
        entry.shipped, entry.drawn = entry.row.folder in came, drawn.get(entry.row.folder)
    return [b for b in boards if b.entries], sorted(problems)


def newest(boards: Sequence[Board]) -> str:
    """The day on which the newest row was made, ISO 8601: the day of building would make other bytes."""
    days = [e.row.data.created[:10] for b in boards for e in b.entries]
    return max((day for day in days if DAY.fullmatch(day)), default="")


def _shipped_pictures(rows: Sequence[Row], reference: Path | None) -> dict[Path, Path]:
    """Folder of a row without pictures -> the shipped row of the same measurement that has some."""
    if reference is None or not reference.is_dir() or not any(reference.glob("*/*/*/*/pictures")):
        return {}
    there = {key_of(row): row.folder for row in read_all(reference)[0] if (row.folder / "pictures").is_dir()}
    without = [row for row in rows if key_of(row) in there and not (row.folder / "pictures").is_dir()]
    return {row.folder: there[key_of(row)] for row in without}


def _unfinished(results: Path) -> list[str]:
    """Rows that were being written when something stopped, and result files that lie where no row belongs."""
    halves = half_written(results.glob("*/*/*/*/samples.parquet"))
    strays = [
        f"{file}: left out: rows lie at MODEL/TASK/DATASET/PROTOCOL-HASH/result.json"
        for file in sorted(results.rglob("result.json"))
        if len(parts := file.relative_to(results).parts) != ROW_DEPTH and parts[0] not in (WATCHED, FOLDER, VARIANTS)
    ]
    return halves + strays


def _key(row: Row) -> tuple[str, ...]:
    d = row.data
    return (row.unit, d.protocol.name, row.protocol_hash, str(d.task.dataset_digest), d.main_metric)


def _board(rows: list[Row], budget: int, problems: list[str]) -> Board:
    """The board of rows that share a key; rows whose samples are damaged or differ are named and left out."""
    rows = sorted(rows, key=lambda r: (r.model, r.folder.name))
    kept, moves, ids, units = [], [], None, None
    rows = _of_one_statistic(rows, problems)
    board = Board(rows[0].unit, rows[0])
    for row in rows:
        try:
            found, move = sample_ids(row), influence(row.samples, row.statistic())
        except Exception as e:  # a foreign row may hold anything; the others are shown
            problems.append(f"{row.folder}: left out: samples.parquet does not fit its result.json ({first_line(e)})")
            continue
        if ids is None:
            ids, units = found, clusters(row)
        elif not np.array_equal(ids, found):
            problems.append(f"{row.folder}: left out: its samples are not those of {kept[0].folder} (same digest)")
            continue
        kept.append(row)
        moves.append(move)
        board.entries.append(_entry(row, budget))
        row.__dict__.pop("samples", None)  # memory stays that of one board
    if ids is None:
        return board
    board.total_samples = len(ids)
    board.sample_ids = [str(i) for i in ids[shown(len(ids), budget)]]
    board.class_names = class_names(kept[0], len(board.entries[0].classes or ()))
    values = np.array([r.main.value for r in kept])
    ranked = standings(values, np.stack(moves), kept[0].main.higher_is_better, units)
    for entry, standing in zip(board.entries, ranked):
        entry.standing = standing
    board.entries.sort(key=lambda e: (e.standing.rank, e.name))
    return board


def _of_one_statistic(rows: list[Row], problems: list[str]) -> list[Row]:
    """The rows whose main metric is computed and resampled as the newest row's; older ways are named and left out."""
    statistic = max(rows, key=lambda r: r.data.created).statistic()
    problems += [
        f"{row.folder}: left out: an older densebench computed or resampled {row.data.main_metric} in another way. "
        "Run the same bench run with --force"
        for row in rows
        if row.statistic() != statistic
    ]
    return [row for row in rows if row.statistic() == statistic]


def clusters(row: Row) -> int | None:
    """How many clusters the samples of the main metric form; None where each stands alone."""
    column = row.statistic().cluster
    return None if column is None else len(np.unique(np.asarray(row.samples[column])))


def shown(total: int, budget: int) -> np.ndarray:
    """Positions of the samples that the page shows."""
    count = min(total, SAMPLES_SHOWN, max(budget // 2, 12))
    return np.linspace(0, total - 1, count).round().astype(int)


def _entry(row: Row, budget: int) -> Entry:
    statistic = row.statistic()
    matrix = statistic.matrix(row.samples)
    picked = statistic.value(matrix[shown(len(matrix), budget)])
    iou = class_iou(row, row.data.main_metric)
    classes = [float(v) for v in iou] if iou is not None and len(iou) <= max(budget // 2, 12) else None
    return Entry(row=row, variant=row.variant, classes=classes, samples=[float(v) for v in picked])
