"""Builds the three files of the leaderboard."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import UsageError
from benchmark.leaderboard.collect import collect
from benchmark.leaderboard.merge import shown_places, without_places
from benchmark.leaderboard.page import page
from benchmark.leaderboard.papers import paper_lines, read_papers
from benchmark.leaderboard.payload import payload, shown_effects
from benchmark.leaderboard.tables import as_csv, as_markdown
from benchmark.rows.shipped import FOLDER
from benchmark.system.files import only_writer, utf8, write_bytes

NAMES = ("leaderboard.html", "leaderboard.csv", "leaderboard.md")
BESIDE = "leaderboard"  # folder below the results, where git tracks the files in them


@dataclass(frozen=True)
class Built:
    """What was written, and what was left out of it."""

    paths: tuple[Path, ...]
    rows: int
    boards: int
    shipped: int  # of the rows: those that come with densebench
    problems: tuple[str, ...]
    kept: tuple[Path, ...] = ()  # files that git tracks and that were therefore left as they are


def build(
    results: Path | Sequence[Path], out: Path | None = None, reference: Path | None = None, force: bool = False
) -> Built:
    """Writes leaderboard.html, .csv and .md into `out` (default: the first of `results`).

    `reference` adds the rows that come with densebench and the published numbers beside them where `results` has none.
    Damaged, half-written and foreign files, and rows that two folders have with other values, are named in the page and
    left out. Files that git tracks are never changed unless `force` says so: without `out` the new ones then go into a
    folder of their own beside them. Under the folder's lock: of several processes the last to write has read every row.
    Raises UsageError when there is no row and no published number at all, and for an `out` with tracked files.
    """
    folders = [results] if isinstance(results, Path) else list(results)
    place = out or folders[0]
    with only_writer(place):
        contents, found = _files(folders, reference)
        kept = () if force else _tracked(place, contents)
        if kept and out:
            raise UsageError(f"{kept[0]}: git tracks it and it would be overwritten. Name another --out, or --force")
        if not kept:
            return _write(place, contents, found)
    with only_writer(place / BESIDE):
        if again := _tracked(place / BESIDE, contents):
            raise UsageError(f"{again[0]}: git tracks it and it would be overwritten. Name another --out, or --force")
        return _write(place / BESIDE, contents, found, kept)


def _write(place: Path, contents: Mapping[str, bytes], found: Built, kept: tuple[Path, ...] = ()) -> Built:
    paths = tuple(place / name for name in contents)
    for path, content in zip(paths, contents.values()):
        write_bytes(path, content)
    return Built(paths, found.rows, found.boards, found.shipped, found.problems, kept)


def _tracked(place: Path, contents: Mapping[str, bytes]) -> tuple[Path, ...]:
    """The files in `place` that git tracks and that `contents` would change."""
    there = [place / name for name, new in contents.items() if (place / name).is_file()]
    changed = [path for path in there if path.read_bytes() != contents[path.name]]
    if not changed or not any((above / ".git").exists() for above in (place, *place.absolute().parents)):
        return ()
    words = ["git", "-C", str(place), "ls-files", "-z", "--", *(path.name for path in changed)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return tuple(changed)  # no git to ask: rather too careful
    names = done.stdout.split("\0") if done.returncode == 0 else [path.name for path in changed]
    return tuple(path for path in changed if path.name in names)


def _files(folders: Sequence[Path], reference: Path | None) -> tuple[dict[str, bytes], Built]:
    """The contents of the three files, and what they hold."""
    boards, problems = collect(folders, reference)
    effects, lost = shown_effects(boards, folders)
    problems += lost
    (published, elsewhere), unreadable = read_papers(folders, reference)
    problems += unreadable
    if not boards and not published:
        where = ", ".join(map(str, folders))
        raise UsageError(f"{where}: no result to show. " + (problems[0] if problems else "Run bench run first"))
    places = dict(shown_places(folders))
    if reference:
        places.setdefault(reference, FOLDER)
    shown = [without_places(line, places) for line in problems]
    texts = (
        page(payload(boards, paper_lines(published, elsewhere), problems, places, effects)),
        as_csv(boards, published),
        as_markdown(boards, shown),
    )
    entries = [entry for board in boards for entry in board.entries]
    found = Built((), len(entries), len(boards), sum(entry.shipped for entry in entries), tuple(problems))
    return {name: utf8(text) for name, text in zip(NAMES, texts)}, found
