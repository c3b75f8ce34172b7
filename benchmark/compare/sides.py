"""What a word given to `bench compare` stands for: result files, folders, a model's name, or the published numbers."""

from __future__ import annotations

import difflib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.engine.identity import display_name, place_of_weights
from benchmark.errors import BenchError, UsageError
from benchmark.rows.row import VARIANTS, Row, half_written, read_row, slug
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

    A model's name stands for the user's rows where there are any, else for the shipped ones (`reference`). It may be
    what --model or --weights took: rows of `my_encoder.py:build` are found though they are called otherwise.
    Raises UsageError when there is none or when the rows belong to several models.
    """
    path, reference = Path(word), reference or reference_dir()
    if path.is_file() and path.suffix == ".py":
        raise UsageError(f"{word} is code. Name the function in it that was measured: {word}:FUNCTION")
    root = path
    if not path.exists() or not _holds_rows(path):
        exact = results / word
        places = [exact] if exact.is_dir() else [*_asked_for(word, results), reference / word]
        root = next((place for place in places if place.is_dir()), path)
        if not root.exists() or root in (results, reference):
            raise _nothing_called(word, results, reference)
    rows, problems = _rows_below(root)
    if not rows:
        raise UsageError(f"{word}: no result under {root}. " + (problems[0] if problems else "Run bench run first"))
    return Side(_only_model(word, rows), tuple(rows), tuple(problems), root)


def _holds_rows(path: Path) -> bool:
    return (path.is_file() and path.suffix == ".json") or any(path.rglob("result.json"))


def _asked_for(word: str, results: Path) -> list[Path]:
    """The folders below `results` of models that were asked for by `word`, as --model or as --weights, the ones with
    their own name first; with --name they are called otherwise, and say in their rows what they were asked for by."""
    names = [slug(word), slug(display_name(word, None))] if ":" in word else []
    behind = f"@{place_of_weights(word)}" if Path(word).exists() else None
    folders = [place for place in sorted(results.glob("*")) if place.is_dir()]
    found = [results / name for name in names]
    found += [place for place in folders if behind and place.name.endswith(behind)]
    for place in folders:
        asked = _asked(place)
        if asked and (asked == word or slug(asked) in names or (behind and asked.endswith(behind))):
            found.append(place)
    there = [place for place in dict.fromkeys(found) if place.is_dir()]
    if len(there) > 1:
        called = ", ".join(place.name for place in there)
        raise UsageError(f"{word} was measured under {len(there)} names: {called}. Give one of them")
    return there


def _asked(place: Path) -> str | None:
    """What the rows of a model's folder say it was asked for by, where --name gave it its name."""
    for file in place.glob("*/*/*/result.json"):
        with suppress(BenchError):
            return read_row(file).data.model.asked
    return None


def _rows_below(root: Path) -> tuple[list[Row], list[str]]:
    rows, problems = [], []

    def below(name: str) -> list[Path]:
        """Files of this name, in order; of a results folder not those of variants: they are no rows of its presets."""
        return [p for p in sorted(root.rglob(name)) if VARIANTS not in p.relative_to(root).parts]

    for file in [root] if root.is_file() else below("result.json"):
        try:
            rows.append(read_row(file))
        except BenchError as e:
            problems.append(str(e))
    return rows, problems + half_written([] if root.is_file() else below("samples.parquet"))


def _only_model(word: str, rows: list[Row]) -> str:
    models = sorted({r.model for r in rows})
    if len(models) > 1:
        raise UsageError(
            f"{word} holds rows of {len(models)} models ({', '.join(models[:6])}). Name one of its folders"
        )
    return models[0]


def _nothing_called(word: str, results: Path, reference: Path) -> UsageError:
    folders = [p for place in (results, reference) if place.is_dir() for p in place.iterdir() if p.is_dir()]
    known = sorted({p.name for p in folders} - {FOLDER, WATCHED, VARIANTS})
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    hint = (
        f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else f"There: {', '.join(known) or 'nothing'}"
    )
    return UsageError(f"{word!r} is neither a path nor a model with rows in {results}. {hint}")


def label(row: Row) -> str:
    """The protocol of a row as people see it: name and the first 8 digits of its hash."""
    return f"{row.data.protocol.name}-{row.protocol_hash[:8]}"
