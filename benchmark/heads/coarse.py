"""A first look at cosines in bfloat16: which pairs may reach a threshold, at half the cost where the CPU has the unit.

Nothing is decided here. With both vectors rounded to bfloat16 a dot product of unit vectors falls short by at most
`MARGIN`, so pairs further than that below their threshold are out and the others are computed again in float32.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmark.metrics.exact_products import true_pairs
from benchmark.system.late import torch

# By how much the result may fall short. Each rounding of an input is within 2^-9 of its value, so a product of two is
# within 2^-8 + 2^-18 and, by Cauchy and Schwarz, so is their sum over unit vectors; a result below 1 is rounded by at
# most 2^-9 (above 1 by more, but not to less than a cosine); 2^-12 for float32 sums and norms a little above 1.
MARGIN = 2.0**-8 + 2.0**-9 + 2.0**-12
CROWDED = 0.01  # above this share of pairs left, one float32 product of the tile is cheaper than single pairs
Product = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], None]  # queries, rows, and where scores go
ROUNDS = 8  # of a measurement
_PAIR_BYTES = 1 << 20  # both sides of a chunk of pairs stay in cache


class Coarse:
    """Tiles against one block of queries q [b, D], unit vectors on the CPU."""

    def __init__(self, q: torch.Tensor, tile_rows: int) -> None:
        self.q, self.narrow = q, q.bfloat16().T.contiguous()
        self.tile = torch.empty(tile_rows, len(q), dtype=torch.bfloat16)
        self.mask = torch.empty(tile_rows, len(q), dtype=torch.bool)

    def reaching(self, g: torch.Tensor, floor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """(queries, rows of g, float32 scores) of pairs with score ≥ floor [b], in the order of rows.

        None where a look in bfloat16 does not help: a floor at or below zero, or too many pairs left.
        """
        limit = floor - MARGIN
        if not bool((limit > 0).all()):
            return None
        tile, mask = self._product(g.bfloat16()), self.mask[: len(g)]
        # Positive floats have the order of their bits, negative ones a sign bit; integers compare many times faster.
        bits = (limit.view(torch.int32) >> 16).to(torch.int16)  # rounded down
        np.greater_equal(tile.view(torch.int16).numpy(), bits.numpy(), out=mask.numpy())
        cols, rows = true_pairs(mask)
        if len(rows) > CROWDED * mask.numel():
            return None
        score = self._scores(g, rows, cols)
        near = score >= floor[rows]
        return rows[near], cols[near], score[near]

    def _product(self, g: torch.Tensor) -> torch.Tensor:
        return torch.matmul(g, self.narrow, out=self.tile[: len(g)])

    def _scores(self, g: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
        """[n] float32 dot products of single pairs; numpy gathers rows several times faster than torch."""
        queries, tile, out = self.q.numpy(), g.numpy(), np.empty(len(rows), np.float32)
        step = max(1, _PAIR_BYTES // (8 * g.shape[1]))
        for i in range(0, len(rows), step):
            part = slice(i, i + step)
            left, right = queries.take(rows[part].numpy(), 0), tile.take(cols[part].numpy(), 0)
            np.einsum("nd,nd->n", left, right, out=out[part])
        return torch.from_numpy(out)


def by_torch(q: torch.Tensor, g: torch.Tensor, out: torch.Tensor) -> None:
    """out [b, n] = q [b, D] · g [n, D]."""
    torch.matmul(q, g.T, out=out)


def by_numpy(q: torch.Tensor, g: torch.Tensor, out: torch.Tensor) -> None:
    """The same by numpy's BLAS."""
    np.matmul(q.numpy(), g.numpy().T, out=out.numpy())


@functools.cache
def quicker_product(width: int) -> Product:
    """`by_torch`, or `by_numpy` where it is faster: by a seventh on AMD, while torch's is by a quarter on Intel."""
    q, g, out = torch.randn(512, width), torch.randn(1024, width), torch.empty(512, 1024)
    ways = (by_torch, by_numpy)
    took = _least([functools.partial(way, q, g, out) for way in ways])
    return ways[int(np.argmin(took))]


@functools.cache
def pays(width: int) -> bool:
    """Whether this machine multiplies vectors of `width` clearly faster in bfloat16 than in float32; measured once."""
    q, g, wide = torch.randn(512, width), torch.randn(512, width), torch.empty(512, 512)
    looks, product = Coarse(q, len(g)), quicker_product(width)
    narrow, full = _least([lambda: looks._product(g.bfloat16()), lambda: product(q, g, wide)])
    return narrow < 0.8 * full


def _least(calls: Sequence[Callable[[], object]]) -> list[float]:
    """The least seconds of each call, taken in turn: other programs disturb some rounds, and not one call alone."""

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    rounds = [[seconds(call) for call in calls] for _ in range(ROUNDS)]
    return [min(of_one) for of_one in zip(*rounds)]
