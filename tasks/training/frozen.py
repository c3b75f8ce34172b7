"""A frozen encoder under a head: layers of a batch, and the head's map brought to a picture's size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from benchmark.contracts import Encoder, ImageRequest, StepInput
from benchmark.errors import EncoderError
from benchmark.features.encode import encode_halving
from benchmark.system.late import F, torch
from benchmark.system.plurals import number_of
from tasks.training.batches import Batches
from tasks.training.fields import TrainedHead

Layer: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
KINDS = ("cls", "patches")  # of a layer


@dataclass(frozen=True)
class Shown:
    """What the encoder makes of pictures of `size` (height, width); `targets` where they are training crops."""

    layers: list[Layer]
    size: tuple[int, int]
    targets: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # as in a Batch


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
            raise EncoderError(f"{card.name}: asked for {number_of(len(self.blocks), 'layer')}, {len(pairs)} came")
        out = []
        for cls, patches in pairs:
            # cloned: what inference mode made cannot take part in a head's training
            cls, patches = cls[:, 0].to(self.device).float().clone(), patches.to(self.device).float().clone()
            if not (torch.isfinite(cls).all() and torch.isfinite(patches).all()):
                raise EncoderError(f"{card.name}: features hold NaN or infinite values. Try --dtype float32")
            out.append((cls, patches.permute(0, 3, 1, 2).contiguous()))
        return out

    def shown(self, images: torch.Tensor) -> Shown:
        """`layers` of images [B, 3, H, W], with their size."""
        return Shown(self.layers(images), (images.shape[2], images.shape[3]))


@dataclass(frozen=True)
class EncodedBatches:
    """Training batches by number, encoded. Implements `benchmark.contracts.StepSource`."""

    batches: Batches
    frozen: Frozen

    @property
    def steps(self) -> int:
        return len(self.batches)

    @property
    def pictures(self) -> int:
        return self.batches.protocol.batch_size

    def made(self, steps: Iterable[int]) -> Iterator[StepInput]:
        """`size` (height, width), `targets` as in a Batch, and `cls` [B, D] and `patches` [B, D, h, w] of each block.

        Raises DataError for a picture or map that cannot be read."""
        for batch in self.batches.made(steps):
            found = self.frozen.shown(batch.images)
            layers = {f"{kind}.{i}": x for i, both in enumerate(found.layers) for kind, x in zip(KINDS, both)}
            yield {"size": torch.tensor(found.size), "targets": batch.targets, **layers}

    def read(self, inputs: Iterable[StepInput]) -> Iterator[Shown]:
        """What `made` gave, on the encoder's device."""
        device = self.frozen.device
        for step in inputs:
            count = sum(name.startswith("cls.") for name in step)
            layers = [(step[f"cls.{i}"].to(device), step[f"patches.{i}"].to(device)) for i in range(count)]
            height, width = step["size"].tolist()
            yield Shown(layers, (height, width), step["targets"].to(device))


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
