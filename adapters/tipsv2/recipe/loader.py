"""Steps as batches. Every random choice follows from (seed, position): a run resumes anywhere with the same bytes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from adapters.tipsv2.recipe.batch import Batch, channels_first
from adapters.tipsv2.recipe.captions import draw_pair
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.masking import random_mask
from adapters.tipsv2.recipe.order import Order
from adapters.tipsv2.recipe.samples import Source
from adapters.tipsv2.recipe.stop import deaf
from adapters.tipsv2.recipe.text import Tokenizer
from adapters.tipsv2.recipe.views import cut, draw_crop, pixels_of
from benchmark.errors import BenchError, DataError, UsageError
from benchmark.system.files import machine_fault
from benchmark.system.plurals import number_of


@dataclass
class Example:
    """One sample after its random choices."""

    view: np.ndarray  # [H, W, 3] uint8
    texts: tuple[str, str]
    local: list[np.ndarray]  # M of [h, w, 3] uint8, M = 0 outside the self-supervised branch
    mask: np.ndarray  # [N] bool
    ssl: bool
    bad: tuple[str, ...]  # messages of samples that were passed over


@dataclass
class Unreadable:
    """A position for which more samples were passed over than `data.max_bad` allows, or at which the machine failed.

    A value, not an error: the loader wraps an error of a worker process into the worker's traceback.
    """

    bad: tuple[str, ...]
    failed: str = ""  # what no sample is to blame for: too many open files, a server that does not answer


class Positions(Dataset[Example | Unreadable]):
    """Example of global position p: p runs over all samples of all steps and never repeats."""

    def __init__(self, source: Source, config: RecipeConfig) -> None:
        if len(source) == 0:
            raise DataError(f"data.source = {config.data.source!r} at {config.data.path!r} holds no samples")
        if (batch := config.train.batch_size) > len(source):
            raise UsageError(
                f"train.batch_size = {batch}, but the data hold {number_of(len(source), 'sample')}: copies of a picture"
                f" would be each other's negatives. Set train.batch_size to at most {len(source)}, or give more samples"
                " (data.path, data.samples)"
            )
        starts = getattr(source, "starts", None) if config.data.order == "shards" else None
        if starts is None and config.data.order == "shards":
            raise UsageError('data.order = "shards", but data.source is not "tar". Set data.order = "samples"')
        self.source, self.config = source, config
        self.order = Order(len(source), config.train.seed, starts)

    def __len__(self) -> int:
        return self.config.train.steps * self.config.train.batch_size

    def index(self, position: int, attempt: int = 0) -> int:
        """The sample at `position`: each epoch is a new permutation of the source."""
        if attempt:
            rng = np.random.default_rng((self.config.train.seed, 2, position, attempt))
            return int(rng.integers(len(self.source)))
        return self.order(*divmod(position, len(self.source)))

    def __getitem__(self, position: int) -> Example | Unreadable:
        views, loss = self.config.views, self.config.loss
        bad: list[str] = []
        while True:
            try:
                sample = self.source.load(self.index(position, len(bad)))
                break
            except BenchError as error:
                if why := _of_the_machine(error):
                    return Unreadable(tuple(bad), why)
                bad.append(str(error))
                if len(bad) > self.config.data.max_bad:
                    return Unreadable(tuple(bad))
        rng = np.random.default_rng((self.config.train.seed, 1, position))
        weights = self.config.data.synthetic_weights
        texts = draw_pair(sample.alt, sample.synthetic, rng, loss.captions, weights)
        ssl = position % loss.ssl_every == 0
        sizes = [(views.global_size, views.global_scale)]
        sizes += [(views.local_size, views.local_scale)] * (views.local_crops if ssl and loss.dino > 0 else 0)
        width, height = sample.image.size
        # all is drawn before anything is cut, which is faster than in turn: neither finds the caches full of the other
        crops = [draw_crop(width, height, scale, views.ratio, views.flip, rng) for _, scale in sizes]
        mask = random_mask((views.global_size // self.config.model.patch_size) ** 2, loss.mask_ratio, rng)
        pixels = pixels_of(sample.image)
        view, *local = [cut(pixels, crop, size) for crop, (size, _) in zip(crops, sizes)]
        return Example(view, texts, local, mask, ssl, tuple(bad))


def _of_the_machine(error: BenchError) -> str:
    """What to say where no sample is to blame for the error, which may stand before the system's own; else ""."""
    if not isinstance(error, DataError):
        return str(error)
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, OSError) and known.errno in (errno.EMFILE, errno.ENFILE):
            return machine_fault(known)
        known = known.__cause__ or known.__context__
    return ""


