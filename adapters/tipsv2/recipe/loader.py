"""Steps as batches. Every random choice follows from (seed, position): a run resumes anywhere with the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.captions import draw_pair
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.masking import random_mask
from adapters.tipsv2.recipe.samples import Source
from adapters.tipsv2.recipe.stop import deaf
from adapters.tipsv2.recipe.text import Tokenizer
from adapters.tipsv2.recipe.views import random_view
from benchmark.errors import DataError, UsageError


@dataclass
class Example:
    """One sample after its random choices."""

    view: np.ndarray  # [H, W, 3] uint8
    texts: tuple[str, str]
    local: np.ndarray  # [M, h, w, 3] uint8, M = 0 outside the self-supervised branch
    mask: np.ndarray  # [N] bool
    ssl: bool
    bad: tuple[str, ...]  # messages of samples that were passed over


@dataclass
class Unreadable:
    """A position for which more samples were passed over than `data.max_bad` allows.

    A value, not an error: the loader wraps an error of a worker process into the worker's traceback.
    """

    bad: tuple[str, ...]


class Positions(Dataset[Example | Unreadable]):
    """Example of global position p: p runs over all samples of all steps and never repeats."""

    def __init__(self, source: Source, config: RecipeConfig) -> None:
        if len(source) == 0:
            raise DataError(f"data.source = {config.data.source!r} at {config.data.path!r} holds no samples")
        self.source, self.config = source, config

    def __len__(self) -> int:
        return self.config.train.steps * self.config.train.batch_size

    def index(self, position: int, attempt: int = 0) -> int:
        """The sample at `position`: each epoch is a new permutation of the source."""
        epoch, offset = divmod(position, len(self.source))
        if attempt:
            rng = np.random.default_rng((self.config.train.seed, 2, position, attempt))
            return int(rng.integers(len(self.source)))
        return int(self._permutation(epoch)[offset])

    def _permutation(self, epoch: int) -> np.ndarray:
        known = getattr(self, "_epoch", None)
        if known is None or known[0] != epoch:
            rng = np.random.default_rng((self.config.train.seed, 0, epoch))
            self._epoch = known = (epoch, rng.permutation(len(self.source)))
        return known[1]

    def __getitem__(self, position: int) -> Example | Unreadable:
        views, loss = self.config.views, self.config.loss
        bad: list[str] = []
        while True:
            try:
                sample = self.source.load(self.index(position, len(bad)))
                break
            except DataError as error:
                bad.append(str(error))
                if len(bad) > self.config.data.max_bad:
                    return Unreadable(tuple(bad))
        rng = np.random.default_rng((self.config.train.seed, 1, position))
        weights = self.config.data.synthetic_weights
        texts = draw_pair(sample.alt, sample.synthetic, rng, loss.captions, weights)
        view = random_view(sample.image, views.global_size, views.global_scale, views.ratio, views.flip, rng)
        ssl = position % loss.ssl_every == 0
        crops = views.local_crops if ssl and loss.dino > 0 else 0
        local = [
            random_view(sample.image, views.local_size, views.local_scale, views.ratio, views.flip, rng)
            for _ in range(crops)
        ]
        shape = (crops, views.local_size, views.local_size, 3)
        mask = random_mask((views.global_size // self.config.model.patch_size) ** 2, loss.mask_ratio, rng)
        return Example(view, texts, np.reshape(np.array(local, np.uint8), shape), mask, ssl, tuple(bad))


class Collate:
    """Examples of one step → (Batch, messages of bad samples); no Batch where a position is unreadable."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, found: list[Example | Unreadable]) -> tuple[Batch | None, list[str]]:
        bad = [message for each in found for message in each.bad]
        examples = [each for each in found if isinstance(each, Example)]
        if len(examples) < len(found):
            return None, bad
        chosen = [i for i, e in enumerate(examples) if e.ssl]
        texts = tuple(self.tokenizer([e.texts[k] for e in examples]) for k in range(2))
        if not chosen:
            raise UsageError("no sample of a batch runs the self-supervised branch: lower loss.ssl_every")
        batch = Batch(
            images=to_float(np.stack([e.view for e in examples])),
            texts=texts,
            captioned=torch.tensor([[self.tokenizer.says(text) for text in e.texts] for e in examples]),
            ssl_rows=torch.tensor(chosen),
            local=to_float(np.stack([examples[i].local for i in chosen], 1)),
            mask=torch.from_numpy(np.stack([examples[i].mask for i in chosen])),
        )
        return batch, bad


def to_float(pixels: np.ndarray) -> torch.Tensor:
    """[..., H, W, 3] uint8 → [..., 3, H, W] float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3))).float() / 255


def steps_from(
    start: int, dataset: Positions, tokenizer: Tokenizer, rank: int = 0, world: int = 1
) -> Iterator[tuple[Batch | None, list[str]]]:
    """This process's batches of the steps `start`, `start + 1`, …; rank r holds the r-th slice of the global batch.

    A batch is None where more of its samples are bad than `data.max_bad` allows; the messages say which.
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
    )
    with deaf():
        return iter(loader)


class _Given:
    """A batch sampler over a generator function, with a length."""

    def __init__(self, make: Callable[[], Iterator[list[int]]], length: int) -> None:
        self.make, self.length = make, length

    def __iter__(self) -> Iterator[list[int]]:
        return self.make()

    def __len__(self) -> int:
        return self.length
