"""Extraction: each picture is decoded in a worker, encoded once, and every wanted tap is written shard by shard.

Batches start at shard boundaries and never cross them, so a run that was killed and taken up again forms the same
batches, and therefore the same bits, as one that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.contracts import Encoder, ImageFeatures, ImageRequest, ImageSet, Progress, Tap
from benchmark.errors import DataError, EncoderError
from benchmark.features import taps
from benchmark.features.halving import encode_halving
from benchmark.features.plan import Pass
from benchmark.features.store import StoredArray
from benchmark.views import ResolvedView

NewProgress = Callable[[str, int], Progress]
PART = 32  # pictures a worker decodes at a time: the encoder's first batch comes from several


@dataclass
class Decoded:
    """A batch as a worker hands it over; `error` is the line for the user when a picture could not be read."""

    indices: list[int]
    pixels: list[np.ndarray]  # [3, h, w] uint8: views are made of 8-bit pixels, so nothing is lost
    sizes: list[tuple[int, int]]
    error: str | None = None
    stacks: list[tuple[list[int], torch.Tensor]] | None = None

    def stacked(self) -> list[tuple[list[int], torch.Tensor]]:
        """Pictures of one shape together: their places in the batch, and [B, 3, h, w] uint8."""
        if self.stacks is None:
            groups = _same_shape(self.pixels)
            self.stacks = [(at, torch.from_numpy(np.stack([self.pixels[i] for i in at]))) for at in groups]
        return self.stacks

    @staticmethod
    def joined(parts: Sequence[Decoded], device: str) -> Decoded:
        """One batch of its parts, on `device`; the first error there is, if any."""
        broken = next((part for part in parts if part.error), None)
        if broken or len(parts) == 1:
            return broken or parts[0]
        groups: dict[torch.Size, tuple[list[int], list[torch.Tensor]]] = {}
        before = 0
        for part in parts:
            for at, stack in part.stacked():
                places, stacks = groups.setdefault(stack.shape[1:], ([], []))
                places.extend(before + i for i in at)
                stacks.append(stack.to(device, non_blocking=True))
            before += len(part.indices)
        whole = [(places, torch.cat(stacks)) for places, stacks in groups.values()]
        return Decoded(sum((p.indices for p in parts), []), [], sum((p.sizes for p in parts), []), None, whole)

    def pin_memory(self) -> Decoded:
        """Called by DataLoader's own thread, batches ahead of the encoder: from page-locked memory the copy to the GPU
        needs no wait."""
        stacks = [(at, stack.pin_memory()) for at, stack in self.stacked()]
        return Decoded(self.indices, [], self.sizes, self.error, stacks)


class _Decoder(torch.utils.data.Dataset[Decoded]):
    """Index -> one decoded part of a batch; picklable, so that it runs in worker processes."""

    def __init__(self, images: ImageSet, view: ResolvedView, batches: Sequence[list[int]]) -> None:
        self.images, self.view, self.batches = images, view, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Decoded:
        out = Decoded(self.batches[number], [], [])
        for index in out.indices:
            try:
                image = self.images.load(index)
                out.pixels.append(np.rint(self.view.lay(image) * 255).astype(np.uint8))
                out.sizes.append((image.shape[0], image.shape[1]))
            except (
                DataError,
                OSError,
                ValueError,
            ) as e:  # carried over as words: not every exception survives pickling
                where = "" if isinstance(e, DataError) else f"{self.images.image_id(index)}: cannot be read: "
                out.error = f"{where}{e}"
                break
        return out


class Extractor:
    """Runs passes for one encoder. `forwards` counts the pictures encoded; `seconds` the time spent."""

    def __init__(
        self, encoder: Encoder, device: str, batch_size: int | None, workers: int | None, progress: NewProgress
    ):
        self.encoder, self.device, self.progress = encoder, device, progress
        self.workers = workers
        self.batch_size = batch_size or (128 if device.startswith("cuda") else 32)
        self.forwards = 0
        self.seconds = 0.0

    def run(self, task: Pass, shards: Sequence[int] | None = None) -> float:
        """Fills every tap of one pass (of `shards` alone, if given); the seconds it took, 0 when nothing was missing.

        Raises DataError for an unreadable picture, EncoderError for a broken output, BenchError for a full disk;
        whatever was finished stays.
        """
        todo = [s for s in task.missing() if shards is None or s in shards]
        if not todo:
            return 0.0
        started = time.perf_counter()
        wanted = {tap: array for tap, array in task.taps.items() if array.missing()}
        request = taps.request_for(list(wanted))
        any_array = next(iter(wanted.values()))
        total = sum(len(any_array.shard_range(s)) for s in todo)
        bar = self.progress(f"encoding {self.encoder.card.name}", total)
        writer = _Writer()
        try:
            for shard in self._shards(task, any_array, todo, list(wanted), request, bar):
                for tap, items in shard.items.items():
                    writer.put(wanted[tap], shard.number, items)
        finally:
            writer.close()
        spent = time.perf_counter() - started
        self.seconds += spent
        return spent

    def _shards(
        self, task: Pass, array: StoredArray, todo: list[int], wanted: list[Tap], request: ImageRequest, bar: Progress
    ) -> Iterator[_Shard]:
        batches, owner = [], []
        for shard in todo:
            items = list(array.shard_range(shard))
            for i in range(0, len(items), self.batch_size):
                batches.append(items[i : i + self.batch_size])
                owner.append(shard)
        current: _Shard | None = None
        for number, batch in zip(owner, self._decoded(task, batches)):
            if batch.error:
                raise DataError(batch.error)
            if current is None or current.number != number:
                if current is not None:
                    yield current.joined()
                current = _Shard(number)
            self._encode(task, batch, wanted, request, current)
            bar.advance(len(batch.indices))
        if current is not None:
            yield current.joined()

    def _decoded(self, task: Pass, batches: list[list[int]]) -> Iterator[Decoded]:
        parts = [batch[i : i + PART] for batch in batches for i in range(0, len(batch), PART)]
        source = _Decoder(task.images, task.view, parts)
        workers = self._worker_count(task.images, len(parts))
        context = (
            ("spawn" if self.encoder.card.backend == "jax" else "fork") if workers else None
        )  # jax threads forbid fork
        loader = torch.utils.data.DataLoader(
            source,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.startswith("cuda"),
        )
        decoded = iter(loader)
        for batch in batches:
            yield Decoded.joined([next(decoded) for _ in range(0, len(batch), PART)], self.device)

    def _worker_count(self, images: ImageSet, batches: int) -> int:
        if self.workers is not None:
            return self.workers
        if getattr(images, "cheap", False) or batches < 3:  # starting a process costs more than it saves
            return 0
        return min(16 if self.device.startswith("cuda") else 8, max(1, (os.cpu_count() or 1) - 1))

    def _encode(self, task: Pass, batch: Decoded, wanted: list[Tap], request: ImageRequest, into: _Shard) -> None:
        for at, stack in batch.stacked():
            features = self.forward(stack, request)
            self.forwards += len(at)
            indices = [batch.indices[i] for i in at]
            ids = [task.images.image_id(i) for i in indices]
            sizes = [batch.sizes[i] for i in at]
            places = [task.view.placement(*size) for size in sizes]
            check_features(self.encoder, features, ids, stack.shape[2:])
            for tap in wanted:
                items = taps.take(tap, features, request, ids, sizes, places)
                if not np.isfinite(items).all():
                    bad = ids[int(np.argmax(~np.isfinite(items.reshape(len(items), -1)).all(1)))]
                    raise EncoderError(
                        f"{self.encoder.card.name}: {tap.name} of {bad} holds NaN or infinite values. "
                        "Try --dtype float32"
                    )
                into.add(tap, indices, items)

    def forward(self, pixels: torch.Tensor, request: ImageRequest) -> ImageFeatures:
        """encode_image of [B, 3, H, W] uint8, halving the batch for as long as memory runs out."""
        return encode_halving(self.encoder, pixels, request, self.device, self._shrink)

    def _shrink(self, size: int) -> None:
        self.batch_size = min(self.batch_size, size)


class _Shard:
    """The items of one shard as they come in; sub-batches of different shapes may arrive out of order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.parts: dict[Tap, list[tuple[int, np.ndarray]]] = {}
        self.items: dict[Tap, np.ndarray] = {}

    def add(self, tap: Tap, indices: list[int], items: np.ndarray) -> None:
        self.parts.setdefault(tap, []).extend(zip(indices, items))

    def joined(self) -> _Shard:
        for tap, parts in self.parts.items():
            self.items[tap] = np.stack([item for _, item in sorted(parts, key=lambda p: p[0])])
        self.parts = {}
        return self


