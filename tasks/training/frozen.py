"""A frozen encoder under a head: layers of a batch, and the head's map brought to a picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from benchmark.contracts import Encoder, ImageRequest
from benchmark.errors import EncoderError
from benchmark.features.encode import encode_halving
from benchmark.system.late import F, torch
from tasks.training.fields import TrainedHead

Layer: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


@dataclass(frozen=True)
class Frozen:
    """The encoder with the blocks a head reads, after its final norm or as they are; no blocks: the final output."""

    encoder: Encoder
    blocks: tuple[int, ...]
    device: str
    final_norm: bool = True

    def layers(self, images: torch.Tensor) -> list[Layer]:
        """(first CLS [B, D], patches [B, D, h, w]) of each block, float32 without gradient, for images [B, 3, H, W].

        A batch that does not fit in memory is encoded in halves. Raises EncoderError for NaN or too few features.
        """
        card = self.encoder.card
        found = encode_halving(self.encoder, images, ImageRequest(self.blocks, final_norm=self.final_norm), self.device)
        pairs = [(layer.cls, layer.patches) for layer in found.layers] if self.blocks else [(found.cls, found.patches)]
        if len(pairs) != max(1, len(self.blocks)):
            raise EncoderError(f"{card.name}: {len(self.blocks)} layers were asked for, {len(pairs)} came")
        out = []
        for cls, patches in pairs:
            # cloned: what inference mode made cannot take part in a head's training
            cls, patches = cls[:, 0].to(self.device).float().clone(), patches.to(self.device).float().clone()
            if not (torch.isfinite(cls).all() and torch.isfinite(patches).all()):
                raise EncoderError(f"{card.name}: features hold NaN or infinite values. Try --dtype float32")
            out.append((cls, patches.permute(0, 3, 1, 2).contiguous()))
        return out


def to_size(
    maps: torch.Tensor, size: tuple[int, int], shown: Sequence[int], grid: Sequence[int], patch: int, p: TrainedHead
) -> torch.Tensor:
    """[B, C, H, W] of the head's maps, for a target of `size`.

    The encoder was shown pictures of `shown` (height, width), which it pads around the middle to `grid` patches. With
    `unpad` that border is cut off the map; without, the map of the padded picture is stretched over the picture, as
    DINOv2 and Probe3D do.
    """
    full = size
    if p.unpad:
        full = (
            max(size[0], round(size[0] * grid[0] * patch / shown[0])),
            max(size[1], round(size[1] * grid[1] * patch / shown[1])),
        )
    whole = F.interpolate(maps, full, mode=p.interpolation, align_corners=p.align_corners)
    top, left = (full[0] - size[0]) // 2, (full[1] - size[1]) // 2
    return whole[:, :, top : top + size[0], left : left + size[1]]
