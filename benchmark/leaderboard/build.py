"""Builds the three files of the leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import BenchError, UsageError
from benchmark.leaderboard.collect import collect
from benchmark.leaderboard.page import page
from benchmark.leaderboard.payload import payload
from benchmark.leaderboard.tables import as_csv, as_markdown
from benchmark.rows.published import PublishedNumber, read_published
from benchmark.system.files import only_writer, write_text

NAMES = ("leaderboard.html", "leaderboard.csv", "leaderboard.md")


@dataclass(frozen=True)
class Built:
    """What was written, and what was left out of it."""

    paths: tuple[Path, ...]
    rows: int
    boards: int
    shipped: int  # of the rows: those that come with densebench
    problems: tuple[str, ...]


def build(results: Path, out: Path | None = None, reference: Path | None = None) -> Built:
    """Writes leaderboard.html, .csv and .md into `out` (default: `results`).

    `reference` adds the rows that come with densebench and the published numbers beside them where `results` has none.
    Damaged, half-written and foreign files are named in the page and left out. Under the folder's lock: of several
    processes the last to write has read every row. Raises UsageError when there is no row and no published number at
    all.
    """
    with only_writer(out or results):
        return _build(results, out or results, reference)


def _build(results: Path, out: Path, reference: Path | None) -> Built:
    boards, problems = collect(results, reference)
    published: list[PublishedNumber] = []
    try:
        published = read_published(results) or (read_published(reference.parent) if reference else [])
    except BenchError as e:
        problems.append(str(e))
    if not boards and not published:
        raise UsageError(f"{results}: no result to show. " + (problems[0] if problems else "Run bench run first"))
    texts = (
        page(payload(boards, published, problems, results, reference)),
        as_csv(boards, published),
        as_markdown(boards, [line.replace(f"{results}/", "") for line in problems]),
    )
    paths = tuple(out / name for name in NAMES)
    for path, text in zip(paths, texts):
        write_text(path, text)
    entries = [entry for board in boards for entry in board.entries]
    return Built(paths, len(entries), len(boards), sum(entry.shipped for entry in entries), tuple(problems))
