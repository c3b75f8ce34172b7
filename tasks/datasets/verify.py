"""`bench data verify`: is what is on disk the official data set? Archives, counts, digests, sizes, labels, damage."""

from __future__ import annotations

import collections
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contracts import (
    CorrespondenceData,
    Dataset,
    ImageSamples,
    LabelData,
    RetrievalData,
    SegmentationData,
    ignored_label,
)
from benchmark.data.tolerance import tolerating
from benchmark.errors import BenchError, DataError, first_line, reading, staying
from tasks.datasets.catalog import expected
from tasks.datasets.known import difference, known, present

SAMPLE = 2000  # pictures of a larger split that are read unless all are asked for
CHUNK = 64  # pictures a worker reads at a time
LARGE = 20_000_000_000  # bytes; an archive above this is read only when everything is


@dataclass
class SplitReport:
    """What was found in one kind of data of one split, or in an archive (of kind "archive", `split` is its name)."""

    kind: str
    split: str
    found: int = 0
    expected: int | None = None
    read: int = 0  # pictures (and targets) that were decoded
    digest: str = ""
    sizes: dict[str, int] = field(default_factory=dict)  # "640x480" -> pictures read
    labels: dict[str, int] = field(default_factory=dict)  # class name -> pixels or pictures
    values: str = ""  # range of depth, share of valid pixels
    unreadable: list[str] = field(default_factory=list)  # one line each
    notes: list[str] = field(default_factory=list)  # files left out by their names, names that are alike …
    missing: str = ""  # why the split could not be opened

    @property
    def of(self) -> str:
        """What is counted."""
        return "pairs" if self.kind == "correspondence" and " " not in self.split else "pictures"

    @property
    def complete(self) -> bool:
        """Whether the split opened, has its official count, and everything that was read could be read."""
        return not self.missing and not self.unreadable and self.expected in (None, self.found)


def verify(
    dataset: Dataset,
    *,
    everything: bool = False,
    workers: int = 1,
    progress: Callable[[str, int], Any] | None = None,
    options: dict[str, str] | None = None,
    data: Path | None = None,
) -> Iterator[SplitReport]:
    """One report for each archive under `data` with a digest on record and each kind and split, as they are finished.

    Up to SAMPLE pictures, evenly spread, are decoded with their targets; `everything` decodes all.
    """
    info = dataset.info
    for path in present(info.name, data) if data else []:
        yield _archive(path, everything, progress)
    for kind in info.kinds:
        for split in info.splits if kind not in ("retrieval", "correspondence") else ("test",):  # nothing is trained
            yield from _split(dataset, kind, split, everything, workers, progress, options or {})


def _split(
    dataset: Dataset,
    kind: str,
    split: str,
    everything: bool,
    workers: int,
    progress: Callable[[str, int], Any] | None,
    options: dict[str, str],
) -> Iterator[SplitReport]:
    name = dataset.info.name
    try:
        with staying(), tolerating(part=True) as allowed:  # counts are reported here, not refused
            data = dataset.samples(kind, split)
        count = len(data)
        official = None if _part_only(options) else expected(name, split, kind)
        report = SplitReport(kind, split, count, official, digest=data.digest, notes=allowed.notes)
    except BenchError as e:
        yield SplitReport(kind, split, expected=expected(name, split, kind), missing=str(e))
        return
    except OSError:  # a folder that may not be read is named by whoever asked
        raise
    except Exception as e:  # of a reader in another package
        yield SplitReport(kind, split, missing=f"{name}: {type(e).__name__}: {first_line(e)}")
        return
    if isinstance(data, ImageSamples):
        _read(data, report, everything, workers, progress)
        yield report
        return
    if isinstance(data, CorrespondenceData):
        report.read, report.labels = count, dict(collections.Counter(data.categories))
        report.values = f"{sum(len(data.points(i)[0]) for i in range(count)):,} points"
        yield report
    if not isinstance(data, RetrievalData):  # whatever its samples are, their pictures are read
        for place, images in data.pictures().items():
            part = SplitReport(kind, f"{split} {place}", len(images), digest=images.digest)
            _read(_Plain(images), part, everything, workers, progress)
            yield part
        return
    _read(_Plain(data.queries), report, everything, workers, progress)
    report.labels = dict(collections.Counter(data.query_domains))
    yield report
    index = SplitReport(
        kind, f"{split} index", len(data.index), None if _part_only(options) else expected(name, "test_index")
    )
    _read(_Plain(data.index), index, everything, workers, progress)
    index.digest, index.labels = data.index.digest, dict(collections.Counter(data.index_domains))
    yield index


