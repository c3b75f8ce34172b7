"""Semantic segmentation with a linear probe (TIPSv2 §4.1, Table 7): mIoU at full resolution.

`pixel_segmentation`: multinomial logistic regression on sampled pixels, the penalty chosen on held-out training images.
The surprise: ridge regression on class fractions, the usual shortcut, is 11 mIoU lower on the same features.
`mm_probe`: DINOv2's protocol, trained by mmengine's Runner on mmsegmentation's pipelines (`tasks/mm/probe.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.contracts import (
    Answer,
    Encoder,
    EncoderCard,
    KeptHead,
    Method,
    Need,
    Outcome,
    StepSource,
    Tap,
    Task,
    TaskContext,
    ignored_label,
)
from benchmark.errors import DataError
from benchmark.heads.logistic import Criterion, fit_logistic
from benchmark.images.windows import Size, window_sizes
from benchmark.metrics.segmentation import confusion_areas
from benchmark.registry import resolve
from benchmark.system.bounds import Count
from benchmark.system.late import torch
from tasks.dense import (
    PixelMethod,
    PixelProbe,
    head_use,
    layer_not_there,
    predicted_maps,
    stack_rows,
    training_pixels,
)
from tasks.mm.protocol import MmProbe
from tasks.predictions import Predictions
from tasks.segmentation_scores import cross_check, segmentation_outcome
from tasks.sliding import resized


@dataclass(frozen=True)
class PixelSegmentation(PixelProbe):
    """A PixelProbe, and how its penalty is chosen on held-out training images."""

    judged_images: Count  # held out at least, in as many folds of the share `holdout` as that takes
    selection: Criterion


class MmMethod(Method[MmProbe]):
    """A linear head trained by mmengine's Runner on live crops, slid over every test picture."""

    schema = MmProbe

    @property
    def keeps_head(self) -> bool:
        return True

    def splits(self) -> Sequence[str]:
        return ("train", "test")

    def dataset_options(self, dataset: str) -> Mapping[str, str]:
        """VOC 2012 has two training lists."""
        return {"train": self.protocol.voc_train} if dataset == "voc2012" else {}

    def not_applicable(self, card: EncoderCard) -> str | None:
        return next(filter(None, (layer_not_there(card, layer) for layer in self.protocol.layers)), None)

    def live_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        """Forwards of training crops, and of windows over test pictures."""
        protocol = self.protocol.sized(card.image_size)
        sizes = [resized(h, w, protocol.short_side, protocol.long_side) for h, w in shapes]
        windows = window_sizes(sizes, protocol.window, protocol.stride)
        return Counter(self.crop_forwards(card, shapes, train)) + windows

    def crop_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        side = self.protocol.sized(card.image_size).crop
        return {(side, side): self.protocol.steps * self.protocol.batch_size}

    def step_source(self, context: TaskContext) -> StepSource:
        """The crops that the head is trained on, encoded."""
        source: StepSource = resolve("tasks.mm.probe:step_source")(context, self.protocol)
        return source

    def head_steps(self) -> int:
        return self.protocol.steps

    def run(self, context: TaskContext) -> Outcome:
        """Trains the head, scores every test pixel; samples are per-image class areas."""
        _check_two_classes(context.data["train"])
        outcome: Outcome = resolve("tasks.mm.probe:run")(context, self.protocol)  # mm* is imported only here
        return outcome

    def answer(self, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
        """The windows of the test, slid over the picture."""
        found: Answer = resolve("tasks.mm.probe:answer")(self.protocol, head, encoder, device, picture)
        return found


class PixelSegmentationMethod(PixelMethod[PixelSegmentation]):
    """Logistic regression on sampled training pixels."""

    schema = PixelSegmentation

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        """As every pixel probe; where pixels outnumber the patches of a picture, those are kept and mixed in the head:
        the same loss for a share of the time."""
        needs = dict(super().needs(card, data))
        if self._from_patches(card, len(data["train"].images)):
            pixels = needs.pop("train/pixels")
            needs["train/patches"] = Need(pixels.images, pixels.view, Tap("patches", pixels.tap.layer))
        return needs

    def head_rows(self, card: EncoderCard, n: int) -> tuple[int, int]:
        return (self.protocol.pixels(n) * n, card.embed_dim) if self._from_patches(card, n) else (0, 0)

    def _from_patches(self, card: EncoderCard, images: int) -> bool:
        protocol = self.protocol
        side = -(-(protocol.view_size or card.image_size) // card.patch_size)
        return protocol.view == "square" and not protocol.with_cls and protocol.pixels(images) > side**2

    def run(self, context: TaskContext) -> Outcome:
        """Fits on the training images, scores every test pixel; samples are per-image class areas."""
        _check_two_classes(context.data["train"])
        protocol, test = self.protocol, context.data["test"]
        needs = self.needs(context.card, context.data)
        classes = len(test.class_names)
        started = time.perf_counter()
        ignored = ignored_label(classes)
        pixels = training_pixels(
            context, needs, protocol, lambda v, _: (v != ignored) & (v >= 0), protocol.judged_images
        )
        labels = pixels.targets.astype(np.int64)
        if labels.max() >= classes:
            raise DataError(f"label {labels.max()} in a training mask, but there are {classes} classes")
        head = fit_logistic(
            pixels.features,
            torch.from_numpy(labels),
            classes,
            protocol.penalties,
            pixels.fold,
            device=context.device,
            criterion=protocol.selection,
            progress=context.progress("fitting the linear head", len(protocol.penalties) + 1),
        )
        fitted = time.perf_counter()
        check, kept = cross_check(context, classes), Predictions(context, "segmentation")
        rows = []
        for index, at_size, target in predicted_maps(context, needs, head.logits, "scoring segmentation", test.target):
            prediction = at_size(*target.shape[:2]).argmax(0)
            rows.append({"id": test.images.image_id(index), **confusion_areas(prediction, target, classes).columns()})
            kept.add(index, prediction)
            if check:
                check.add(prediction, target)
        samples = stack_rows(rows)
        use = {
            **head_use(protocol),
            "names": list(test.class_names),
            "palette": np.asarray(test.palette or []).tolist(),
        }
        outcome = segmentation_outcome(
            samples,
            test.class_names,
            {"penalty": head.penalty},
            check,
            kept.files(samples),
            fit_s=fitted - started,
            score_s=time.perf_counter() - fitted,
        )
        outcome.head = KeptHead("segmentation", {"weight": head.weight, "bias": head.bias}, use)
        return outcome


def _check_two_classes(train: Any) -> None:
    """Raises DataError where all training masks are of one class; reads them until there is a second."""
    seen: set[int] = set()
    ignored = ignored_label(len(train.class_names))
    for index in range(len(train.images)):
        found = np.unique(train.target(index))
        seen |= {int(label) for label in found[(found >= 0) & (found != ignored)]}
        if len(seen) > 1:
            return
    if seen:  # without any label it is another mistake, with a line of its own
        raise DataError(f"every training pixel is of class {seen.pop()}: nothing can be learned. Check the masks")


METHODS: Mapping[str, type[Method[Any]]] = {"pixel_segmentation": PixelSegmentationMethod, "mm_probe": MmMethod}
TASK = Task("linear_segmentation", "segmentation", METHODS, trained=True)