class Collate:
    """Examples of one step → (Batch, messages of bad samples, ""); no Batch where a position is unreadable, and the
    reason last where the machine failed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, found: list[Example | Unreadable]) -> tuple[Batch | None, list[str], str]:
        bad = [message for each in found for message in each.bad]
        examples = [each for each in found if isinstance(each, Example)]
        if len(examples) < len(found):
            return None, bad, next((each.failed for each in found if isinstance(each, Unreadable) and each.failed), "")
        chosen = [i for i, e in enumerate(examples) if e.ssl]
        texts = tuple(self.tokenizer([e.texts[k] for e in examples]) for k in range(2))
        if not chosen:
            raise UsageError("no sample of a batch runs the self-supervised branch: lower loss.ssl_every")
        batch = Batch(
            images=channels_first(torch.from_numpy(np.stack([e.view for e in examples]))),
            texts=texts,
            captioned=torch.tensor([[self.tokenizer.says(text) for text in e.texts] for e in examples]),
            ssl_rows=torch.tensor(chosen),
            local=_crops([examples[i].local for i in chosen]),
            mask=torch.from_numpy(np.stack([examples[i].mask for i in chosen])),
        )
        return batch, bad, ""


def _crops(local: list[list[np.ndarray]]) -> torch.Tensor:
    """[M, b, 3, h, w] of the M crops of b samples; with none of them [0, b, 3, 0, 0]."""
    b, count = len(local), len(local[0])
    if count == 0:
        return torch.empty(0, b, 3, 0, 0, dtype=torch.uint8)
    crops = np.stack([each[m] for m in range(count) for each in local])
    return channels_first(torch.from_numpy(crops.reshape(count, b, *crops.shape[1:])))


def steps_from(
    start: int, dataset: Positions, tokenizer: Tokenizer, rank: int = 0, world: int = 1
) -> Iterator[tuple[Batch | None, list[str]]]:
    """This process's batches of the steps `start`, `start + 1`, …; rank r holds the r-th slice of the global batch.

    A batch is None where more of its samples are bad than `data.max_bad` allows; the messages say which. Raises
    BenchError where the machine fails, which is no fault of a sample.
    """
    train = dataset.config.train
    share = train.batch_size // world

    def positions() -> Iterator[list[int]]:
        for step in range(start, train.steps):
            first = step * train.batch_size + rank * share
            yield list(range(first, first + share))

    workers = dataset.config.data.workers
    loader = DataLoader(
        dataset,
        batch_sampler=_Given(positions, train.steps - start),
        collate_fn=Collate(tokenizer),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available() and train.device != "cpu",
    )
    with deaf() if workers else nullcontext():
        found = iter(loader)
    try:
        for batch, bad, failed in found:
            if failed:
                raise BenchError(failed)
            yield batch, bad
    finally:
        del found  # its workers end here, not with the last traceback that knows it


class _Given:
    """A batch sampler over a generator function, with a length."""

    def __init__(self, make: Callable[[], Iterator[list[int]]], length: int) -> None:
        self.make, self.length = make, length

    def __iter__(self) -> Iterator[list[int]]:
        return self.make()

    def __len__(self) -> int:
        return self.length
