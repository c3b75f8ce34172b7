"""Instance retrieval (UnED, TIPSv2 §4.1): mean R@1 and mMP@5 over domains on one merged index, and mAP.

A hit must share label and domain with the query, or with a picture that equals it in every pixel; a query that is in
the index is not there for itself. A query that no picture of the index answers (the only one of its label, or --limit
or --max-bad left the others out) says nothing of an encoder: it is left out of every metric, and the row counts how
many were. Queries of one label are pictures of one thing and succeed or fail together, so intervals and tests resample
them together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from benchmark.contracts import (
    CropRounding,
    EncoderCard,
    Measurement,
    Method,
    Need,
    Outcome,
    Tap,
    Task,
    TaskContext,
    View,
)
from benchmark.data.equal_pictures import counted, first_equal, picture_digests
from benchmark.errors import DataError
from benchmark.metrics.positives import chance_precision, instance_positives
from benchmark.metrics.retrieval import average_precision, ranks, recall_hits, top_precision
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Amount
from tasks.global_vectors import ClsChoice, GlobalVectors
from tasks.idle_fields import check_view
from tasks.predictions import instance_pictures


@dataclass(frozen=True)
class InstanceRetrieval:
    """Protocol: the view, the CLS token, one merged index or one per domain, and whether mAP is computed."""

    view: Literal["encoder", "square", "short-side"]
    view_size: Amount  # short-side: also the side of the middle crop, as UnED's code does
    cls: ClsChoice
    index: Literal["merged", "per-domain"]
    average_precision: bool

    def __post_init__(self) -> None:
        check_view(self.view, self.view_size)

    def seen(self) -> View:
        """How pictures are laid before the encoder."""
        return View(self.view, self.view_size)


@dataclass(frozen=True)
class ResampledRetrieval(InstanceRetrieval):
    """InstanceRetrieval that also says how the view is resampled and cut."""

    interpolation: Literal["encoder", "bilinear", "bicubic"]  # encoder: its filter and its antialiasing
    antialias: bool  # of a filter that is named
    rounding: CropRounding  # of half a margin of the middle crop

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.view == "encoder" and self.interpolation != "encoder":
            raise ValueError(f"interpolation = {self.interpolation} does nothing with view = encoder. Use short-side")

    def seen(self) -> View:
        rule = None if self.interpolation == "encoder" else self.interpolation
        return View(self.view, self.view_size, rule, None if rule is None else self.antialias, 0, self.rounding)


class Cosine(Method[InstanceRetrieval]):
    """Nearest neighbours by cosine, every query against the whole index."""

    schema: ClassVar[type] = InstanceRetrieval

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        view, test = self.protocol.seen(), data["test"]
        index = {} if test.queries.digest == test.index.digest else {"index/cls": Need(test.index, view, Tap("cls"))}
        return {"queries/cls": Need(test.queries, view, Tap("cls")), **index}

    def run(self, context: TaskContext) -> Outcome:
        """R@1, MP@5 and average precision of every query, averaged within domains and then over them."""
        data, protocol = context.data["test"], self.protocol
        started = time.perf_counter()
        needs = self.needs(context.card, context.data)
        queries = GlobalVectors(context.features("queries/cls"), protocol.cls)
        index = GlobalVectors(context.features("index/cls" if "index/cls" in needs else "queries/cls"), protocol.cls)
        domains = np.asarray(data.query_domains)
        samples: dict[str, np.ndarray] = {
            "id": np.array([data.queries.image_id(i) for i in range(len(queries))]),
            "domain": domains,
            "instance": _keys(data.query_domains, data.query_labels, np.arange(len(queries))),
            "rank": np.zeros(len(queries), np.int64),
            "hit@1": np.full(len(queries), np.nan),
            "mp@5": np.full(len(queries), np.nan),
        }
        if protocol.average_precision:
            samples["ap"] = np.full(len(queries), np.nan)
        blind = {name: np.full(len(queries), np.nan) for name in ("hit@1", "mp@5", "ap")}
        same, further = _names_of_equal_pictures(data, context)
        for rows, columns in _searches(data, protocol.index):
            right, items = self._search(context, queries, index, rows, columns, samples, further)
            there = right > 0
            blind["hit@1"][rows] = blind["mp@5"][rows] = np.where(there, right / np.maximum(items, 1), np.nan)
            blind["ap"][rows] = chance_precision(right, items)
        answerable = np.isfinite(samples["hit@1"])
        if not answerable.any():
            raise DataError("no query has a right answer: no other picture of the index shares its label and domain")
        shares = {"mean R@1": "hit@1", "mMP@5": "mp@5"} | ({"mAP": "ap"} if protocol.average_precision else {})
        measured = [
            Measurement(name, Statistic("group_mean", (c,), 100.0, group="domain", cluster="instance"), True, "%")
            for name, c in shares.items()
        ]
        shown = [d for d in np.unique(domains) if answerable[domains == d].any()]
        details: dict[str, Any] = {f"R@1 {d}": float(100 * np.nanmean(samples["hit@1"][domains == d])) for d in shown}
        details |= {"queries_without_right_answer": int((~answerable).sum()), "equal_pictures": same}
        files = instance_pictures(context, queries, index, samples["rank"], merged=protocol.index == "merged")
        seconds = time.perf_counter() - started
        return Outcome(
            samples, measured, main_metric="mean R@1", n=int(answerable.sum()), details=details, score_s=seconds,
            files=files, blind=[blind],
        )  # fmt: skip

    def _search(
        self,
        context: TaskContext,
        queries: GlobalVectors,
        index: GlobalVectors,
        rows: np.ndarray,
        columns: np.ndarray | None,
        samples: dict[str, np.ndarray],
        further: Mapping[int, Sequence[str]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fills in the samples of queries `rows`; how many right answers each has, among how many pictures."""
        data = context.data["test"]
        gallery: Any = index if columns is None else index[columns]
        columns = np.arange(len(index)) if columns is None else columns
        own = None
        if data.self_index is not None:
            place = np.full(len(index) + 1, -1, np.int64)  # the last entry answers for -1: not in the index
            place[columns] = np.arange(len(columns))
            own = place[np.asarray(data.self_index)[rows]]
        query_keys = _keys(data.query_domains, data.query_labels, rows)
        index_keys = _keys(data.index_domains, data.index_labels, columns)
        more = {at: further[q] for at, q in enumerate(rows.tolist()) if q in further}
        positives = instance_positives(query_keys, index_keys, own, more)
        asked: Any = queries if len(rows) == len(queries) else queries[rows]
        rank = ranks(asked, gallery, positives, own, device=context.device)
        samples["rank"][rows] = rank
        samples["hit@1"][rows] = np.where(positives.counts() > 0, recall_hits(rank, 1), np.nan)
        samples["mp@5"][rows] = top_precision(asked, gallery, positives, own, device=context.device)
        if "ap" in samples:
            samples["ap"][rows] = average_precision(asked, gallery, positives, own, device=context.device)
        hidden = np.zeros(len(rows), np.int64) if own is None else (own >= 0).astype(np.int64)  # the query itself
        return positives.counts(), len(gallery) - hidden


