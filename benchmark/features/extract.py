"""Extraction: each picture is decoded in a worker, encoded once, and every wanted tap is written shard by shard.

Batches start at the boundaries of blocks (`Pass.block`) and never cross them, so a run that was killed and taken up
again forms the same batches, and therefore the same bits, as one that was not. Of each tap one shard is being filled
and of all taps one is being written: `held_bytes` counts that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.contracts import Encoder, ImageFeatures, ImageRequest, ImageSet, Progress
from benchmark.errors import BenchError, DataError, EncoderError, reading
from benchmark.features import taps
from benchmark.features.encode import encode_halving
from benchmark.features.filling import Filling, Writer
from benchmark.features.plan import Pass
from benchmark.features.store import StoredArray
from benchmark.images.decode import size_of
from benchmark.images.views import ResolvedView
from benchmark.system.late import torch
from benchmark.system.processes import start_method

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
        return Decoded([i for p in parts for i in p.indices], [], [s for p in parts for s in p.sizes], None, whole)

    def pin_memory(self) -> Decoded:
        """Called by DataLoader's own thread, batches ahead of the encoder: from page-locked memory the copy to the GPU
        needs no wait."""
        stacks = [(at, stack.pin_memory()) for at, stack in self.stacked()]
        return Decoded(self.indices, [], self.sizes, self.error, stacks)


class _Decoder:
    """Index -> one decoded part of a batch; picklable, so that it runs in worker processes."""

    def __init__(self, images: ImageSet, view: ResolvedView, batches: Sequence[list[int]]) -> None:
        self.images, self.view, self.batches = images, view, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Decoded:
        out = Decoded(self.batches[number], [], [])
        for index in out.indices:
            try:
                with reading(self.images.image_id(index), "cannot be read", "Leave it out with --max-bad"):
                    image = self.images.for_layout(index)
            except BenchError as e:  # carried over as words: not every exception survives pickling
                out.error = str(e)
                break
            try:
                out.pixels.append(np.ascontiguousarray(self.view.laid(image).transpose(2, 0, 1)))
            except (DataError, ValueError) as e:
                out.error = f"{self.images.image_id(index)}: {e}. Leave it out, or use a square view"
                break
            out.sizes.append(size_of(image))
        return out


class Extractor:
    """Runs passes for one encoder. `forwards` counts the pictures encoded, `read` those decoded; `seconds` the time."""

    def __init__(
        self, encoder: Encoder, device: str, batch_size: int | None, workers: int | None, progress: NewProgress
    ):
        self.encoder, self.device, self.progress = encoder, device, progress
        self.workers = workers
        self.batch_size = batch_size or default_batch(device)
        self.forwards = self.read = 0
        self.seconds = 0.0
        self.prepared = 0.0  # seconds until pictures were there: rendering

    def run(self, task: Pass, blocks: Sequence[int] | None = None) -> float:
        """Fills every tap of one pass (of `blocks` alone, if given); the seconds it took, 0 when nothing was missing.

        Raises DataError for an unreadable picture, EncoderError for a broken output, BenchError for a full disk;
        whatever was finished stays.
        """
        share = Share(self, task, blocks)
        together([share])
        if share.error:
            raise share.error
        return share.seconds

    def decoded(self, task: Pass, batches: Sequence[list[int]]) -> Iterator[Decoded]:
        """Pictures of the pass, batch by batch, each decoded once."""
        self.read += sum(map(len, batches))
        parts = [batch[i : i + PART] for batch in batches for i in range(0, len(batch), PART)]
        source: Any = _Decoder(task.images, task.view, parts)  # all of a torch Dataset but its name
        workers = self._worker_count(task.images, len(parts))
        loader = torch.utils.data.DataLoader(
            source,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=start_method() if workers else None,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.startswith("cuda"),
        )
        decoded = iter(loader)
        for batch in batches:
            yield Decoded.joined([next(decoded) for _ in range(0, len(batch), PART)], self.device)

    def _worker_count(self, images: ImageSet, batches: int) -> int:
        if self.workers is not None:
            return self.workers
        if images.cheap or batches < 3:  # starting a process costs more than it saves
            return 0
        return min(16 if self.device.startswith("cuda") else 8, max(1, (os.cpu_count() or 1) - 1))

    def forward(self, pixels: torch.Tensor, request: ImageRequest) -> ImageFeatures:
        """encode_image of [B, 3, H, W] uint8, halving the batch for as long as memory runs out."""
        return encode_halving(self.encoder, pixels, request, self.device, self._shrink)

    def _shrink(self, size: int) -> None:
        self.batch_size = min(self.batch_size, size)


@dataclass(eq=False)
class Share:
    """What one encoder lacks of a pass; several that see the same pixels are filled `together`."""

    extractor: Extractor
    task: Pass
    blocks: Sequence[int] | None = None  # None: all
    pictures: int = 0  # that were encoded
    seconds: float = 0.0  # that took, with its part of their decoding
    error: Exception | None = None  # what stopped it

    def begin(self) -> bool:
        """Whether anything is missing."""
        todo = self.task.missing(self.blocks)
        self.lacking = {tap: set(self.task.shards_without(array, todo)) for tap, array in self.task.taps.items()}
        self.wanted = {tap: array for tap, array in self.task.taps.items() if self.lacking[tap]}
        self.batches = self._batches(todo)
        self.starts = {batch[0] for batch in self.batches}
        self.request = taps.request_for(list(self.wanted))
        return bool(todo)

    def _batches(self, todo: list[int]) -> list[list[int]]:
        """The batches of the blocks `todo`, less those whose every shard is there."""
        batches, size = [], self.extractor.batch_size
        for block in todo:
            items = list(self.task.block_range(block))
            for i in range(0, len(items), size):
                batch = items[i : i + size]
                if any(
                    s in self.lacking[tap]
                    for tap, array in self.wanted.items()
                    for s in range(batch[0] // array.size, batch[-1] // array.size + 1)
                ):
                    batches.append(batch)
        return batches

    def fill(self, batch: Decoded, into: Filling) -> None:
        """Encodes a batch, if it is one of its own; what goes wrong is its `error`."""
        if self.error or batch.indices[0] not in self.starts:
            return
        began = time.perf_counter()
        try:
            self._encode(batch, into)
        except Exception as e:
            self.error = e
        self.seconds += time.perf_counter() - began

    def _encode(self, batch: Decoded, into: Filling) -> None:
        encoder, request, wanted = self.extractor.encoder, self.request, list(self.wanted)
        for at, stack in batch.stacked():
            features = self.extractor.forward(stack, request)
            self.extractor.forwards += len(at)
            self.pictures += len(at)
            indices = [batch.indices[i] for i in at]
            ids = [self.task.images.image_id(i) for i in indices]
            sizes = [batch.sizes[i] for i in at]
            places = [self.task.view.placement(*size) for size in sizes]
            check_features(encoder, features, ids, stack.shape[2:])
            for tap in wanted:
                items = taps.take(tap, features, request, ids, sizes, places)
                if not np.isfinite(items).all():
                    bad = ids[int(np.argmax(~np.isfinite(items.reshape(len(items), -1)).all(1)))]
                    raise EncoderError(
                        f"{encoder.card.name}: {tap.name} of {bad} holds NaN or infinite values. Try --dtype float32"
                    )
                into.add(tap, indices, items)


def together(shares: Sequence[Share]) -> None:
    """Fills what several encoders lack of passes that see the same pixels (`ResolvedView.pixels`) of the same pictures:
    each picture is decoded once. What is stored does not depend on who is filled beside whom.

    An encoder that fails stops alone, with its `error`. Raises what concerns all: DataError for an unreadable picture,
    BenchError for a full disk.
    """
    work = [share for share in shares if share.begin()]
    if not work:
        return
    size = work[0].extractor.batch_size
    _fill([share for share in work if share.extractor.batch_size == size])
    if rest := [share for share in work if share.extractor.batch_size != size]:  # one that ran out of memory
        together(rest)


def _fill(shares: Sequence[Share]) -> None:
    first = shares[0]
    lead, task = first.extractor, first.task
    begun = time.perf_counter()
    task.images.prepare(lead.progress)
    started = time.perf_counter()
    lead.prepared += started - begun
    batches = {batch[0]: batch for share in shares for batch in share.batches}
    names = ", ".join(share.extractor.encoder.card.name for share in shares)
    bar = lead.progress(f"encoding {names}", sum(map(len, batches.values())))
    writer = Writer()
    filling = [Filling(s.extractor.encoder.card.name, s.wanted, s.lacking, writer) for s in shares]
    try:
        for batch in lead.decoded(task, [batches[start] for start in sorted(batches)]):
            if batch.error:
                raise DataError(batch.error)
            for share, into in zip(shares, filling, strict=True):
                share.fill(batch, into)
            if all(share.error for share in shares):
                break
            bar.advance(len(batch.indices))
    finally:
        writer.close()
    rest = time.perf_counter() - started - sum(share.seconds for share in shares)
    for share in shares:
        share.seconds += rest / len(shares)
        share.extractor.seconds += share.seconds


def held_bytes(array: StoredArray, item_bytes: int, batch: int) -> int:
    """Bytes that extracting one tap of `item_bytes` in float32 holds at most: a shard that is being filled, one that is
    being written with the copies its codec makes, and a batch with the check that it is finite."""
    copies = {"float32": 0.25, "float16": 0.5, "int8": 1.75}[array.codec]  # 0.25: the mask of the check, freed after it
    return int((2 + copies) * min(array.size, array.n) * item_bytes + 1.25 * batch * item_bytes)


def default_batch(device: str) -> int:
    """Pictures in a batch where none was asked for."""
    return 128 if device.startswith("cuda") else 32


def check_features(encoder: Encoder, features: ImageFeatures, ids: list[str], size: Sequence[int]) -> None:
    """Raises EncoderError when shapes are not what the contract says, naming both.

    A size that is no whole patches is padded to them, but for the model's own: SigLIP's so400m takes its 384 pixels as
    27 patches of 14 and leaves 6 pixels unseen.
    """
    card, n = encoder.card, len(ids)
    cls, patches = features.cls, features.patches
    if cls.ndim != 3 or cls.shape[0] != n:
        raise EncoderError(
            f"{card.name}: cls is {list(cls.shape)}, expected [{n}, K, D]. See bench check --model {card.name}"
        )
    h, w = (-(-side // card.patch_size) for side in size)
    grids = [(h, w)]
    if tuple(size) == (card.image_size, card.image_size):
        grids.append((card.image_size // card.patch_size,) * 2)
    if patches.ndim != 4 or len(patches) != n or tuple(patches.shape[1:3]) not in grids:
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
