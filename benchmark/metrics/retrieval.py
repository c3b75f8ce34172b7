"""Retrieval: exact ranks and average precision by blocks, never holding the queries × gallery matrix.

Equality is decided in float64. A float32 product settles every pair that is clearly above or below; the few within
rounding distance of the threshold are computed again in float64, where scores closer than `TIE` are one tie.
Ties count against the query: a collapsed encoder, which gives every picture the same vector, gets R@1 = 0 rather
than the 100 % that a strict ">" would hand it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmark.errors import DataError, EncoderError
from benchmark.metrics.exact_products import (
    DENSE,
    TIE,
    count_rows,
    exact_pairs,
    exact_tile,
    rounding_margin,
    rows_of,
    true_pairs,
)


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


def ranks(
    queries: Any,
    gallery: Any,
    positives: Positives,
    exclude: np.ndarray | None = None,
    block: int = 2048,
    device: str = "cpu",
) -> np.ndarray:
    """[Q] int64 rank of each query's best positive by dot product, 0 for first; N where it has no positive.

    The rank is the number of gallery items that are no positives and score as high or higher. `queries` [Q, D] and
    `gallery` [N, D] are tensors, arrays, memory maps or feature readers. `exclude` [Q] names one gallery item per
    query that is not there for it (itself), -1 for none. Raises EncoderError for non-finite features.
    """
    _check(queries, gallery, positives)
    out = np.full(len(queries), len(gallery), np.int64)
    for start, q, local in _query_blocks(queries, positives, block, device):
        owner, values = _positive_scores(q, gallery, local)
        best = torch.full((len(q),), -torch.inf, dtype=torch.float64, device=q.device)
        best.scatter_reduce_(0, owner, values, "amax")
        above = torch.zeros(len(q), dtype=torch.int64, device=q.device)
        for g, tile, slack, margin in _tiles(q, gallery, _skipped(local, exclude, start), block):
            above += _reaching(q, g, tile, best, slack, margin)
        found = local.counts() > 0
        out[start : start + len(q)][found] = above.cpu().numpy()[found]
    return out


def average_precision(
    queries: Any,
    gallery: Any,
    positives: Positives,
    exclude: np.ndarray | None = None,
    block: int = 2048,
    device: str = "cpu",
) -> np.ndarray:
    """[Q] average precision over the full ranking; NaN (left out of means) for a query without positives.

    mAP is its mean. A positive is behind every negative that scores as high; positives tied with each other follow one
    after another, so a collapsed encoder gets about (positives + 1) / (2 · gallery), what chance gives.
    """
    out = np.full(len(queries), np.nan)
    for rows, counts, owner, place, above in _placed(queries, gallery, positives, exclude, block, device):
        total = torch.zeros(len(counts), dtype=torch.float64, device=owner.device)
        total.index_add_(0, owner, place / (place + above).double())
        out[rows] = np.where(counts > 0, total.cpu().numpy() / np.maximum(counts, 1), np.nan)
    return out


def top_precision(
    queries: Any,
    gallery: Any,
    positives: Positives,
    exclude: np.ndarray | None = None,
    k: int = 5,
    block: int = 2048,
    device: str = "cpu",
) -> np.ndarray:
    """[Q] share of positives among the first min(k, n) of the gallery, n the query's positives; NaN without any.

    Its mean is mMP@k, modified mean precision (Ypsilantis et al., ICCV 2023). Ties count against the query.
    """
    out = np.full(len(queries), np.nan)
    for rows, counts, owner, place, above in _placed(queries, gallery, positives, exclude, block, device, k):
        asked = torch.as_tensor(np.minimum(counts, k), device=owner.device)
        hits = torch.bincount(owner[place + above <= asked[owner]], minlength=len(counts)).cpu().numpy()
        out[rows] = np.where(counts > 0, hits / np.clip(counts, 1, k), np.nan)
    return out


def _placed(
    queries: Any,
    gallery: Any,
    positives: Positives,
    exclude: np.ndarray | None,
    block: int,
    device: str,
    best: int | None = None,
) -> Iterator[tuple[slice, np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Blocks of queries: their rows and numbers of positives [b]; of every positive, or the `best` of each query, the
    query [P], its place among the positives (1 for the first) and the negatives that score as high [P]."""
    _check(queries, gallery, positives)
    for start, q, local in _query_blocks(queries, positives, block, device):
        owner, values = _positive_scores(q, gallery, local)
        order = torch.argsort(values, stable=True)
        order = order[torch.argsort(owner[order], stable=True)]  # by query, then ascending score
        values, counts = values[order], local.counts()
        offsets = torch.as_tensor(local.offsets, device=q.device)
        place = offsets[owner + 1] - torch.arange(len(values), device=q.device)
        if best is not None:
            kept = place <= best
            values, owner, place = values[kept], owner[kept], place[kept]
            offsets = torch.cat([offsets[:1], (offsets[1:] - offsets[:-1]).clamp(max=best).cumsum(0)])
        above = torch.zeros(len(values), dtype=torch.int64, device=q.device)
        for g, tile, slack, margin in _tiles(q, gallery, _skipped(local, exclude, start), block):
            above += _negatives_above(q, g, tile, values, offsets, slack, margin)
        yield slice(start, start + len(q)), counts, owner, place, above


