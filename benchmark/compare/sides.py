"""What a word given to `bench compare` stands for: result files, folders, a model's name, or the published numbers."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import BenchError, UsageError
from benchmark.rows.row import Row, half_written, read_row, slug
from benchmark.rows.shipped import FOLDER
from benchmark.system.paths import reference_dir

PUBLISHED = "published"
WATCHED = "watch"  # the folder of bench watch below the results folder


@dataclass(frozen=True)
class Side:
    """One side of a comparison: rows of one model, at most one for each unit and protocol."""

    name: str
    rows: tuple[Row, ...]
    problems: tuple[str, ...] = ()  # one line for each row below it that is damaged or half-written
    root: Path = Path()  # the folder or file they are of


def open_side(word: str, results: Path, reference: Path | None = None) -> Side:
    """The rows `word` names: a `result.json`, a folder with rows anywhere below, or a model's name under `results`.

    A model's name stands for the user's rows where there are any, else for the shipped ones (`reference`).
    Raises UsageError when there is none or when the rows belong to several models.
    """
    path, reference = Path(word), reference or reference_dir()
    if path.exists():
        rows, problems, root = *_rows_below(path), path
    else:
        names = (word, slug(word)) if ":" in word else (word,)  # `hf:owner/name` lies in `hf-owner-name`
        places = [results / name for name in names] + [reference / word]
        root = next((place for place in places if place.is_dir()), places[-1])
        if not root.is_dir() or root in (results, reference):
            raise _nothing_called(word, results, reference)
        rows, problems = _rows_below(root)
    if not rows:
        raise UsageError(f"{word}: no result under {root}. " + (problems[0] if problems else "Run bench run first"))
    return Side(_only_model(word, rows), tuple(rows), tuple(problems), root)


def _rows_below(root: Path) -> tuple[list[Row], list[str]]:
    rows, problems = [], []
    for file in [root] if root.is_file() else sorted(root.rglob("result.json")):
        try:
            rows.append(read_row(file))
        except BenchError as e:
            problems.append(str(e))
    return rows, problems + half_written([] if root.is_file() else root.rglob("samples.parquet"))


def _only_model(word: str, rows: list[Row]) -> str:
    models = sorted({r.model for r in rows})
    if len(models) > 1:
        raise UsageError(
            f"{word} holds rows of {len(models)} models ({', '.join(models[:6])}). Name one of its folders"
        )
    return models[0]


def _nothing_called(word: str, results: Path, reference: Path) -> UsageError:
    folders = [p for place in (results, reference) if place.is_dir() for p in place.iterdir() if p.is_dir()]
    known = sorted({p.name for p in folders} - {FOLDER, WATCHED})
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    hint = (
        f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else f"There: {', '.join(known) or 'nothing'}"
    )
    return UsageError(f"{word!r} is neither a path nor a model with rows in {results}. {hint}")