class _Writer:
    """Writes shards beside the encoder, at most two in flight; an error surfaces at the next call."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.pending: list[Future[None]] = []

    def put(self, array: StoredArray, shard: int, items: np.ndarray) -> None:
        self.pending.append(self.pool.submit(array.write, shard, items))
        while len(self.pending) > 2:
            self.pending.pop(0).result()

    def close(self) -> None:
        self.pool.shutdown(wait=True)
        for future in self.pending:
            future.result()


def check_features(encoder: Encoder, features: ImageFeatures, ids: list[str], size: Sequence[int]) -> None:
    """Raises EncoderError when shapes are not what the contract says, naming both."""
    card, n = encoder.card, len(ids)
    cls, patches = features.cls, features.patches
    if cls.ndim != 3 or cls.shape[0] != n:
        raise EncoderError(
            f"{card.name}: cls is {list(cls.shape)}, expected [{n}, K, D]. See bench check --model {card.name}"
        )
    h, w = -(-size[0] // card.patch_size), -(-size[1] // card.patch_size)
    if patches.ndim != 4 or tuple(patches.shape[:3]) != (n, h, w):
        raise EncoderError(
            f"{card.name}: patches are {list(patches.shape)}, expected [{n}, {h}, {w}, D] "
            f"({size[0]}×{size[1]} px / patch_size {card.patch_size}). "
            "Correct patch_size in the card, or the map's order"
        )


def _same_shape(pixels: list[np.ndarray]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, array in enumerate(pixels):
        groups.setdefault(array.shape, []).append(i)
    return list(groups.values())
