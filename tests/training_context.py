"""A task's context in memory, with pictures whose depth and normals can be read off their colours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from small import SmallEncoder

from benchmark.contracts import DepthData, ImageSet, NormalsData
from benchmark.contracts.progress import silent
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file


@dataclass(frozen=True)
class Ramps(ImageSet):
    """`n` pictures that run between four random colours in their corners."""

    n: int
    seed: int
    height: int = 32
    width: int = 40
    cheap: bool = True
    digest: str = "ramps"

    def __len__(self) -> int:
        return self.n

    def image_id(self, index: int) -> str:
        return f"ramps/{self.seed}/{index}"

    def load(self, index: int) -> np.ndarray:
        corners = np.random.default_rng([self.seed, index]).integers(0, 256, (2, 2, 3))
        y, x = np.linspace(0, 1, self.height), np.linspace(0, 1, self.width)
        rows, columns = np.stack([1 - y, y], 1), np.stack([1 - x, x], 1)
        return np.einsum("hi,wj,ijc->hwc", rows, columns, corners).astype(np.uint8)


@dataclass(frozen=True)
class ColourDepth(DepthData):
    """Red is 1 m, black 3 m."""

    images: Ramps
    digest: str = "colour-depth"

    def target(self, index: int) -> np.ndarray:
        return (3 - self.images.load(index)[..., 0] / 127.5).astype(np.float32)


@dataclass(frozen=True)
class ColourNormals(NormalsData):
    """Red leans right, green leans down."""

    images: Ramps
    digest: str = "colour-normals"

    def target(self, index: int) -> np.ndarray:
        lean = self.images.load(index)[..., :2] / 127.5 - 1
        vectors = np.concatenate([lean, -np.ones_like(lean[..., :1])], -1)
        return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@dataclass
class Deep(SmallEncoder):
    """SmallEncoder with four ramps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.card = replace(self.card, depth=4)


@dataclass
class MemoryContext:
    """What a task needs of its context."""

    protocol: Any
    data: dict[str, Any]
    scratch: Path
    live: SmallEncoder = field(default_factory=Deep)
    seed: int = 0
    device: str = "cpu"
    keep_predictions: int = 0
    look_at: tuple[int, ...] = ()
    progress: Any = silent

    @property
    def card(self) -> Any:
        return self.live.card

    def encoder(self) -> SmallEncoder:
        return self.live

    def steps(self, source: Any, start: int = 0) -> Any:
        return source.made(range(start, source.steps))


def preset(task: str, name: str, dataset: str | None = None, **values: Any) -> Any:
    """The preset's dataclass with some values changed."""
    found = load_protocol(task, load_task(task).schemas, protocol_file(task), name, None, dataset)
    return replace(found.values, **values)
