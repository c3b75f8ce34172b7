"""Exact decisions about float32 dot products: fast where a comparison is clear, float64 where it is close.

A float32 product of two vectors of norm |a| and |b| is within `rounding_margin(D) · |a| · |b|` of the true one. Pairs
outside that margin of a threshold are settled; the few inside it are computed again in float64, where scores closer
than `TIE` (relative to the norms) count as equal. So the outcome does not depend on block size, device or threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmark.system.late import torch

TIE = 1e-12  # float64 rounding of a 10,000-term product of unit vectors stays below this
DENSE = 0.01  # above this share of close pairs, one float64 product of the whole tile is cheaper than single pairs
_PAIR_BYTES = 4 << 20  # stays in cache


def rounding_margin(dim: int) -> float:
    """Bound on the float32 error of a `dim`-term dot product of unit vectors.

    8 √D u, the probabilistic bound of Higham and Mary (2019) with λ = 8; the worst case D u never occurs in practice.
    """
    return 8.0 * math.sqrt(dim) * 2.0**-24


def rows_of(source: Any, rows: Any, device: torch.device | str) -> torch.Tensor:
    """`source[rows]` as float32 [n, D] on `device`; a tensor, array, memory map or feature reader."""
    part = source[rows]
    if not isinstance(part, torch.Tensor):
        array = np.ascontiguousarray(part, dtype=np.float32)
        part = torch.from_numpy(array if array.flags.writeable else array.copy())
    return part.to(device=device, dtype=torch.float32)


def exact_pairs(a: torch.Tensor, b: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor) -> torch.Tensor:
    """[n] float64 dot products of `a[rows]` and `b[cols]`, in chunks of bounded memory."""
    step = max(1, _PAIR_BYTES // (16 * a.shape[1]))
    parts = [
        (a.index_select(0, rows[i : i + step]).double() * b.index_select(0, cols[i : i + step]).double()).sum(1)
        for i in range(0, len(rows), step)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=a.device)


def exact_tile(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """[n, m] float64 dot products of all pairs."""
    return a.double() @ b.double().T


def count_rows(mask: torch.Tensor) -> torch.Tensor:
    """[n] int64 number of true entries in each row of a boolean [n, m]."""
    if mask.device.type == "cpu":  # numpy counts booleans in vector registers, ten times faster
        rows = mask.numpy()
        if rows.flags.c_contiguous:
            return torch.from_numpy(np.count_nonzero(rows, axis=1).astype(np.int64))
        bytes_ = rows.T.view(np.uint8)  # columns lie together: 255 of them at a time add up within a byte
        parts = (np.add.reduce(bytes_[i : i + 255], 0, dtype=np.uint8) for i in range(0, len(bytes_), 255))
        return torch.from_numpy(sum(parts, np.zeros(len(rows), np.int64)))
    return mask.sum(1)


def true_pairs(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns) of the true entries of a boolean [n, m], in row order; by columns where those lie together."""
    if mask.device.type == "cpu":
        if not mask.is_contiguous():
            cols, rows = true_pairs(mask.T)
            return rows, cols
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    else:
        flat = mask.flatten().nonzero()[:, 0]
    rows = torch.div(flat, mask.shape[1], rounding_mode="floor")
    return rows, flat - rows * mask.shape[1]
