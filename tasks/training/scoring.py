"""Test pictures through encoder and head, at the size of their targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from benchmark.contracts import Answer, KeptHead, TaskContext
from benchmark.data.read_ahead import read_ahead
from benchmark.images.decode import to_float, within
from benchmark.images.drawing import Kind, side_by_side
from benchmark.rows.row import slug
from benchmark.system.late import torch
from tasks.predictions import best_median_worst, image_scores, numbered
from tasks.training.augment import middle_square, stretched
from tasks.training.fields import TrainedHead

BATCH = 8  # pictures of one shape given to the encoder at a time (twice that with the mirrored ones)
Predict: TypeAlias = (
    "Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]"  # images [B, 3, H, W], size -> maps [B, C, *size]
)
Scored: TypeAlias = "tuple[int, torch.Tensor, np.ndarray]"  # index, prediction [C, H, W], target


def predicted(data: Any, indices: Iterable[int], p: TrainedHead, predict: Predict) -> Iterator[Scored]:
    """The prediction beside what counts of its target (`counted`), for each picture of `indices`, in order."""

    def one(index: int) -> tuple[int, np.ndarray, np.ndarray]:
        image, target = data.images.picture(index), data.counted(index)
        if p.test_square:
            image, target = middle_square(image), middle_square(target)
        return index, stretched(image, p), target

    group: list[tuple[int, np.ndarray, np.ndarray]] = []
    for index, image, target in read_ahead(one, indices):
        if group and (len(group) == BATCH or _shapes(group[0]) != _shapes((index, image, target))):
            yield from _through(group, p, predict)
            group = []
        group.append((index, image, target))
    if group:
        yield from _through(group, p, predict)


def _shapes(item: tuple[int, np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    return item[1].shape, item[2].shape


def _through(group: Sequence[tuple[int, np.ndarray, np.ndarray]], p: TrainedHead, predict: Predict) -> Iterator[Scored]:
    images = torch.from_numpy(np.stack([to_float(image) for _, image, _ in group]))
    size = (group[0][2].shape[0], group[0][2].shape[1])
    with torch.no_grad():
        maps = predict(images, size)
        if p.flip_test:
            mirrored = predict(images.flip(-1), size).flip(-1)
            if group[0][2].ndim == 3:  # normals of the mirrored scene look the other way along x
                mirrored = mirrored * mirrored.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
            maps = (maps + mirrored) / 2
    for (index, _, target), found in zip(group, maps):
        yield index, found, target


@dataclass(frozen=True)
class Unlabelled:
    """One picture [H, W, 3] uint8 as `predicted` reads data: nothing of its target counts."""

    shown: np.ndarray
    channels: tuple[int, ...]  # of a target's pixel

    @property
    def images(self) -> Unlabelled:
        return self

    def picture(self, index: int) -> np.ndarray:
        return self.shown

    def counted(self, index: int) -> np.ndarray:
        return np.zeros((*self.shown.shape[:2], *self.channels), np.float32)


def answered(head: KeptHead, p: TrainedHead, picture: np.ndarray, predict: Predict) -> Answer:
    """What a kept head says of a picture as the task would show it, at most as large as those it was scored on."""
    shown = within(picture, head.use["longest"])
    data = Unlabelled(shown, (3,) if head.kind == "normals" else ())
    ((_, found, _),) = predicted(data, [0], p, predict)
    values = (found[0] if head.kind == "depth" else found.permute(1, 2, 0)).float().cpu().numpy()
    return Answer(middle_square(shown) if p.test_square else shown, values)


def kept_pictures(
    context: TaskContext,
    samples: Mapping[str, np.ndarray],
    data: Any,
    p: TrainedHead,
    predict: Predict,
    kind: Kind,
    far: float = 0.0,
) -> dict[str, bytes]:
    """PNGs of the best, median and worst predictions by `samples`, or of those asked for, predicted once more."""
    if not context.keep_predictions:
        return {}
    scores, metric, _ = image_scores(samples, kind)
    chosen = numbered(context.look_at) or best_median_worst(-scores, context.keep_predictions)
    files = {}
    for (name, _), (index, found, target) in zip(chosen, predicted(data, [row for _, row in chosen], p, predict)):
        image = data.images.picture(index)
        image = middle_square(image) if p.test_square else image
        shown = (found[0] if kind == "depth" else found.permute(1, 2, 0)).float().cpu().numpy()
        target = np.where(target <= far, target, 0) if far else target
        words = f"{name}_{metric}-{scores[index]:.3g}_{slug(data.images.image_id(index))}"
        files[f"pictures/{words}.png"] = side_by_side(image, np.nan_to_num(target), shown, kind)
    return files
