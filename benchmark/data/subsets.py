"""Parts of a dataset: `--limit` and what is left when unreadable images are allowed (`--max-bad`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmark.contracts import DataKind, ImageSet
from benchmark.system.digest import fingerprint


@dataclass(frozen=True)
class ImageSubset:
    """The pictures `rows` of another set, in that order."""

    base: ImageSet
    rows: tuple[int, ...]

    @property
    def digest(self) -> str:
        return fingerprint({"base": self.base.digest, "rows": self.rows})

    @property
    def uniform_shape(self) -> tuple[int, int] | None:
        return getattr(self.base, "uniform_shape", None)

    @property
    def cheap(self) -> bool:
        return getattr(self.base, "cheap", False)

    def __len__(self) -> int:
        return len(self.rows)

    def image_id(self, index: int) -> str:
        return self.base.image_id(self.rows[index])

    def load(self, index: int) -> np.ndarray:
        return self.base.load(self.rows[index])


class DataSubset:
    """`rows` of a <Kind>Data whose samples are images (all kinds but retrieval)."""

    def __init__(self, base: Any, rows: Sequence[int]) -> None:
        self.base, self.rows = base, tuple(int(r) for r in rows)
        self.images = ImageSubset(base.images, self.rows)
        self.digest = fingerprint({"base": base.digest, "rows": self.rows})
        if hasattr(base, "labels"):
            self.labels = np.asarray(base.labels)[list(self.rows)]

    @cached_property
    def captions(self) -> Sequence[Sequence[str]]:
        return [self.base.captions[r] for r in self.rows]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("base", "rows"):  # unpickling asks before __init__ has run
            raise AttributeError(name)
        found = getattr(self.base, name)
        return (lambda index: found(self.rows[index])) if name == "counted" else found

    def target(self, index: int) -> np.ndarray:
        found: np.ndarray = self.base.target(self.rows[index])
        return found


class RetrievalSubset:
    """Some queries and some index images of a RetrievalData."""

    def __init__(self, base: Any, queries: Sequence[int], index: Sequence[int]) -> None:
        q, n = [int(i) for i in queries], [int(i) for i in index]
        self.queries, self.index = ImageSubset(base.queries, tuple(q)), ImageSubset(base.index, tuple(n))
        self.digest = fingerprint({"base": base.digest, "queries": q, "index": n})
        self.query_labels, self.index_labels = np.asarray(base.query_labels)[q], np.asarray(base.index_labels)[n]
        self.query_domains = [base.query_domains[i] for i in q]
        self.index_domains = [base.index_domains[i] for i in n]
        further, asked = getattr(base, "more_labels", {}), {old: new for new, old in enumerate(q)}
        self.more_labels = {asked[old]: labels for old, labels in further.items() if old in asked}
        self.self_index = None
        if base.self_index is not None:
            place = {old: new for new, old in enumerate(n)}
            self.self_index = np.array([place.get(int(base.self_index[i]), -1) for i in q], dtype=np.int64)


def labels_of(data: Any, query: int) -> tuple[int, ...]:
    """All labels of a query of a RetrievalData: the index pictures of its domain with one of them are right."""
    return int(data.query_labels[query]), *getattr(data, "more_labels", {}).get(query, ())


def limit(kind: DataKind, data: Any, n: int) -> Any:
    """At most `n` samples, spread evenly over the set; for retrieval, whole instances so that positives remain."""
    if kind == "retrieval":
        return _limit_retrieval(data, n)
    total = len(data.images)
    return data if n >= total else DataSubset(data, _spread(total, n))


def _limit_retrieval(data: Any, n: int) -> Any:
    if n >= len(data.queries):
        return data
    instances: dict[tuple[str, int], list[int]] = {}
    for i, key in enumerate(zip(data.query_domains, np.asarray(data.query_labels).tolist())):
        instances.setdefault(key, []).append(i)
    groups = list(instances.values())
    order = _spread(len(groups), max(1, n * len(groups) // len(data.queries)))
    queries = sorted(i for g in order for i in groups[g])[: max(n, 2)]
    kept = {(data.query_domains[i], label) for i in queries for label in labels_of(data, i)}
    keys = zip(data.index_domains, np.asarray(data.index_labels).tolist())
    index = [i for i, key in enumerate(keys) if key in kept]
    return RetrievalSubset(data, queries, index)


def without(kind: DataKind, data: Any, bad: set[str]) -> Any:
    """`data` without the pictures whose ids are in `bad`."""
    if kind == "retrieval":
        queries = [i for i in range(len(data.queries)) if data.queries.image_id(i) not in bad]
        index = [i for i in range(len(data.index)) if data.index.image_id(i) not in bad]
        return RetrievalSubset(data, queries, index)
    return DataSubset(data, [i for i in range(len(data.images)) if data.images.image_id(i) not in bad])


def _spread(total: int, n: int) -> list[int]:
    return [int(i) for i in np.linspace(0, total - 1, min(n, total)).round()]
