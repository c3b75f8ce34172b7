"""Retrieval: exact ranks and average precision by blocks, never holding the queries × gallery matrix.

Equality is decided in float64. A float32 product settles every pair that is clearly above or below; the few within
rounding distance of the threshold are computed again in float64, where scores closer than `TIE` are one tie.
Ties count against the query: a collapsed encoder, which gives every picture the same vector, gets R@1 = 0 rather
than the 100 % that a strict ">" would hand it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

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
from benchmark.metrics.positives import Positives
from benchmark.system.late import torch

PAIRS = 1 << 16  # of a query and an item that are looked at together: a few numbers of each are held


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
        best = _best(q, gallery, local)
        above = torch.zeros(len(q), dtype=torch.int64, device=q.device)
        for g, tile, slack, margin in _tiles(q, gallery, _skipped(local, exclude, start), block):
            above += _reaching(q, g, tile, best, slack, margin)
        found = local.counts() > 0
        out[start : start + len(q)][found] = above.cpu().numpy()[found]
    return out


def mutual_ranks(
    left: Any,
    right: Any,
    to_right: Positives,
    to_left: Positives,
    block: int = 2048,
    device: str = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """`ranks(left, right, to_right)` and `ranks(right, left, to_left)`, each block of scores computed once for both."""
    _check(left, right, to_right)
    _check(right, left, to_left)
    best = [
        torch.cat([_best(q, gallery, local) for _, q, local in _query_blocks(queries, positives, block, device)])
        for queries, gallery, positives in ((left, right, to_right), (right, left, to_left))
    ]
    above = [torch.zeros(len(found), dtype=torch.int64, device=found.device) for found in best]
    owner = np.repeat(np.arange(len(to_left)), to_left.counts())
    bound = rounding_margin(left.shape[1])
    for start, q, local in _query_blocks(left, to_right, block, device):
        rows, longest = slice(start, start + len(q)), float(q.norm(dim=1).max())
        own = (start <= to_left.indices) & (to_left.indices < start + len(q))
        skip_rows, skip_columns = to_left.indices[own] - start, owner[own]
        low = 0
        for g, tile, hidden, slack, margin in _bare_tiles(q, right, _skipped(local, None, start), block):
            columns = slice(low, low + len(g))
            back = bound * longest * g.norm(dim=1).double()
            here = (low <= skip_columns) & (skip_columns < low + len(g))
            with _hidden(tile, skip_rows[here], skip_columns[here] - low):
                above[1][columns] += _reaching(g, q, tile.T, best[1][columns], slack, back)
            with _hidden(tile, *hidden):
                above[0][rows] += _reaching(q, g, tile, best[0][rows], slack, margin)
            low += len(g)
    out = []
    for count, positives, size in zip(above, (to_right, to_left), (len(right), len(left))):
        out.append(np.where(positives.counts() > 0, count.cpu().numpy(), size))
    return out[0], out[1]


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
    slots = values.new_zeros(len(values) + len(q), dtype=torch.int64)  # one slot more than positives, per query
    exact, step = None, max(1, PAIRS // tile.shape[1])
    for start in range(0, len(q), step):
        some, its, part = tile[start : start + step], q[start : start + step], margin[start : start + step]
        r, c = true_pairs(some >= (lowest[start : start + step] - part).float()[:, None])
        if len(r) > DENSE * some.numel():
            exact = g.double() if exact is None else exact
            score = exact_tile(its, exact)[r, c]
        else:
            score = exact_pairs(its, g, r, c)
        score += slack * part[r]
        r = r + start
        low, high = offsets[r], offsets[r + 1]
        while bool((low < high).any()):  # bisection of every negative among its own query's positives
            middle = torch.div(low + high, 2, rounding_mode="floor").clamp(max=len(values) - 1)
            open_ = low < high
            reached = values[middle] <= score
            low, high = torch.where(open_ & reached, middle + 1, low), torch.where(open_ & ~reached, middle, high)
        # `low - offsets[r]` positives are reached; a positive is behind the negatives that reach past it.
        slots += torch.bincount(low + r, minlength=len(slots))
    above = torch.cat([slots.flip(0).cumsum(0).flip(0), slots.new_zeros(1)])
    owner = torch.repeat_interleave(torch.arange(len(q), device=q.device), offsets[1:] - offsets[:-1])
    here = torch.arange(len(values), device=q.device)
    return above[here + owner + 1] - above[offsets[owner + 1] + owner + 1]


def _tiles(
    q: torch.Tensor, gallery: Any, skip: tuple[np.ndarray, np.ndarray], block: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]]:
    """(gallery rows, scores [b, n], tie width as a share of the margin, margin [b]) by blocks; skipped are -inf."""
    for g, tile, hidden, slack, margin in _bare_tiles(q, gallery, skip, block):
        with _hidden(tile, *hidden):
            yield g, tile, slack, margin


def _bare_tiles(
    q: torch.Tensor, gallery: Any, skip: tuple[np.ndarray, np.ndarray], block: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, tuple[np.ndarray, np.ndarray], float, torch.Tensor]]:
    """`_tiles` with all scores, and the (rows, columns) of a tile that are to be skipped."""
    q_norm = q.norm(dim=1).double()
    bound = rounding_margin(q.shape[1])
    order = np.argsort(skip[1], kind="stable")
    rows, cols = skip[0][order], skip[1][order]
    room = torch.empty(len(q), min(block, len(gallery)), device=q.device)  # fresh pages cost as much as looking at them
    for low in range(0, len(gallery), block):
        g = rows_of(gallery, slice(low, min(low + block, len(gallery))), q.device)
        longest = float(g.norm(dim=1).max())
        if not np.isfinite(longest):
            raise _not_finite("gallery", g, low)
        tile = torch.matmul(q, g.T, out=room) if len(g) == room.shape[1] else q @ g.T
        a, b = np.searchsorted(cols, [low, low + len(g)])
        yield g, tile, (rows[a:b], cols[a:b] - low), TIE / bound, bound * longest * q_norm


@contextmanager
def _hidden(tile: torch.Tensor, rows: np.ndarray, columns: np.ndarray) -> Iterator[None]:
    """These scores at -inf for as long as it lasts."""
    at = torch.as_tensor(rows, device=tile.device), torch.as_tensor(columns, device=tile.device)
    kept, tile[at] = tile[at], -torch.inf
    yield
    tile[at] = kept


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


def _best(q: torch.Tensor, gallery: Any, local: Positives) -> torch.Tensor:
    """[b] float64 score of each query's best positive, -inf without any."""
    owner, values = _positive_scores(q, gallery, local)
    best = torch.full((len(q),), -torch.inf, dtype=torch.float64, device=q.device)
    return best.scatter_reduce_(0, owner, values, "amax")


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
