"""Rows that are mixtures of patches: where pixels outnumber patches, a linear layer meets each patch once.

A bilinear mixture commutes with a linear layer, so the layer is applied to the patches and its scores are mixed at the
pixels, gradients the other way round: the same loss at a share of the products and of the bytes. What is subtracted and
divided to standardise the features of pixels goes into the layer (shares add up to one).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmark.heads.rows import BLOCK, Scaler
from benchmark.metrics.exact_products import rows_of
from benchmark.system.late import F, torch

KEPT = 160 << 20  # bytes of patches that stay in memory; more are read from the store in every pass


@dataclass(frozen=True)
class GridRows:
    """Rows [n, D] float32: mixtures of four patches each, in the order of their pictures."""

    patches: Any  # [N, h, w, D], a feature reader or a tensor
    corners: np.ndarray  # [n, 4] int64: picture · h · w + patch
    shares: np.ndarray  # [n, 4] float32, which add up to one

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return len(self), self.patches.shape[-1]

    def __getitem__(self, rows: slice | np.ndarray) -> torch.Tensor:
        """[m, D] on the CPU."""
        pictures, at = np.unique(self.corners[rows] // self.area, return_inverse=True)
        corners = at.reshape(-1, 4) * self.area + self.corners[rows] % self.area
        tokens = rows_of(self.patches, pictures, "cpu").flatten(0, 2)
        return mixed(torch.from_numpy(corners), tokens, torch.from_numpy(self.shares[rows]))

    @cached_property
    def area(self) -> int:
        """Patches of a picture."""
        return int(np.prod(self.patches.shape[1:3]))

    @cached_property
    def step(self) -> int:
        """Pictures of a block: at most BLOCK rows, and one picture at least."""
        return max(1, BLOCK // int(np.bincount(self.corners[:, 0] // self.area).max()))

    @cached_property
    def origin(self) -> torch.Tensor:
        """[D] what all patches are counted from: differences keep their digits."""
        return rows_of(self.patches, slice(0, self.step), "cpu").flatten(0, 2).mean(0)

    @cached_property
    def _held(self) -> dict[tuple[str, torch.dtype], list[torch.Tensor]]:
        return {}

    def blocks(self, device: str, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """[p, D] patches of `step` pictures after another, less the origin."""
        n, width = self.patches.shape[0], self.patches.shape[-1]
        held = self._held.get((device, dtype))
        for number, start in enumerate(range(0, n, self.step)):
            if held is not None and number < len(held):
                yield held[number]
                continue
            part = rows_of(self.patches, slice(start, start + self.step), device).flatten(0, 2)
            block = (part - self.origin.to(device)).to(dtype)
            if n * self.area * width * block.element_size() <= KEPT:
                held = self._held.setdefault((device, dtype), [])
                held.append(block)
            yield block


@dataclass(frozen=True)
class _Mixing:
    """From patches to rows and back, for the rows of one block: sums of `values` at `index`."""

    corners: torch.Tensor  # [m, 4] int32
    shares: torch.Tensor  # [m, 4]
    rows: torch.Tensor  # [4 m] int32, in the order of the patches that they lie on
    back: torch.Tensor  # [4 m] their shares
    starts: torch.Tensor  # [p] int32 where each patch's rows begin

    @staticmethod
    def of(corners: np.ndarray, shares: np.ndarray, patches: int, device: str, dtype: torch.dtype) -> _Mixing:
        flat = corners.reshape(-1)
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(patches))
        index = (torch.from_numpy(a.astype(np.int32)).to(device) for a in (corners, order // 4, starts))
        values = (torch.from_numpy(a).to(device, dtype) for a in (shares, shares.reshape(-1)[order]))
        (forth, rows, begin), (share, back) = index, values
        return _Mixing(forth, share, rows, back, begin)

    def to_rows(self, patches: torch.Tensor) -> torch.Tensor:
        """[m, C] of [p, C]."""
        return mixed(self.corners, patches, self.shares)

    def to_patches(self, rows: torch.Tensor) -> torch.Tensor:
        """[p, C] of [m, C]: the transposed sum."""
        return F.embedding_bag(self.rows, rows, self.starts, mode="sum", per_sample_weights=self.back)


class MixedRows:
    """Chosen rows of a GridRows, as `benchmark.heads.rows.Rows` has them; patches are shared between all choices."""

    inverted = True

    def __init__(
        self, x: GridRows, y: torch.Tensor, rows: np.ndarray, scaler: Scaler, device: str, dtype: torch.dtype
    ) -> None:
        self.x, self.device, self.dtype, self.count = x, device, dtype, len(rows)
        self.y = y[torch.from_numpy(rows)].to(device)
        self.mean, self.inverse = scaler.mean - x.origin.to(device).double(), scaler.inverse
        width = x.step * x.area
        block = x.corners[rows, 0] // width
        self.edges = np.searchsorted(block, np.arange(-(-x.patches.shape[0] // x.step) + 1))
        self.mixing = [
            _Mixing.of(
                x.corners[rows[a:b]] - number * width,
                x.shares[rows[a:b]],
                min(width, x.patches.shape[0] * x.area - number * width),
                device,
                dtype,
            )
            for number, (a, b) in enumerate(zip(self.edges, self.edges[1:]))
        ]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Blocks (standardised features [b, D], labels [b])."""
        mean, inverse = self.mean.to(self.dtype), self.inverse.to(self.dtype)
        for mixing, tokens, y in self._blocks():
            yield mixing.to_rows(tokens).sub_(mean).mul_(inverse), y

    def _blocks(self) -> Iterator[tuple[_Mixing, torch.Tensor, torch.Tensor]]:
        for number, tokens in enumerate(self.x.blocks(self.device, self.dtype)):
            a, b = self.edges[number : number + 2]
            if a < b:
                yield self.mixing[number], tokens, self.y[a:b]

    def scores(self, parameters: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Blocks (logits [b, C], labels [b]) of standardised parameters [C, D+1]."""
        weight, bias = self._raw(parameters)
        for mixing, tokens, y in self._blocks():
            yield mixing.to_rows(tokens @ weight.T).add_(bias), y

    def loss(self, parameters: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The sum of cross-entropies, and its gradient by the standardised parameters [C, D+1] float64."""
        weight, bias = self._raw(parameters)
        total, grad, residuals = 0.0, torch.zeros_like(parameters[:, :-1]), torch.zeros_like(parameters[:, -1])
        for mixing, tokens, y in self._blocks():
            log_p = torch.log_softmax(mixing.to_rows(tokens @ weight.T).add_(bias), 1)
            total -= float(log_p.gather(1, y[:, None]).sum(dtype=torch.float64))
            residual = log_p.exp_()
            residual[torch.arange(len(y), device=y.device), y] -= 1
            grad += mixing.to_patches(residual).T @ tokens
            residuals += residual.sum(0)
        grad = (grad - residuals[:, None] * self.mean) * self.inverse
        return total, torch.cat([grad, residuals[:, None]], 1)

    def _raw(self, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = parameters[:, :-1] * self.inverse
        bias = parameters[:, -1] - weight @ self.mean
        return weight.to(self.dtype), bias.to(self.dtype)


def mixed(corners: torch.Tensor, patches: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """[m, C]: of each row the sum of `patches` [p, C] at its corners [m, 4], each times its share [m, 4]."""
    return F.embedding_bag(corners, patches, mode="sum", per_sample_weights=shares)
