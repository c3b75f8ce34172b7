"""In-context segmentation: the label of a test patch from its nearest neighbours among labelled training patches.

Hummingbird's evaluation (Balažević et al. 2023) and the kNN of capi (Darcet et al. 2025) differ in fields only. Nothing
is trained, so the answer says how patches of one kind lie together, not what a head could make of them. One search says
what a quarter and a half of the memory would have scored: whether the number still rises with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.contracts import EncoderCard, Method, Need, Outcome, Tap, Task, TaskContext, View
from benchmark.data.read_ahead import read_ahead
from benchmark.errors import DataError
from benchmark.metrics.segmentation import confusion_areas, miou
from benchmark.system.late import torch
from tasks.dense import held_out_images, layer_not_there, stack_rows
from tasks.patch_memory import BLOCK, SHARES, Distance, Memory, PatchMemory, Space, nearest_pixels
from tasks.predictions import Predictions
from tasks.segmentation_scores import cross_check, segmentation_outcome
from tasks.sliding import best_class

QUERY_BYTES = 128 << 20  # of test patches looked up at a time


class PatchMemoryMethod(Method[PatchMemory]):
    """Weighted nearest neighbours among patches of the training pictures."""

    schema = PatchMemory

    def splits(self) -> Sequence[str]:
        return ("train", "test")

    def dataset_options(self, dataset: str) -> Mapping[str, str]:
        """VOC 2012 has two training lists."""
        return {"train": self.protocol.voc_train} if dataset == "voc2012" else {}

    def not_applicable(self, card: EncoderCard) -> str | None:
        return layer_not_there(card, self.protocol.layer)

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        side = self.protocol.side(card.image_size, card.patch_size) if self.protocol.view_size else 0
        tap = Tap("patches", None if self.protocol.layer == -1 else self.protocol.layer)
        return {f"{split}/patches": Need(data[split].images, View("square", side), tap) for split in self.splits()}

    def run(self, context: TaskContext) -> Outcome:
        """Fills the memory, looks up every test patch; samples are per-image class areas."""
        started = time.perf_counter()
        n, pairs = len(context.features("train/patches")), self.protocol.pairs()
        if n < 2 and len(pairs) > 1:
            raise DataError(f"{n} training picture: neighbours are chosen on a held-out one, so two are needed")
        held = held_out_images(n, self.protocol.holdout, context.seed) if len(pairs) > 1 else np.zeros(n, bool)
        tried = self._tried(context, held)
        distance, k = max(pairs, key=lambda pair: np.nan_to_num(tried.get(pair, 0), nan=-1))
        memory = self._memory(context, np.arange(n), distance, ~held)
        filled = time.perf_counter()
        test, check = context.data["test"], cross_check(context, memory.classes)
        rows, kept = [], Predictions(context, "segmentation")
        smaller: list[list[dict[str, Any]]] = [[] for _ in SHARES[:-1]]
        for index, answers, truth in self._answers(context, "test", memory, (k,)):
            judged = [self._judged(of_size[0], truth) for of_size in answers]
            areas = [confusion_areas(found, target, memory.classes).columns() for found, target in judged]
            for columns, into in zip(areas, smaller):
                into.append(columns)
            rows.append({"id": test.images.image_id(index), **areas[-1]})
            if context.keep_predictions:
                kept.add(index, answers[-1][0].at_size(*truth.shape))
            if check:
                check.add(*judged[-1])
        samples = stack_rows(rows)
        by_size = [miou().of(stack_rows(columns)) for columns in (*smaller, rows)]
        details: dict[str, Any] = {
            "memory": {"patches": len(memory), "mIoU": {s: round(float(v), 4) for s, v in zip(SHARES, by_size)}},
            "neighbours": k,
            "distance": distance,
        }
        if tried:
            details["held_out_mIoU"] = {f"{name} {count}": round(v, 4) for (name, count), v in tried.items()}
        return segmentation_outcome(
            samples,
            test.class_names,
            details,
            check,
            kept.files(samples),
            fit_s=filled - started,
            score_s=time.perf_counter() - filled,
        )

    def _tried(self, context: TaskContext, held: np.ndarray) -> dict[tuple[Distance, int], float]:
        """mIoU of every distance and number of neighbours on the training pictures held out; {} where none are."""
        tried: dict[tuple[Distance, int], float] = {}
        for distance in self.protocol.distances if held.any() else ():
            memory, rows = self._memory(context, np.flatnonzero(~held), distance, ~held), []
            ks = self.protocol.neighbours
            for _, answers, truth in self._answers(context, "train", memory, ks, np.flatnonzero(held)):
                judged = [self._judged(answer, truth) for answer in answers[-1]]
                rows.append([confusion_areas(*both, memory.classes).columns() for both in judged])
            for k, columns in zip(ks, zip(*rows)):
                tried[distance, k] = float(miou().of(stack_rows(columns)))
        return tried

    def _memory(self, context: TaskContext, pictures: np.ndarray, distance: Distance, fitted: np.ndarray) -> Memory:
        """A memory of `pictures`; standardised by those that are `fitted`."""
        reader = context.features("train/patches")

        def blocks(of: np.ndarray) -> Iterator[torch.Tensor]:
            for start in range(0, len(of), BLOCK):
                yield reader[of[start : start + BLOCK]].flatten(0, 2)

        space = Space(distance)
        if self.protocol.standardise:
            space.standardise(blocks(np.flatnonzero(fitted)))
        if distance == "L2":
            space.lift(blocks(pictures))
        return Memory(context, self.protocol, pictures, space)

    def _answers(
        self, context: TaskContext, split: str, memory: Memory, ks: Sequence[int], pictures: np.ndarray | None = None
    ) -> Iterator[tuple[int, list[list[Answer]], np.ndarray]]:
        """For each of `pictures` (None: all): its index, for memories of the SHARES an answer by each of `ks`, and its
        mask."""
        reader = context.features(f"{split}/patches")
        chosen = np.arange(len(reader)) if pictures is None else pictures
        _, h, w, width = reader.shape
        at_once = max(1, QUERY_BYTES // (4 * h * w * width))
        bar = context.progress("looking up patches", len(chosen))
        truths = read_ahead(context.data[split].target, chosen.tolist())
        for start in range(0, len(chosen), at_once):
            block = chosen[start : start + at_once]
            found = list(memory.nearest(reader[block].flatten(0, 2), max(ks)))
            for place, index in enumerate(block):
                rows = slice(place * h * w, (place + 1) * h * w)
                yield (
                    int(index),
                    [
                        [Answer(memory.votes(scores[rows, :k], where[rows, :k]), (h, w), memory.patch) for k in ks]
                        for scores, where in found
                    ],
                    np.asarray(next(truths)),
                )
            bar.advance(len(block))

    def _judged(self, answer: Answer, truth: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """(prediction, target) at the pixels that are scored."""
        if self.protocol.resolution == "view":
            truth = nearest_pixels(truth, *(cells * answer.patch for cells in answer.grid))
        return answer.at_size(*truth.shape), truth


@dataclass(frozen=True)
class Answer:
    """What the memory says of one picture."""

    votes: np.ndarray  # shares [P, C] float32, or classes [P, patch²]
    grid: tuple[int, int]
    patch: int

    def at_size(self, height: int, width: int) -> torch.Tensor:
        """Class of each pixel [height, width]: the best of the shares, up-sampled (bilinear, align_corners False; ties
        go to the lower class), or the nearest of the classes."""
        h, w = self.grid
        if self.votes.dtype != np.float32:
            cells = self.votes.reshape(h, w, self.patch, self.patch).swapaxes(1, 2)
            return torch.from_numpy(nearest_pixels(cells.reshape(h * self.patch, w * self.patch), height, width))
        named = np.flatnonzero(self.votes.any(0))  # the others cannot win, and most classes are in no picture
        maps = torch.from_numpy(self.votes[:, named].T.reshape(-1, h, w))
        return torch.from_numpy(named)[best_class(maps, height, width)[0]]


METHODS: Mapping[str, type[Method[Any]]] = {"patch_memory": PatchMemoryMethod}
TASK = Task("in_context_segmentation", "segmentation", METHODS, trained=True)
