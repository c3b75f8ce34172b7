"""Exact k nearest neighbours by cosine over any number of stored features, and the votes of their labels.

One product per tile settles nearly everything, in bfloat16 where that pays (`benchmark.heads.coarse`) or in float32:
only scores that may still enter a query's k best are looked at again, and the last word is a float64 score, ties going
to the lower index (`benchmark.metrics.exact_products`). So the answer does not depend on precision, block size, threads
or device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmark.contracts import Progress
from benchmark.errors import DataError, EncoderError
from benchmark.heads import coarse
from benchmark.metrics.exact_products import DENSE, exact_pairs, exact_tile, rounding_margin, rows_of, true_pairs
from benchmark.system.late import torch

TEMPERATURE = 0.07  # Wu et al. 2018, and DINO, DINOv2 after it
NEIGHBOURS = (10, 20, 100, 200)
_GRID = 2.0**40  # float64 scores are compared on this grid: far above their rounding, far below any real difference
_ROWS = 2048  # index rows in one tile
_LARGE = 2**34  # multiplications from which it is worth measuring what is fast on this machine
_SHORTEST = 1e-12  # its squares are far from the least that float32 holds
_VAIN = 8  # so many looks too many that did not help, and the rest goes without

_Pairs: TypeAlias = "tuple[torch.Tensor, torch.Tensor, torch.Tensor]"  # rows of q, rows of the tile, scores


def topk_search(
    queries: Any,
    index: Any,
    k: int,
    exclude: np.ndarray | None = None,
    block_bytes: int = 256 << 20,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores [Q, k] float64, indices [Q, k] int64) of the k rows of `index` [N, D] with the highest cosine.

    Sorted by falling score, equal scores by rising index; on the CPU. `queries` and `index` are tensors, arrays, memory
    maps or feature readers, read in blocks; memory is `block_bytes` and a few times Q × k. `exclude` [Q] names one row
    per query to leave out, -1 for none. Raises DataError when the index holds fewer than k other rows, EncoderError for
    a row without direction (zero, NaN or infinite).
    """
    others = len(index) - (exclude is not None)
    if not 1 <= k <= others:
        raise DataError(f"k = {k} neighbours asked of {others} index rows: choose k between 1 and {others}")
    width = int(queries.shape[1])
    step = max(1, min(block_bytes // 2 // (8 * width), block_bytes // 2 // (8 * _ROWS), 8 * block_bytes // (256 * k)))
    large = device == "cpu" and len(queries) * len(index) * width >= _LARGE
    product = coarse.quicker_product(width) if large else coarse.by_torch
    look = large and coarse.pays(width)
    scores, indices = [], []
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        q = _directions(queries, start, stop, device, "query")
        pool = _Pool(q, index, k, look, product)
        skip = None if exclude is None else torch.as_tensor(exclude[start:stop], dtype=torch.int64, device=q.device)
        for low in range(0, len(index), _ROWS):
            pool.add(low, min(low + _ROWS, len(index)), skip)
        best, where = pool.result()
        scores.append(best.cpu())
        indices.append(where.cpu())
        if progress is not None:
            progress.advance(stop - start)
    if not scores:
        return torch.zeros(0, k, dtype=torch.float64), torch.zeros(0, k, dtype=torch.int64)
    return torch.cat(scores), torch.cat(indices)


class _Pool:
    """For one block of queries, every row seen so far that may be among the k best: flat (query, row, score)."""

    def __init__(self, q: torch.Tensor, index: Any, k: int, look: bool, product: coarse.Product) -> None:
        self.q, self.index, self.k, self.product = q, index, k, product
        self.look = coarse.Coarse(q, _ROWS) if look else None
        self.vain = 0  # looks that did not help, less those that did
        # Of two products, each with half as much of its row's length, and the coarseness of _by_query_and_score.
        self.margin = 3 * rounding_margin(q.shape[1]) + 1e-7
        self.floor = torch.full((len(q),), -torch.inf, device=q.device)  # float32; a row below it is out for good
        none = torch.zeros(0, dtype=torch.int64, device=q.device)
        self.rows, self.cols, self.scores = [none], [none], [torch.zeros(0, dtype=torch.float64, device=q.device)]
        self.pending = 0
        self.settled = False
        # Fresh pages for every tile would cost a fifth of the product.
        self.tile = torch.empty(len(q), _ROWS, device=q.device)
        self.directions = torch.empty(_ROWS, q.shape[1], device=q.device)
        self.ones = torch.ones(_ROWS, device=q.device)

    def add(self, low: int, stop: int, skip: torch.Tensor | None) -> None:
        """Take the tile of index rows from `low` to `stop`; tiles come in rising order. `skip` [b]: rows left out."""
        g, length = self._with_lengths(low, stop)
        rows, cols, score = self._first_look(g, low, skip) or self._full_look(g, length, low, skip)
        if not len(rows):
            return
        self.rows.append(rows)
        self.cols.append(cols + low)
        self.scores.append(score)
        self.pending += len(rows)
        self.settled = False
        if self.pending > max(self.k * len(self.q), 1 << 16):
            self._prune()

    def _with_lengths(self, low: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows [n, D], and lengths [n] summed in float32 (in float64 where squares might leave its range) by which
        their products are still to be divided: for fewer queries than features that is less work than the rows."""
        g = rows_of(self.index, slice(low, stop), self.q.device)
        length, ones = torch.linalg.vector_norm(g, dim=1), self.ones[: len(g)]
        if not bool(((length > _SHORTEST) & (length < 1 / _SHORTEST)).all()):
            return _directions(self.index, low, stop, str(g.device), "index"), ones
        if self.look is None and len(self.q) < g.shape[1]:
            return g, length
        return torch.div(g, length[:, None], out=self.directions[: len(g)]), ones

    def _first_look(self, g: torch.Tensor, low: int, skip: torch.Tensor | None) -> _Pairs | None:
        """What reaches the floor, by way of bfloat16; None where that is not done or did not help."""
        if self.look is None or self.k > coarse.CROWDED / 2 * low:  # so early, a large share of a tile still enters
            return None
        pairs = self.look.reaching(g, self.floor)
        self.vain = self.vain + 1 if pairs is None else max(self.vain - 1, 0)
        if self.vain > _VAIN:
            self.look = None
        if pairs is None:
            return None
        rows, cols, score = pairs
        if skip is not None:
            seen = cols + low != skip[rows]
            rows, cols, score = rows[seen], cols[seen], score[seen]
        return rows, cols, score.double()

    def _full_look(self, g: torch.Tensor, length: torch.Tensor, low: int, skip: torch.Tensor | None) -> _Pairs:
        """What reaches the floor, by the whole product in float32."""
        tile = self.tile.view(-1)[: len(self.q) * len(g)].view(len(self.q), len(g))  # [b, n]
        self.product(self.q, g, tile)
        least, most = length.min(), length.max()
        if low == 0 or most > 1.001 * least:
            tile /= length
            length = self.ones[: len(g)]
            least = most = self.ones[0]
        hidden = own = torch.zeros(0, dtype=torch.int64, device=g.device)
        if skip is not None:
            hidden = ((skip >= low) & (skip < low + len(g))).nonzero()[:, 0]
            own = skip[hidden] - low
            tile[hidden, own] = -torch.inf
        if low == 0 and len(g) > self.k:
            self.floor = torch.topk(tile, self.k, sorted=False).values.amin(1) - self.margin
        # Rows of nearly one length are held to the floor times the least, and the few that reach it to their own.
        rows, cols = _reaching(tile, torch.where(self.floor > 0, self.floor * least, self.floor * most))
        crowded = low > 0 and len(rows) > max(DENSE * tile.numel(), 2 * self.k * len(self.q))
        if crowded and bool(torch.isfinite(self.floor).all()):
            exact = _directions(self.index, low, low + len(g), str(g.device), "index")
            return self._settle_tile(exact, hidden, own)
        score = tile[rows, cols] / length[cols]
        seen = (score >= self.floor[rows]) & (score > -torch.inf)  # the floor may still be -inf
        return rows[seen], cols[seen], score[seen].double()

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores [b, k], indices [b, k]), decided in float64."""
        self._prune()
        self._settle()
        return self.scores[0].view(-1, self.k), self.cols[0].view(-1, self.k)

    def _settle_tile(self, g: torch.Tensor, hidden: torch.Tensor, own: torch.Tensor) -> _Pairs:
        """Ties all over: what enters by float64 score; an equal score at a later row never does."""
        if not self.settled:
            self._prune()
            self._settle()
        exact = torch.round(exact_tile(self.q, g) * _GRID) / _GRID
        exact[hidden, own] = -torch.inf
        rows, cols = true_pairs(exact > self.scores[0].view(-1, self.k)[:, -1:])
        return rows, cols, exact[rows, cols]

    def _prune(self) -> None:
        """Drop what can no longer be among the k best, and raise the floor."""
        rows, cols, scores = torch.cat(self.rows), torch.cat(self.cols), torch.cat(self.scores)
        order = _by_query_and_score(rows, scores, len(self.q))
        rows, cols, scores = rows[order], cols[order], scores[order]
        starts = torch.searchsorted(rows, torch.arange(len(self.q) + 1, device=rows.device))
        full = starts[1:] - starts[:-1] >= self.k
        kth = scores[(starts[:-1] + self.k - 1).clamp(max=max(len(scores) - 1, 0))]
        limit = torch.where(full, kth - self.margin, -torch.inf)
        keep = scores >= limit[rows]
        self.rows, self.cols, self.scores = [rows[keep]], [cols[keep]], [scores[keep]]
        self.floor = limit.float()
        self.pending = 0
        if len(self.rows[0]) > 3 * self.k * len(self.q) + (1 << 16):
            self._settle()

    def _settle(self) -> None:
        """Exactly the k best of each query (or all it has), by float64 score and then index."""
        if self.settled:
            return
        rows, cols = self.rows[0], self.cols[0]
        score = torch.round(self._exact(rows, cols) * _GRID) / _GRID
        order = torch.argsort(cols, stable=True)
        order = order[torch.argsort(score[order], descending=True, stable=True)]
        order = order[torch.argsort(rows[order], stable=True)]
        rows, cols, score = rows[order], cols[order], score[order]
        starts = torch.searchsorted(rows, torch.arange(len(self.q), device=rows.device))
        keep = torch.arange(len(rows), device=rows.device) - starts[rows] < self.k
        self.rows, self.cols, self.scores = [rows[keep]], [cols[keep]], [score[keep]]
        self.settled = len(self.rows[0]) == self.k * len(self.q)

    def _exact(self, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
        """Float64 scores of pairs, reading the index in order and in parts."""
        out = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        order = torch.argsort(cols)
        for i in range(0, len(order), 1 << 15):
            part = order[i : i + (1 << 15)]
            distinct, place = torch.unique_consecutive(cols[part], return_inverse=True)
            g = rows_of(self.index, distinct.cpu().numpy(), self.q.device)
            g = g / _norm(g)
            out[part] = exact_pairs(self.q, g, rows[part], place)
        return out


def knn_votes(
    scores: torch.Tensor,
    neighbour_labels: torch.Tensor,
    num_classes: int,
    ks: Sequence[int] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[int, torch.Tensor]:
    """For every k, votes [Q, C] float64: the sum of softmax(score / temperature) over each class's neighbours.

    `scores` [Q, K] and `neighbour_labels` [Q, K] come from one search with K ≥ max(ks), best first. The prediction is
    `votes.argmax(1)`; call with slices of Q where Q × C is large.
    """
    if max(ks) > scores.shape[1]:
        raise DataError(f"k = {max(ks)} votes from a search that kept {scores.shape[1]} neighbours: search with more")
    weight = torch.softmax(scores.double() / temperature, 1)
    votes, out, done = torch.zeros(len(scores), num_classes, dtype=torch.float64, device=scores.device), {}, 0
    for k in sorted(ks):
        votes.scatter_add_(1, neighbour_labels[:, done:k].long(), weight[:, done:k])
        out[k], done = votes.clone(), k
    return {k: out[k] for k in ks}


def _directions(source: Any, start: int, stop: int, device: str, what: str) -> torch.Tensor:
    rows = rows_of(source, slice(start, stop), device)
    norm = _norm(rows)
    fine = torch.isfinite(norm) & (norm > 0)
    if not bool(fine.all()):
        bad = start + int((~fine).nonzero()[0, 0])
        raise EncoderError(f"{what} feature {bad} is zero, NaN or infinite: it has no direction; check the encoder")
    return rows / norm


def _reaching(tile: torch.Tensor, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where tile [b, n] ≥ floor [b], looking twice only at queries whose best row is."""
    near = (tile.amax(1) >= floor).nonzero()[:, 0]
    tile, floor = (tile, floor) if 2 * len(near) > len(tile) else (tile[near], floor[near])
    if tile.device.type == "cpu":  # numpy compares twice as fast
        mask = torch.from_numpy(np.greater_equal(tile.numpy(), floor.numpy()[:, None]))
    else:
        mask = tile >= floor[:, None]
    rows, cols = true_pairs(mask)
    return (rows if len(tile) > len(near) else near[rows]), cols


def _norm(rows: torch.Tensor) -> torch.Tensor:
    """[n, 1] float32, summed in float64: a float32 sum has another last bit on every device, and so would a cosine."""
    norm: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64).float()
    return norm


def _by_query_and_score(rows: torch.Tensor, scores: torch.Tensor, queries: int) -> torch.Tensor:
    """Order by query, then falling cosine to within 1e-7: one integer sort of (query, score, position) in 62 bits.

    Sorting plain integers is several times faster than an argsort, and this is most of the work beside the product.
    """
    place_bits, row_bits = len(rows).bit_length(), queries.bit_length()
    levels = 1 << (62 - place_bits - row_bits)
    level = ((1.01 - scores) * ((levels - 1) / 2.02)).long().clamp_(0, levels - 1)
    key = ((rows * levels + level) << place_bits) + torch.arange(len(rows), device=rows.device)
    if key.device.type == "cpu":  # numpy sorts in vector registers
        key.numpy().sort()
    else:
        key = key.sort().values
    return key & ((1 << place_bits) - 1)
