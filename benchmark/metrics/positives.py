"""Which answers to a query are right, and what chance gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Positives:
    """Gallery indices of each query's positives, CSR: `indices[offsets[q]:offsets[q+1]]`."""

    offsets: np.ndarray  # [Q+1] int64
    indices: np.ndarray  # [sum] int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def counts(self) -> np.ndarray:
        """[Q] number of positives of each query."""
        return np.diff(self.offsets)

    @staticmethod
    def from_lists(lists: Sequence[Sequence[int]]) -> Positives:
        """From one list of gallery indices per query."""
        counts = np.fromiter((len(x) for x in lists), np.int64, len(lists))
        flat = np.fromiter((i for x in lists for i in x), np.int64, int(counts.sum()))
        return Positives(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), flat)


def caption_positives(captions_per_image: Sequence[int]) -> tuple[Positives, Positives]:
    """(image → text, text → image) positives when image i has `captions_per_image[i]` captions, stored in order."""
    counts = np.asarray(captions_per_image, np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    owners = np.repeat(np.arange(len(counts)), counts)
    return Positives(offsets, np.arange(offsets[-1])), Positives(np.arange(len(owners) + 1), owners)


def instance_positives(
    query_keys: Sequence[Any] | np.ndarray,
    index_keys: Sequence[Any] | np.ndarray,
    self_index: np.ndarray | None = None,
    more: Mapping[int, Sequence[Any]] | None = None,
) -> Positives:
    """Positives that share a key (label, or "domain/label" strings in a merged index), the query itself left out.

    `more`: further keys of some queries; sharing one of a query's keys is enough.
    """
    more = {q: keys for q, keys in (more or {}).items() if len(keys)}
    every = [np.asarray(index_keys), np.asarray(query_keys), *(np.asarray(keys) for keys in more.values())]
    names, codes = np.unique(np.concatenate(every), return_inverse=True)
    index_codes, query_codes, further = np.split(codes, np.cumsum([len(index_keys), len(query_keys)]))
    order = np.argsort(index_codes, kind="stable")
    starts = np.searchsorted(index_codes[order], np.arange(len(names) + 1))
    own = np.full(len(query_codes), -1) if self_index is None else np.asarray(self_index)
    groups = [order[starts[c] : starts[c + 1]] for c in query_codes]
    parts = np.split(further, np.cumsum([len(keys) for keys in more.values()]))
    for q, others in zip(more, parts):
        groups[q] = np.unique(np.concatenate([groups[q], *(order[starts[c] : starts[c + 1]] for c in others)]))
    lists = [g[g != me] for g, me in zip(groups, own)]
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    flat = np.concatenate([*lists, np.zeros(0, np.int64)]).astype(np.int64)
    return Positives(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), flat)


def chance_recall(counts: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """[Q] probability that one of k of the `items` [Q] drawn at random is among the `counts` [Q] right ones."""
    missed = np.ones(len(counts))
    for drawn in range(k):
        missed *= np.clip((items - counts - drawn) / np.maximum(items - drawn, 1), 0, None)
    return 1 - missed


def chance_precision(counts: np.ndarray, items: np.ndarray) -> np.ndarray:
    """[Q] expected average precision of `items` [Q] in random order, `counts` [Q] of them right; NaN without any.

    An item is right at place n with probability counts/items, and then (counts-1)/(items-1) of those before it are:
    H/items + (counts-1)/(items-1) · (1 - H/items) with the harmonic number H of items.
    """
    items = np.maximum(items, 1)
    harmonic = np.cumsum(1 / np.arange(1, items.max(initial=1) + 1))[items - 1] / items
    others = (counts - 1) / np.maximum(items - 1, 1)
    return np.where(counts > 0, harmonic + others * (1 - harmonic), np.nan)
