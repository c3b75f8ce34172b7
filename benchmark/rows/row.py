"""Rows on disk: `results/<model>/<task>/<dataset>/<protocol>-<hash8>/{samples.parquet, result.json}`.

`result.json` is written last and atomically: a folder without it is not a result. It holds the sha256 of its samples
and its own. A row of before it held its own (schema 1) is held against its samples: its values are computed again.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import Outcome
from benchmark.errors import BenchError, first_line
from benchmark.rows.parse import Misfit
from benchmark.rows.schema import SEALED, Metric, RowData, parse_row
from benchmark.rows.stale import reason
from benchmark.statistics.statistic import Statistic
from benchmark.system import sealed
from benchmark.system.digest import fingerprint, sha256_file
from benchmark.system.escaping import writable_text
from benchmark.system.files import only_writer, utf8, write_together

STORE = "float16"  # how dense features are kept where --store does not say
VARIANTS = "sensitivity"  # below the results folder: rows of variants of a preset, which no table shows
HEAD = "head.safetensors"  # beside a row: its trained head (benchmark.heads.kept)
HISTORY = "history"  # beside a row: what lay in its place before data or code changed
LONGEST_NAME = 120  # other words stand before and after it in the names of folders and pictures


@dataclass(frozen=True)
class Row:
    """One result: what its `result.json` holds, and the folder it stands in."""

    data: RowData
    folder: Path

    def __repr__(self) -> str:
        value = f"{self.data.main_metric} {self.main.value:.4g} {self.main.unit}".strip()
        return f"<Row {self.model} on {self.unit} by {self.data.protocol.name}: {value}, n = {self.data.task.n}>"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{m.value:.4g} [{m.ci95[0]:.4g}, {m.ci95[1]:.4g}] "
            f"{html.escape(m.unit)}</td></tr>"
            for name, m in self.data.metrics.items()
        )
        return f"<b>{html.escape(repr(self)[1:-1])}</b><table>{cells}</table>"

    @property
    def model(self) -> str:
        return self.data.model.name

    @property
    def unit(self) -> str:
        return f"{self.data.task.name}/{self.data.task.dataset}"

    @property
    def protocol_hash(self) -> str:
        return self.data.protocol.hash

    @property
    def main(self) -> Metric:
        """The main metric."""
        return self.data.metrics[self.data.main_metric]

    @property
    def part(self) -> bool:
        """Whether it was measured on a part of the data: --limit, or a split that was not whole."""
        return bool(self.data.task.limit or self.data.partial)

    @property
    def store(self) -> str | None:
        """How dense features were kept, as --store says it; None for a row that does not say."""
        return self.data.model.stored_as

    @property
    def variant(self) -> str:
        """What its folder says beside protocol and hash: "seed1", "bfloat16", "store-int8"; mostly empty.

        Rows from before the store was part of their place say it by their data.
        """
        name = self.folder.name.removesuffix(f"-{self.protocol_hash[:8]}")
        words = name.removeprefix(slug(self.data.protocol.name)).strip("-")
        store = f"store-{self.store}"
        return words if self.store in (None, STORE) or store in words else f"{words}-{store}".strip("-")

    @cached_property
    def stale(self) -> str:
        """Why today's code would not give this row again; empty where it would, or where that cannot be told."""
        return reason(self.data)

    def statistic(self, metric: str | None = None) -> Statistic:
        """How `metric` (default: the main one) is computed from `samples`."""
        return self.data.metrics[metric or self.data.main_metric].statistic

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        """Column -> [N] or [N, C] array of the per-sample statistics. Raises BenchError naming a damaged file."""
        samples = read_samples(self.folder / "samples.parquet", self.data.samples_sha256)
        if not self._sealed:
            self._check_values(samples)
        return samples

    def check_against_samples(self) -> None:
        """For a row of before rows were sealed: raises BenchError when its values are not those of its samples.

        Samples that have gone say nothing."""
        if not self._sealed and (self.folder / "samples.parquet").is_file():
            _ = self.samples
            self.__dict__.pop("samples")

    @property
    def _sealed(self) -> bool:
        return self.data.schema >= SEALED

    def _check_values(self, samples: Mapping[str, np.ndarray]) -> None:
        """Raises BenchError when a value is not what `samples` give."""
        for name, metric in self.data.metrics.items():
            found: object = None
            try:
                found = value = metric.statistic.of(samples)
                if math.isclose(value, metric.value, rel_tol=1e-9, abs_tol=1e-12):
                    continue
            except Exception as e:  # columns that are not there, or are no numbers
                found = first_line(e)
            raise BenchError(
                f"{self.folder / 'result.json'}: is damaged: {name} is {metric.value}, its samples give {found}. "
                "Run the same bench run again"
            )

    def has_its_samples(self) -> bool:
        """Whether the samples on disk are those it was written with, and its values theirs."""
        try:
            if self._sealed:
                return sha256_file(self.folder / "samples.parquet") == self.data.samples_sha256
            return bool(self.samples)
        except (BenchError, OSError):
            return False


def slug(text: str) -> str:
    """`text` as a folder name: letters, digits, `.`, `_`, `-`, `@`; other runs become one `-`.

    A file system takes 255 bytes: of a longer name the start is kept, with six digits of the whole.
    """
    name = re.sub(r"[^A-Za-z0-9._@-]+", "-", text).strip("-.") or "unnamed"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 7]}-{fingerprint(text)[:6]}"


def row_folder(results: Path, model: str, task: str, dataset: str, protocol: str, digest: str) -> Path:
    """Where the row of this model and unit lies."""
    return results / slug(model) / slug(task) / slug(dataset) / f"{slug(protocol)}-{digest[:8]}"