def recall_hits(rank: np.ndarray, k: int) -> np.ndarray:
    """[Q] float64 of 0 and 1 whose mean is R@k."""
    return (np.asarray(rank) < k).astype(np.float64)


def _reaching(
    q: torch.Tensor, g: torch.Tensor, tile: torch.Tensor, threshold: torch.Tensor, slack: float, margin: torch.Tensor
) -> torch.Tensor:
    """[b] int64: how many items of the tile score ≥ threshold [b]."""
    sure = tile > (threshold + margin).float()[:, None]
    near = tile >= (threshold - margin).float()[:, None]
    count = count_rows(sure)
    ambiguous = int(count_rows(near).sum() - count.sum())
    if not ambiguous:
        return count
    close = near & ~sure
    limit = threshold - slack * margin
    if ambiguous > DENSE * tile.numel():
        return count + count_rows(close & (exact_tile(q, g) >= limit[:, None]))
    r, c = true_pairs(close)
    hit = exact_pairs(q, g, r, c) >= limit[r]
    return count + torch.bincount(r[hit], minlength=len(q))


def _negatives_above(
    q: torch.Tensor,
    g: torch.Tensor,
    tile: torch.Tensor,
    values: torch.Tensor,
    offsets: torch.Tensor,
    slack: float,
    margin: torch.Tensor,
) -> torch.Tensor:
    """[P] int64: for every positive (sorted by query and score), the negatives of the tile that score as high."""
    none = offsets[1:] == offsets[:-1]
    lowest = torch.where(none, torch.inf, torch.cat([values, values.new_zeros(1)])[offsets[:-1]])
    r, c = true_pairs(tile >= (lowest - margin).float()[:, None])
    dense = len(r) > DENSE * tile.numel()
    score = (exact_tile(q, g)[r, c] if dense else exact_pairs(q, g, r, c)) + slack * margin[r]
    low, high = offsets[r], offsets[r + 1]
    while bool((low < high).any()):  # bisection of every negative among its own query's positives
        middle = torch.div(low + high, 2, rounding_mode="floor").clamp(max=len(values) - 1)
        open_ = low < high
        reached = values[middle] <= score
        low, high = torch.where(open_ & reached, middle + 1, low), torch.where(open_ & ~reached, middle, high)
    # `low - offsets[r]` positives are reached; a positive is behind the negatives that reach past it.
    slots = torch.bincount(low + r, minlength=len(values) + len(q))  # one slot more than positives, per query
    above = torch.cat([slots.flip(0).cumsum(0).flip(0), slots.new_zeros(1)])
    owner = torch.repeat_interleave(torch.arange(len(q), device=q.device), offsets[1:] - offsets[:-1])
    here = torch.arange(len(values), device=q.device)
    return above[here + owner + 1] - above[offsets[owner + 1] + owner + 1]


