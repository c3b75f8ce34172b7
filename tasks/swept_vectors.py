"""The feature sources of DINOv2's linear sweep: CLS of the last n blocks, with or without the mean patch token.

Stored once for every picture, or made batch by batch from augmented crops (`CropFeed`), as DINOv2's code trains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmark.contracts import (
    Encoder,
    EncoderCard,
    FeatureReader,
    ImageFeatures,
    ImageRequest,
    ImageSet,
    ImageTransform,
    StepInput,
    Tap,
    TaskContext,
    View,
)
from benchmark.errors import EncoderError
from benchmark.features.encode import encode_halving
from benchmark.features.extract import Extractor
from benchmark.features.taps import request_for
from benchmark.images.decode import resize
from benchmark.images.photos import Photos
from benchmark.images.views import resolve_view
from benchmark.system.late import torch
from tasks.global_vectors import ClsChoice

Pooling = Literal["both", "with", "without"]
SCALE, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # torchvision's RandomResizedCrop
AHEAD = 2  # batches decoded while one is encoded


@dataclass(frozen=True)
class Source:
    """One kind of vector: CLS of the last `blocks` blocks, oldest first; if `pooled`, the last mean patch token too."""

    blocks: int
    pooled: bool

    @property
    def name(self) -> str:
        return f"cls of {self.blocks} block{'s' if self.blocks > 1 else ''}" + (" + mean patch" if self.pooled else "")

    @classmethod
    def of(cls, use: Mapping[str, Any]) -> Source:
        """The source that a kept head reads."""
        return cls(use["blocks"], use["mean_patch"])

    def vector(self, cls: Sequence[torch.Tensor], mean: torch.Tensor | None, choice: ClsChoice) -> torch.Tensor:
        """[b, D'] from CLS tokens [b, K, D] of the last blocks, oldest first, and the mean patch token [b, D]."""
        parts = [chosen(tokens, choice) for tokens in cls[-self.blocks :]]
        return torch.cat([*parts, mean] if self.pooled and mean is not None else parts, -1)


def chosen(tokens: torch.Tensor, choice: ClsChoice) -> torch.Tensor:
    """[..., D] or [..., K·D] of CLS tokens [..., K, D] as the model gives them, not normalised."""
    picked = {"first": tokens[..., 0, :], "last": tokens[..., -1, :], "mean": tokens.mean(-2)}
    return picked.get(choice, tokens.flatten(-2))


class RawVectors:
    """[N, D] CLS tokens side by side as the model gives them, with the mean patch token if asked for."""

    def __init__(self, cls: FeatureReader, choice: ClsChoice, mean: FeatureReader | None = None) -> None:
        self.cls, self.choice, self.mean = cls, choice, mean
        self.shape = (len(cls), self[0:1].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> torch.Tensor:
        vector = chosen(self.cls[rows], self.choice)
        return vector if self.mean is None else torch.cat([vector, self.mean[rows]], -1)


def sources_for(card: EncoderCard, blocks: Sequence[int], pooling: Pooling) -> list[Source]:
    """The sources an encoder can give: block counts beyond its depth are left out, one block is always possible."""
    counts = [n for n in blocks if n <= max(card.depth, 1)]
    return [Source(n, pooled) for n in counts for pooled in (False, True) if pooling in ("both", _word(pooled))]


def layer_taps(card: EncoderCard, sources: Sequence[Source]) -> list[Tap]:
    """CLS taps, oldest block first, then the mean patch token of the last; the final output where layers are absent."""
    deepest = max(source.blocks for source in sources)
    layers: list[int | None] = [-n for n in range(deepest, 0, -1)] if card.depth else [None]
    return [*(Tap("cls", layer) for layer in layers), Tap("mean_patches", layers[-1])]


class StoredVectors:
    """[N, D'] of one source, read from stored taps in the order of `layer_taps`."""

    def __init__(self, readers: Sequence[Any], source: Source, choice: ClsChoice) -> None:
        *cls, mean = readers
        self.readers, self.mean = cls[-source.blocks :], mean if source.pooled else None
        self.source, self.choice = source, choice
        self.shape = (len(readers[0]), self[0:1].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> torch.Tensor:
        cls = [reader[rows] for reader in self.readers]
        return self.source.vector(cls, None if self.mean is None else self.mean[rows], self.choice)


def vector_of(
    picture: np.ndarray, view: View, encoder: Encoder, device: str, source: Source, choice: ClsChoice
) -> torch.Tensor:
    """[D'] float32 on the CPU: what a head on `source` reads of one picture [H, W, 3] uint8."""
    laid = resolve_view(view, encoder.transform, encoder.card, Photos([picture])).lay(picture)
    taps = layer_taps(encoder.card, [source])
    request = request_for(taps)
    found = encode_halving(encoder, torch.from_numpy(laid)[None], request, device)
    layers = found.layers or ((found.cls, found.patches),)
    cls, mean = [layer[0].float().cpu() for layer in layers], layers[-1][1].float().mean((1, 2)).cpu()
    return source.vector(cls, mean, choice)[0]


def curve_file(curve: Iterable[tuple[int, float]]) -> bytes:
    """(step, loss) pairs as CSV."""
    rows = [f"{step},{loss:.6g}" for step, loss in curve]
    return "\n".join(["step,loss", *rows, ""]).encode()


class CropFeed:
    """Augmented training batches: a random crop of each picture, flipped or not, encoded live.

    `rows` are the pictures of each step. The crop depends on seed, step and picture alone, so a sweep that is taken up
    again, or helped by another process, sees the same batches. Implements `benchmark.contracts.StepSource`.
    """

    def __init__(
        self, context: TaskContext, images: ImageSet, transform: ImageTransform | None,
        sources: Sequence[Source], choice: ClsChoice, rows: Sequence[np.ndarray],
    ) -> None:  # fmt: skip
        assert transform is not None  # the views of the sweep's protocol all have one
        self.context, self.images, self.transform = context, images, transform
        self.sources, self.choice, self.seed, self.rows = sources, choice, context.seed, rows
        self.steps, self.pictures = len(rows), max(map(len, rows))
        taps = layer_taps(context.card, sources)[:-1]
        self.request = ImageRequest(tuple(t.layer for t in taps if t.layer is not None))
        share = min(self.pictures, 128 if context.device.startswith("cuda") else 32)
        self.encoder = Extractor(context.encoder(), context.device, share, 0, context.progress)

    def made(self, steps: Iterable[int]) -> Iterator[StepInput]:
        """Source -> [b, D'] of the crops of each step."""
        waiting: deque[list[Future[np.ndarray]]] = deque()
        with ThreadPoolExecutor(8) as pool:
            try:
                for step in steps:
                    waiting.append([pool.submit(self.crop, step, int(row)) for row in self.rows[step]])
                    if len(waiting) > AHEAD:
                        yield self._features(waiting.popleft())
                while waiting:
                    yield self._features(waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def crop(self, step: int, row: int) -> np.ndarray:
        """[3, S, S] uint8."""
        rng = np.random.default_rng([self.seed, step, row])
        image = self.images.picture(row)
        side = self.transform.crop or self.transform.size
        left, top, right, bottom = random_box(image.shape[0], image.shape[1], rng)
        cut = image[top:bottom, left:right]
        pixels = resize(cut, side, side, self.transform.interpolation, self.transform.antialias).transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[..., ::-1] if rng.random() < 0.5 else pixels)

    def _features(self, futures: Sequence[Future[np.ndarray]]) -> Mapping[str, torch.Tensor]:
        pixels = torch.from_numpy(np.stack([future.result() for future in futures]))
        parts = [self._vectors(part) for part in torch.split(pixels, self.encoder.batch_size)]
        return {source.name: torch.cat([part[source.name] for part in parts]) for source in self.sources}

    def _vectors(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        found: ImageFeatures = self.encoder.forward(pixels, self.request)
        layers = found.layers or ((found.cls, found.patches),)
        cls, mean = [layer[0].float() for layer in layers], layers[-1][1].float().mean((1, 2))
        if not all(bool(torch.isfinite(part).all()) for part in (*cls, mean)):
            raise EncoderError(f"{self.context.card.name}: features hold NaN or infinite values. Try --dtype float32")
        return {source.name: source.vector(cls, mean, self.choice) for source in self.sources}


def random_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of 8–100 % of the area at an aspect ratio of 3:4 to 4:3; the middle if ten tries fail.

    torchvision's RandomResizedCrop with its defaults, which DINOv2's linear evaluation uses.
    """
    for _ in range(TRIES):
        area = height * width * rng.uniform(*SCALE)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            return left, top, left + w, top + h
    h = min(height, round(width / RATIO[0])) if width / height < RATIO[0] else height
    w = min(width, round(height * RATIO[1])) if width / height > RATIO[1] else width
    top, left = (height - h) // 2, (width - w) // 2
    return left, top, left + w, top + h


def _word(pooled: bool) -> Pooling:
    return "with" if pooled else "without"
