"""Training batches by number: batch s is a function of (data, protocol, seed, s), made in worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmark.errors import DataError
from benchmark.system.late import torch
from benchmark.system.processes import start_method
from tasks.training.augment import augmented
from tasks.training.fields import TrainedHead


@dataclass
class Batch:
    """images [B, 3, H, W] float32 in [0, 1]; targets float32, depth [B, H, W] with 0 where nothing counts, or normals
    [B, H, W, 3] with NaN there; `error` is the user's line.
    """

    images: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    targets: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    error: str = ""


@dataclass(frozen=True)
class Batches:
    """Shuffled epochs without end: every picture once before any comes again, across batch borders too."""

    data: Any  # DepthData or NormalsData
    protocol: TrainedHead
    seed: int

    def __len__(self) -> int:
        return self.protocol.steps

    def rows(self, step: int) -> list[int]:
        """The pictures of batch `step`."""
        n, size = len(self.data.images), self.protocol.batch_size
        places = range(step * size, (step + 1) * size)
        orders = {e: np.random.default_rng([self.seed, 1, e]).permutation(n) for e in {p // n for p in places}}
        return [int(orders[p // n][p % n]) for p in places]

    def __getitem__(self, step: int) -> Batch:
        examples = []
        for place, row in enumerate(self.rows(step)):
            try:
                image, target = self.data.images.picture(row), self.data.counted(row)
            except (DataError, OSError, ValueError) as e:  # as words: not every exception survives pickling
                where = "" if isinstance(e, DataError) else f"{self.data.images.image_id(row)}: cannot be read: "
                return Batch(error=f"{where}{e}")
            if image.shape[:2] != target.shape[:2]:
                return Batch(
                    error=f"{self.data.images.image_id(row)}: is {image.shape[1]}x{image.shape[0]} but its map is "
                    f"{target.shape[1]}x{target.shape[0]}. Both must be the same size"
                )
            if target.ndim == 2:
                target = np.where(np.isfinite(target), target, 0)
            target = target.astype(np.float32)
            rng = np.random.default_rng([self.seed, 2, step, place])
            examples.append(augmented(image, target, self.protocol, rng))
        return Batch(*_stacked(examples))

    def read(self, start: int) -> Iterator[Batch]:
        """Batches `start` … `steps` - 1 in order. Raises DataError for a picture or map that cannot be read."""
        return self.made(range(start, len(self)))

    def made(self, steps: Iterable[int]) -> Iterator[Batch]:
        """The batches `steps` in their order, each number asked for a little before it is due. Raises as `read`."""
        workers = self._workers(len(steps) if isinstance(steps, Sized) else len(self))
        loader: Any = torch.utils.data.DataLoader(
            self,  # type: ignore[arg-type]
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            multiprocessing_context=start_method() if workers else None,
        )
        for batch in loader:
            if batch.error:
                raise DataError(batch.error)
            yield batch

    def _workers(self, count: int) -> int:
        if self.data.images.cheap or count < 8:
            return 0  # starting a process costs more than it saves
        return min(8, max(1, (os.cpu_count() or 1) - 1))


def _stacked(examples: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of one batch are brought to its largest height and width with black, unlabelled pixels."""
    height = max(image.shape[0] for image, _ in examples)
    width = max(image.shape[1] for image, _ in examples)
    images = torch.zeros(len(examples), 3, height, width)
    further = examples[0][1].shape[2:]
    targets = torch.full((len(examples), height, width, *further), float("nan") if further else 0.0)
    for i, (image, target) in enumerate(examples):
        h, w = image.shape[:2]
        images[i, :, :h, :w] = torch.from_numpy(image).permute(2, 0, 1) / 255
        targets[i, :h, :w] = torch.from_numpy(target)
    return images, targets
