"""One process's share of a step, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch


@dataclass
class Batch:
    """B samples, of which b run the self-supervised branch. Pictures are 8-bit until `to` brings them to the device."""

    images: torch.Tensor  # [B, 3, H, W] float32 in [0, 1] or uint8, the global view
    texts: tuple[torch.Tensor, ...]  # K tensors [B, L] int64, one for each CLS, 0 where padded
    ssl_rows: torch.Tensor  # [b] int64, rows of `images`
    local: torch.Tensor  # [M, b, 3, h, w], as images
    mask: torch.Tensor  # [b, N] bool
    captioned: torch.Tensor  # [B, K] bool: whether there is a text; else the contrastive loss passes over it

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`, pictures in float32."""
        moved = self._each(lambda t: t.to(device, non_blocking=True))
        return replace(moved, images=to_float(moved.images), local=to_float(moved.local))

    def pin_memory(self) -> Batch:
        """The same batch where a GPU fetches it while it computes; the loader calls this."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        alone = (change(t) for t in (self.ssl_rows, self.local, self.mask, self.captioned))
        return Batch(change(self.images), tuple(map(change, self.texts)), *alone)

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


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 → float32 in [0, 1], laid out as its shape says; floats as they are."""
    if pixels.dtype != torch.uint8:
        return pixels
    return pixels.to(torch.float32, memory_format=torch.contiguous_format) / 255


def channels_first(pixels: torch.Tensor) -> torch.Tensor:
    """[..., H, W, 3] → [..., 3, H, W], the same memory: who computes with it lays it out anew (`Batch.to`)."""
    return pixels.movedim(-1, -3)