def _tiles(
    q: torch.Tensor, gallery: Any, skip: tuple[np.ndarray, np.ndarray], block: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]]:
    """(gallery rows, scores [b, n], tie width as a share of the margin, margin [b]) by blocks; skipped are -inf."""
    q_norm = q.norm(dim=1).double()
    bound = rounding_margin(q.shape[1])
    order = np.argsort(skip[1], kind="stable")
    rows, cols = torch.as_tensor(skip[0][order]), skip[1][order]
    for low in range(0, len(gallery), block):
        g = rows_of(gallery, slice(low, min(low + block, len(gallery))), q.device)
        longest = float(g.norm(dim=1).max())
        if not np.isfinite(longest):
            raise _not_finite("gallery", g, low)
        tile = q @ g.T
        a, b = np.searchsorted(cols, [low, low + len(g)])
        tile[rows[a:b].to(q.device), torch.as_tensor(cols[a:b] - low, device=q.device)] = -torch.inf
        yield g, tile, TIE / bound, bound * longest * q_norm


def _query_blocks(
    queries: Any, positives: Positives, block: int, device: str
) -> Iterator[tuple[int, torch.Tensor, Positives]]:
    """(start, rows [b, D], their positives) block by block."""
    for start in range(0, len(queries), block):
        stop = min(start + block, len(queries))
        q = rows_of(queries, slice(start, stop), device)
        if not bool(torch.isfinite(q).all()):
            raise _not_finite("query", q, start)
        first, last = positives.offsets[start], positives.offsets[stop]
        yield start, q, Positives(positives.offsets[start : stop + 1] - first, positives.indices[first:last])


def _positive_scores(q: torch.Tensor, gallery: Any, local: Positives) -> tuple[torch.Tensor, torch.Tensor]:
    """(query of each positive [P], its float64 score [P])."""
    owner = torch.as_tensor(np.repeat(np.arange(len(local)), local.counts()), device=q.device)
    parts = []
    for i in range(0, len(owner), 16384):
        distinct, place = np.unique(local.indices[i : i + 16384], return_inverse=True)
        g = rows_of(gallery, distinct, q.device)
        parts.append(exact_pairs(q, g, owner[i : i + 16384], torch.as_tensor(place, device=q.device)))
    return owner, torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=q.device)


def _skipped(local: Positives, exclude: np.ndarray | None, start: int) -> tuple[np.ndarray, np.ndarray]:
    """(row, gallery index) of the pairs that are no negatives: positives, and the query itself."""
    rows, cols = np.repeat(np.arange(len(local)), local.counts()), local.indices
    if exclude is not None:
        own = np.asarray(exclude)[start : start + len(local)]
        rows, cols = np.concatenate([rows, np.flatnonzero(own >= 0)]), np.concatenate([cols, own[own >= 0]])
    return rows.astype(np.int64), cols.astype(np.int64)


def _not_finite(what: str, rows: torch.Tensor, start: int) -> EncoderError:
    bad = start + int((~torch.isfinite(rows)).any(1).nonzero()[0, 0])
    return EncoderError(f"{what} feature {bad} holds NaN or infinity: check the encoder on this sample")


def _check(queries: Any, gallery: Any, positives: Positives) -> None:
    if len(positives) != len(queries):
        raise DataError(f"{len(positives)} lists of positives for {len(queries)} queries: there must be one each")
    if len(positives.indices) and not 0 <= positives.indices.min() <= positives.indices.max() < len(gallery):
        raise DataError(f"a positive lies outside the gallery of {len(gallery)} items: check the index file")


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
