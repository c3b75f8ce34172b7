"""A small deterministic encoder that counts its forwards, and pictures in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, normalize

from benchmark.contracts import (
    EncoderCard,
    ImageFeatures,
    ImageRequest,
    ImageSet,
    ImageTransform,
    LayerFeatures,
    WeightsInfo,
)
from benchmark.system.digest import fingerprint


@dataclass
class SmallEncoder:
    """Mean colour of each 8 px patch through a fixed random map; text is a hash of its characters."""

    name: str = "small"
    image_size: int = 32
    width: int = 6
    fail_above: int = 10**9  # batches larger than this run out of memory
    nan_at: int = -1  # the n-th picture gives NaN

    def __post_init__(self) -> None:
        self.card = EncoderCard(
            self.name, "test", "torch", self.width, 8, self.image_size, 2, 2, True,
            WeightsInfo("test", fingerprint(["small", self.width])), "Apache-2.0",
            text_dim=self.width, has_text_patches=True,
        )  # fmt: skip
        self.transform = ImageTransform("square", self.image_size)
        generator = torch.Generator().manual_seed(0)
        self.map = torch.randn(3, self.width, generator=generator)
        self.seen = 0
        self.batches: list[int] = []

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        if len(images) > self.fail_above:
            raise torch.OutOfMemoryError("out of memory")
        self.batches.append(len(images))
        patches = avg_pool2d(images, 8).permute(0, 2, 3, 1) @ self.map
        if self.seen <= self.nan_at < self.seen + len(images):
            patches[self.nan_at - self.seen] = torch.nan
        self.seen += len(images)
        cls = torch.stack([patches.mean((1, 2)), patches.amax((1, 2))], 1)
        layers = tuple(
            LayerFeatures(cls * (2 - i % 2), patches * (2 - i % 2)) for i in request.layers
        )  # the last is the output
        return ImageFeatures(cls, patches, layers, patches if request.text_patches else None)

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(sum(t.encode()))) for t in texts]
        return normalize(torch.stack(rows), dim=-1)


@dataclass(frozen=True)
class Noise(ImageSet):
    """`n` random pictures."""

    n: int
    height: int = 40
    width: int = 48
    seed: int = 0
    cheap: bool = True

    @property
    def digest(self) -> str:
        return fingerprint(["noise", self.n, self.height, self.width, self.seed])

    def __len__(self) -> int:
        return self.n

    def image_id(self, index: int) -> str:
        return f"noise/{self.seed}/{index}"

    def load(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index])
        return rng.integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)


def made(kind: type, **fields: Any) -> Any:
    """Samples of `kind` with these attributes; functions of an index are its methods."""
    body = {name: staticmethod(value) if callable(value) else value for name, value in fields.items()}
    return type(kind.__name__, (kind,), {"digest": "test", **body})()