def _names_of_equal_pictures(data: Any, context: TaskContext) -> tuple[dict[str, int], dict[int, list[str]]]:
    """How many pictures have an equal one; query -> its further "domain/label" names.

    No encoder tells equal pictures apart, so what answers one of them answers them all: those names are a query's, too,
    beside `more_labels` of the data.
    """
    digests, rows = picture_digests(data.index, context.progress), np.arange(len(data.index))
    names = _keys(data.index_domains, data.index_labels, rows).tolist()
    asked = _keys(data.query_domains, data.query_labels, np.arange(len(data.queries))).tolist()
    pictures = digests if data.queries.digest == data.index.digest else picture_digests(data.queries, context.progress)
    together: dict[bytes, dict[str, None]] = {}
    for digest, name in (*zip(digests, names), *zip(pictures, asked)):
        together.setdefault(digest, {})[name] = None
    more = data.more_labels
    further = {}
    for query, digest in enumerate(pictures):
        own = [f"{data.query_domains[query]}/{label}" for label in more.get(query, ())]
        if others := [name for name in (*own, *together[digest]) if name != asked[query]]:
            further[query] = others
    return counted(first_equal(digests)), further


def _searches(data: Any, kind: str) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """(query rows, index columns or None for all) of each search."""
    if kind == "merged":
        return [(np.arange(len(data.queries)), None)]
    asked, there = np.asarray(data.query_domains), np.asarray(data.index_domains)
    return [(np.flatnonzero(asked == d), np.flatnonzero(there == d)) for d in np.unique(asked)]


def _keys(domains: Sequence[str], labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    return np.array([f"{domains[i]}/{labels[i]}" for i in rows])


class ResampledCosine(Cosine):
    """The same on a view whose resampling the protocol names."""

    schema: ClassVar[type] = ResampledRetrieval


TASK = Task("instance_retrieval", "retrieval", {"cosine": Cosine, "resampled_cosine": ResampledCosine})
