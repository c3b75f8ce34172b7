"""One process's share of a step, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass
class Batch:
    """B samples, of which b run the self-supervised branch."""

    images: torch.Tensor  # [B, 3, H, W] float32 in [0, 1], the global view
    texts: tuple[torch.Tensor, ...]  # K tensors [B, L] int64, one for each CLS, 0 where padded
    ssl_rows: torch.Tensor  # [b] int64, rows of `images`
    local: torch.Tensor  # [M, b, 3, h, w] float32 in [0, 1]
    mask: torch.Tensor  # [b, N] bool
    captioned: torch.Tensor  # [B, K] bool: whether there is a text; else the contrastive loss passes over it

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        images, rows, local, mask, captioned = (
            t.to(device, non_blocking=True) for t in (self.images, self.ssl_rows, self.local, self.mask, self.captioned)
        )
        return Batch(images, tuple(t.to(device, non_blocking=True) for t in self.texts), rows, local, mask, captioned)

    def split(self, parts: int) -> Sequence[Batch]:
        """`parts` micro-batches of equal length, in order."""
        if parts == 1:
            return [self]
        size = len(self.images) // parts
        return [self._rows(i * size, (i + 1) * size) for i in range(parts)]

    def _rows(self, start: int, stop: int) -> Batch:
        inside = ((self.ssl_rows >= start) & (self.ssl_rows < stop)).nonzero().flatten()
        return replace(
            self,
            images=self.images[start:stop],
            texts=tuple(t[start:stop] for t in self.texts),
            ssl_rows=self.ssl_rows[inside] - start,
            local=self.local[:, inside],
            mask=self.mask[inside],
            captioned=self.captioned[start:stop],
        )
