"""Semantic segmentation with a linear probe (TIPSv2 §4.1, Table 7): mIoU at full resolution, 255 ignored.

`pixel_probe`: multinomial logistic regression on sampled pixels, the penalty chosen on held-out training images.
The surprise: ridge regression on class fractions, the usual shortcut, is 11 mIoU lower on the same features.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from benchmark.contracts import IGNORE, DataKind, EncoderCard, Measurement, Need, Outcome, TaskContext
from benchmark.errors import DataError
from benchmark.heads.logistic import fit_logistic
from benchmark.metrics.segmentation import confusion_areas, mean_accuracy, miou, per_class_iou, pixel_accuracy
from tasks.dense import PixelProbe, dense_not_applicable, predicted_maps, probe_needs, stack_rows, training_pixels


class LinearSegmentationTask:
    """Logistic regression from patch tokens to classes."""

    name: ClassVar[str] = "linear_segmentation"
    kind: ClassVar[DataKind] = "segmentation"
    needs_text: ClassVar[bool] = False
    schemas: ClassVar[Mapping[str, type]] = {"pixel_probe": PixelProbe}

    def splits(self, protocol: PixelProbe) -> Sequence[str]:
        return ("train", "test")

    def not_applicable(self, card: EncoderCard, protocol: PixelProbe) -> str | None:
        return dense_not_applicable(card, protocol)

    def needs(self, card: EncoderCard, protocol: PixelProbe, data: Mapping[str, Any]) -> Sequence[Need]:
        return probe_needs(protocol, data)

    def run(self, context: TaskContext) -> Outcome:
        """Fits on sampled training pixels, scores every test pixel; samples are per-image class areas."""
        protocol, test = context.protocol, context.data["test"]
        needs = self.needs(context.card, protocol, context.data)
        classes = len(test.class_names)
        started = time.perf_counter()
        pixels = training_pixels(context, needs, protocol, lambda v, _: (v != IGNORE) & (v >= 0))
        labels = pixels.targets.astype(np.int64)
        if labels.max() >= classes:
            raise DataError(f"label {labels.max()} in a training mask, but there are {classes} classes")
        head = fit_logistic(
            pixels.features,
            torch.from_numpy(labels),
            classes,
            protocol.penalties,
            pixels.holdout,
            device=context.device,
        )
        fitted = time.perf_counter()
        rows = score_segmentation(context, needs, head.logits, classes, protocol.with_cls)
        details = {"penalty": head.penalty, **segmentation_details(rows, test.class_names)}
        return Outcome(
            rows,
            segmentation_measurements(),
            "mIoU",
            len(test.images),
            details,
            fitted - started,
            time.perf_counter() - fitted,
        )


def score_segmentation(
    context: TaskContext, needs: Sequence[Need], head: Any, classes: int, with_cls: bool
) -> dict[str, np.ndarray]:
    """Per-image class areas of the head's argmax at full resolution."""
    test = context.data["test"]
    reader = context.features(needs[1])
    cls = context.features(needs[3]) if with_cls else None
    rows = []
    maps = predicted_maps(context, reader, cls, test.images, needs[1], head, "scoring segmentation")
    for index, at_size in maps:
        target = test.target(index)
        prediction = at_size(*target.shape[:2]).argmax(0)
        areas = confusion_areas(prediction, target, classes)
        rows.append({"id": test.images.image_id(index), **areas.columns()})
    return stack_rows(rows)


def segmentation_measurements() -> list[Measurement]:
    """mIoU, mean class accuracy, pixel accuracy."""
    return [
        Measurement("mIoU", miou(), True, "%"),
        Measurement("mAcc", mean_accuracy(), True, "%"),
        Measurement("aAcc", pixel_accuracy(), True, "%"),
    ]


def segmentation_details(rows: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """IoU of each class in percent, None for a class that neither appears nor is predicted."""
    values = per_class_iou(rows["intersection"], rows["union"])
    return {"per_class_iou": {n: None if np.isnan(v) else round(float(v), 4) for n, v in zip(names, values)}}


TASK = LinearSegmentationTask()
