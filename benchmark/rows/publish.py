"""`bench publish`: rows made ready for a pull request to a repository of results, and such a request checked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmark.errors import BenchError, UsageError, first_line
from benchmark.rows.parse import Misfit
from benchmark.rows.private import private_texts, scrubbed
from benchmark.rows.row import Row, half_written, put, read_row, row_files, slug
from benchmark.rows.schema import parse_row
from benchmark.system import sealed
from benchmark.system.digest import fingerprint
from benchmark.system.files import only_writer
from benchmark.system.plurals import number_of

DIGITS = 8  # of the protocol's hash, in a folder's name


@dataclass
class Publication:
    """What was found, and what was written where."""

    rows: dict[Path, Row] = field(default_factory=dict)  # place below the folder -> the row as it was
    states: dict[Path, str] = field(default_factory=dict)  # new, as accepted, or what has changed
    notes: dict[str, list[str]] = field(default_factory=dict)  # what a reviewer should know -> of which rows
    refused: list[str] = field(default_factory=list)  # one line for each row or file that was not taken

    def note(self, why: str, place: Path) -> None:
        """Adds a row to those of which `why` is so."""
        self.notes.setdefault(why, []).append(place.as_posix())


def publish(
    results: Path, to: Path | None, accepted: Path | None = None, samples: bool = True, pictures: bool = False
) -> Publication:
    """Copies every sound row of `results` into `to`, without what is private; without `to` nothing is written and what
    is private is a reason to refuse.

    A row is sound when it fits the schema, its seals hold, it lies where its content says, its protocol's hash is that
    of its fields, and its values are what its samples give. `accepted` (default: `to`) is what each row is set beside.
    Raises UsageError where there is no row at all or `to` lies in `results`.
    """
    there = results.resolve()
    if to is not None and (to.resolve().is_relative_to(there) or there.is_relative_to(to.resolve())):
        raise UsageError(f"--to {to}: lies in {results}, or around it. Name a folder of the results repository")
    found = Publication(refused=half_written(results.glob("*/*/*/*/samples.parquet")))
    for file in sorted(row_files(results)):
        place = file.parent.relative_to(results)
        try:
            row = read_row(file)
            _check(row, place, samples)
            body = _body(row, found, place, keep=to is None)
        except BenchError as e:
            found.refused.append(str(e) if str(e).startswith(str(file.parent)) else f"{file.parent}: refused: {e}")
            continue
        found.rows[place] = row
        beside = accepted or to
        found.states[place] = _state(row, beside / place) if beside else ""
        for why in remarks(row):
            found.note(why, place)
        if to is not None:
            _write(row, to / place, body, samples, pictures, found)
    if accepted:
        for file in sorted(row_files(accepted)):
            place = file.parent.relative_to(accepted)
            if not (results / place / "result.json").is_file():
                found.note("accepted, and gone here", place)
    if not found.rows and not found.refused:
        raise UsageError(f"{results}: no row to publish. Rows are where bench run --results put them")
    return found


def _check(row: Row, place: Path, samples: bool) -> None:
    """Raises BenchError for a row that is not what it says."""
    d = row.data
    name = place.parts[-1]
    begins = tuple(slug(word) for word in (row.model, d.task.name, d.task.dataset))
    if place.parts[:3] != begins or not (
        name.startswith(slug(d.protocol.name)) and name.endswith(d.protocol.hash[:DIGITS])
    ):
        raise BenchError(
            f"it lies at {place.as_posix()}, but is {'/'.join(begins)} by {d.protocol.name}-{d.protocol.hash[:DIGITS]}"
        )
    values = {key: entry.value for key, entry in d.protocol.fields.items()}
    digest = fingerprint({"task": d.task.name, "schema": d.protocol.schema, "fields": values})
    if d.protocol.schema and d.protocol.fields and digest != d.protocol.hash:
        raise BenchError("the protocol's hash is not that of its fields")
    if not samples and not (row.folder / "samples.parquet").is_file():
        return
    for metric, facts in d.metrics.items():
        try:
            value = facts.statistic.of(row.samples)
        except BenchError:
            raise
        except Exception as e:  # a stranger's columns
            raise BenchError(f"{metric} cannot be computed from its samples ({first_line(e)})") from None
        if not math.isclose(value, facts.value, rel_tol=1e-9, abs_tol=1e-12):
            raise BenchError(f"{metric} is {facts.value:.10g}, its samples give {value:.10g}")
    if private := private_texts(_texts(row.samples)):
        raise BenchError(
            f"its samples hold a private path or name ({private!r}). Measure it from a folder of that data"
        )


def _texts(samples: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name, column in samples.items():
        yield name
        if column.dtype.kind in "OU":
            yield from (str(value) for value in np.unique(column.astype(str)))


def _body(row: Row, found: Publication, place: Path, keep: bool) -> bytes:
    """`result.json` without what is private. Raises BenchError where that is what the row is called, or, with `keep`,
    where there is any."""
    lost: dict[str, None] = {}
    data = scrubbed(json.loads(json.dumps(row.data.json())), lambda name: lost.setdefault(name))
    named = [
        f for f in ("model.name", "task.name", "task.dataset", "main_metric", "metrics", "protocol.name") if f in lost
    ]
    if named:
        raise BenchError(f"{named[0]} holds a private path or name. Measure it again with --name, or another --task")
    if keep and lost:
        raise BenchError(f"private paths or names in {', '.join(lost)}: make it ready with bench publish --to")
    if lost:
        found.note(f"private, and removed, in {', '.join(lost)}", place)
    data.pop(sealed.SEAL, None)
    try:
        parse_row(data)
    except Misfit as e:
        raise BenchError(str(e)) from None
    return sealed.json_file(data)


def remarks(row: Row) -> list[str]:
    """What a reviewer should know of a row that is sound."""
    d = row.data
    words = [f"stale: {row.stale}"] if row.stale else []
    if d.task.limit:
        words.append(f"a part of the data: --limit {d.task.limit}")
    words += [f"a part of the data: {part}" for part in d.partial]
    if d.n_bad:
        words.append(f"{number_of(d.n_bad, 'picture')} left out")
    if d.environment.densebench.dirty:
        words.append("made by a densebench whose files differ from its commit")
    return words


def _state(row: Row, accepted: Path) -> str:
    """Beside the accepted row of the same place: new, as accepted, or what has changed."""
    if not (accepted / "result.json").is_file():
        return "new"
    try:
        before = read_row(accepted).data
    except BenchError as e:
        return f"in place of one that cannot be read ({first_line(e)})"
    name = row.data.main_metric
    if name not in before.metrics:
        return f"changed: {name} is new"
    old, new = before.metrics[name], row.data.metrics[name]
    weights = ", other weights" if before.model.weights.sha256 != row.data.model.weights.sha256 else ""
    data = ", other data" if before.task.dataset_digest != row.data.task.dataset_digest else ""
    same = {n: m.value for n, m in before.metrics.items()} == {n: m.value for n, m in row.data.metrics.items()}
    if same and not weights and not data:
        return "as accepted"
    return f"changed: {name} {old.value:.6g} → {new.value:.6g}{weights}{data}"


def _write(row: Row, folder: Path, body: bytes, samples: bool, pictures: bool, found: Publication) -> None:
    """The row in its place; an older one there is replaced, what it kept and this one does not is removed."""
    contents: dict[str, bytes] = {}
    if samples:
        contents["samples.parquet"] = (row.folder / "samples.parquet").read_bytes()
    drawn: list[Path] = sorted((row.folder / "pictures").glob("*")) if pictures else []
    named: Callable[[Path], bool] = lambda file: private_texts(iter([file.name])) is None  # noqa: E731
    for file in filter(named, drawn):
        contents[f"pictures/{file.name}"] = file.read_bytes()
    if left := [file.name for file in drawn if not named(file)]:
        found.note(f"pictures with a private name, left out: {len(left)}", row.folder)
    contents["result.json"] = body
    with only_writer(folder):
        put(folder, contents, ["samples.parquet"])
    with suppress(OSError):  # there is none, or it holds pictures
        (folder / "pictures").rmdir()