def _archive(path: Path, everything: bool, progress: Callable[[str, int], Any] | None) -> SplitReport:
    report, size, record = SplitReport("archive", path.name, found=1), path.stat().st_size, known()[path.name]
    if size > LARGE and not everything:
        report.values = f"{size / 1e9:.0f} GB, not read: --all does"
        return report
    bar = progress(path.name, size) if progress else None
    try:
        report.digest, wrong = difference(path, record, bar.advance if bar else lambda _: None)
    except OSError as e:
        wrong = f"{path}: cannot be read ({e.strerror})"
    report.read, report.values = 1, f"{record.kind} as on record ({record.source})"
    report.unreadable = [wrong] if wrong else []
    return report


def _part_only(options: dict[str, str]) -> bool:
    """Options that change how many pictures a split has."""
    return bool(options.keys() & {"domains", "source", "train"})


@dataclass(frozen=True)
class _Plain:
    """Pictures without targets, in the shape `_chunk` reads."""

    images: Any


def _read(data: Any, report: SplitReport, everything: bool, workers: int, progress: Any) -> None:
    total = len(data.images)
    rows = (
        list(range(total)) if everything or total <= SAMPLE else np.linspace(0, total - 1, SAMPLE).astype(int).tolist()
    )
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    bar = progress(f"{report.kind} {report.split}", len(rows)) if progress else None
    histogram: collections.Counter[int] = collections.Counter()
    ranges: list[tuple[float, float, float]] = []
    for sizes, labels, span, bad, done in _over(partial(_chunk, data), chunks, workers):
        for size, count in sizes.items():
            report.sizes[size] = report.sizes.get(size, 0) + count
        histogram.update(labels)
        ranges += span
        report.unreadable += bad
        report.read += done
        if bar is not None:
            bar.advance(done)
    names = data.class_names if isinstance(data, (LabelData, SegmentationData)) else ()
    if report.kind == "labels":
        histogram = collections.Counter(np.asarray(data.labels).tolist())
    report.labels = {names[i] if 0 <= i < len(names) else "ignored": n for i, n in sorted(histogram.items())}
    if ranges:
        low, high, share = (np.array(ranges)[:, c] for c in range(3))
        between = f"{np.nanmin(low):.3f} … {np.nanmax(high):.3f}, " if share.any() else ""
        report.values = f"{between}{100 * share.mean():.1f} % of pixels valid"


def _over(work: Callable[[list[int]], Any], chunks: list[list[int]], workers: int) -> Iterator[Any]:
    if workers <= 1 or len(chunks) < 2:
        yield from map(work, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        yield from pool.map(work, chunks)


def _chunk(
    data: Any, rows: list[int]
) -> tuple[dict[str, int], dict[int, int], list[tuple[float, float, float]], list[str], int]:
    """Sizes, label counts, (low, high, valid share) per map, and one line per picture that cannot be read."""
    sizes: collections.Counter[str] = collections.Counter()
    labels: collections.Counter[int] = collections.Counter()
    spans, bad = [], []
    for row in rows:
        name = data.images.image_id(row)
        try:
            with reading(name, "cannot be read", "Ask the authors of its reader"):
                image = data.images.picture(row)
                sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
                if not hasattr(data, "target"):
                    continue
                target = data.target(row)
                if target.shape[:2] != image.shape[:2]:
                    shapes = f"{list(target.shape)}, the picture {list(image.shape)}"
                    raise DataError(f"{name}: its target is {shapes}. Give it the picture's height and width")
                if target.dtype.kind in "iu":
                    values, counts = np.unique(target, return_counts=True)
                    ignored = ignored_label(len(data.class_names))
                    labels.update({-1 if v == ignored else int(v): int(c) for v, c in zip(values, counts)})
                else:
                    spans.append(_span(target))
        except BenchError as e:
            bad.append(str(e))
    return dict(sizes), dict(labels), spans, bad, len(rows)


def _span(target: np.ndarray) -> tuple[float, float, float]:
    """(lowest, highest, share of valid pixels) of a depth or normals map."""
    valid = (target != 0).any(-1) if target.ndim == 3 else np.isfinite(target) & (target > 0)
    kept = target[valid]
    return (float(kept.min()), float(kept.max()), float(valid.mean())) if kept.size else (np.nan, np.nan, 0.0)