def metrics_of(outcome: Outcome, seed: int) -> dict[str, Metric]:
    """The `metrics` of a row: every measurement with its value and bootstrap interval.

    Raises BenchError when a value is not finite: a NaN never becomes a score.
    """
    from benchmark.statistics.bootstrap import interval

    out = {}
    for m in outcome.measurements:
        value = m.statistic.of(outcome.samples)
        if not np.isfinite(value):
            raise BenchError(
                f"{m.name} is {value}: nothing was left to measure. Check the labels with bench data verify"
            )
        low, high = interval(outcome.samples, m.statistic, seed=seed)
        out[m.name] = Metric(
            value=value,
            ci95=(float(low), float(high)),
            higher_is_better=m.higher_is_better,
            unit=m.unit,
            chance=outcome.chance(m),
            statistic=m.statistic,
        )
    return out


def save(folder: Path, data: RowData, samples: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> None:
    """Writes one row with `files` (curves, pictures) beside it; an older row is replaced when the new one is whole on
    disk, and stops being one before it changes. Raises BenchError when the disk is full: the older one then stays.

    Two processes that write one row do so one after the other, and `result.json` holds the sha256 of its samples, so
    that a row is never one's values with the other's samples.
    """
    with only_writer(folder):
        for left in folder.rglob(".*.tmp"):  # of a process that was killed while it wrote: no other writes here now
            left.unlink(missing_ok=True)
        columns = samples_file(samples)
        row = replace(data, samples_sha256=hashlib.sha256(columns).hexdigest()).json()
        contents = {"samples.parquet": columns, **(files or {})}
        whole = utf8(json.dumps(row, indent=1, ensure_ascii=False) + "\n")
        replaced = _predecessor(folder, data)
        contents |= replaced
        contents["result.json"] = sealed.json_file(row) if data.schema >= SEALED else whole
        put(folder, contents, [HEAD] if replaced else [])  # a head of the older numbers


def put(folder: Path, contents: Mapping[str, bytes], gone: Iterable[str] = ()) -> None:
    """The files of a row in their places, all or none; pictures and what is `gone` that are not among them go."""
    older = {f"pictures/{path.name}" for path in folder.glob("pictures/*")} | {*gone}

    def clear() -> None:
        for name in ("result.json", *(older - contents.keys())):
            (folder / name).unlink(missing_ok=True)

    write_together(folder, contents, clear)


def _predecessor(folder: Path, data: RowData) -> dict[str, bytes]:
    """The `result.json` that `data` takes the place of, by its name in the history; nothing where both say the same."""
    try:
        old = read_row(folder)
        said = (folder / "result.json").read_bytes()
    except (BenchError, OSError):  # there is none, or a damaged one
        return {}
    values = [{name: metric.value for name, metric in one.metrics.items()} for one in (old.data, data)]
    if old.data.request == data.request and values[0] == values[1]:
        return {}
    return {f"{HISTORY}/{slug(old.data.created)}-{old.data.id}.json": said}


def samples_file(samples: Mapping[str, Any]) -> bytes:
    """Columns as a parquet file; [N, C] arrays become fixed-size lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name, values in samples.items():
        array = np.asarray(values)
        if array.ndim == 2:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
        else:
            columns[name] = pa.array(_plain_words(array) if array.dtype.kind in "OU" else array)
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, compression="zstd")
    return content.getvalue()


def _plain_words(values: np.ndarray) -> list[Any]:
    return [writable_text(value) if isinstance(value, str) else value for value in values.tolist()]


def read_samples(path: Path, sha256: str = "") -> dict[str, np.ndarray]:
    """The inverse of `samples_file`. Raises BenchError naming the file when it is missing, damaged or not the one
    of this `sha256`, where that is known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise OSError("it is not the file that result.json was written for")
        with pq.ParquetFile(pa.BufferReader(content)) as file:  # not pq.read_table, which imports pandas: 3 s
            table = file.read(use_threads=False)
    except (OSError, pa.ArrowException) as e:
        raise BenchError(
            f"{path}: cannot be read ({str(e).splitlines()[0]}). Run the same bench run with --force"
        ) from None
    out = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            out[name] = np.asarray(column.flatten()).reshape(len(column), column.type.list_size)
        else:
            out[name] = np.asarray(column.to_pylist()) if pa.types.is_string(column.type) else np.asarray(column)
    return out


def read_row(path: Path) -> Row:
    """The row of a `result.json` or its folder. Raises BenchError naming the file when it is no whole row."""
    file = path / "result.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise BenchError(f"{file}: cannot be read as a result ({first_line(e)}). Delete it and run again") from None
    try:
        row = parse_row(data)
    except Misfit as e:
        raise BenchError(f"{file}: {e}") from None
    sealed.check_seal(file, data, since=SEALED)
    return Row(row, file.parent)


def read_all(results: Path) -> tuple[list[Row], list[str]]:
    """Every whole row under `results`, and one line for each file that was left out."""
    rows, problems = [], []
    for file in sorted(row_files(results)):
        try:
            row = read_row(file)
            row.check_against_samples()
            rows.append(row)
        except BenchError as e:
            problems.append(str(e))
    return rows, problems


def half_written(samples: Iterable[Path]) -> list[str]:
    """One line for each of these `samples.parquet` that has no `result.json` beside it."""
    return [
        f"{file.parent}: half-written: there is no result.json beside its samples. Run the same bench run again"
        for file in sorted(samples)
        if not (file.parent / "result.json").is_file()
    ]


def row_files(results: Path) -> dict[Path, int]:
    """Every `result.json` where rows lie, with the time of its last change."""
    found = {}
    for file in results.glob("*/*/*/*/result.json"):
        with suppress(OSError):  # one that is being replaced
            found[file] = file.stat().st_mtime_ns
    return found
