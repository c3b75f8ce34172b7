"""What every segmentation task reports beside its maps: its measures, its classes, mmsegmentation's own opinion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmark.contracts import Measurement, Outcome, TaskContext
from benchmark.errors import DataError
from benchmark.metrics.segmentation import blind_areas, mean_accuracy, miou, per_class_iou, pixel_accuracy
from benchmark.registry import resolve


def cross_check(context: TaskContext, classes: int) -> Any:
    """With `--cross-check`, an object with `add(prediction [H, W], target [H, W])` and `details(samples)`; else None.

    `details` gives mIoU by mmsegmentation's IoUMetric and raises BenchError where it is not ours.
    """
    return resolve("tasks.mm.cross_check:IouCrossCheck")(classes) if context.cross_check else None


def segmentation_outcome(
    samples: Mapping[str, np.ndarray],
    names: Sequence[str],
    own: Mapping[str, Any],
    check: Any,
    files: Mapping[str, bytes],
    *,
    score_s: float,
    fit_s: float = 0.0,
) -> Outcome:
    """mIoU, mean class accuracy and pixel accuracy of `samples`: an id and K-class areas for each picture.

    `own` are the task's details, `check` is what `cross_check` gave. Raises as `segmentation_details` and the check do.
    """
    measured = [
        Measurement("mIoU", miou(), True, "%"),
        Measurement("mAcc", mean_accuracy(), True, "%"),
        Measurement("aAcc", pixel_accuracy(), True, "%"),
    ]
    details = {**own, **segmentation_details(samples, names), **(check.details(samples) if check else {})}
    return Outcome(
        samples,
        measured,
        main_metric="mIoU",
        n=len(samples["id"]),
        details=details,
        fit_s=fit_s,
        score_s=score_s,
        files=files,
        blind=blind_areas(samples["target_area"]),
    )


def segmentation_details(rows: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """IoU of each class in percent, None for a class that neither appears nor is predicted.

    Raises DataError where only one class does either: its 100 % would compare nothing.
    """
    values = per_class_iou(rows["intersection"], rows["union"])
    seen = [name for name, value in zip(names, values) if not np.isnan(value)]
    if len(seen) == 1 and len(names) > 1:
        raise DataError(
            f"every labelled pixel of the {len(rows['id'])} test pictures is {seen[0]!r}, and so is every prediction: "
            "nothing is told apart. Check the masks: 255 is ignored, so foreground must not be saved as 255"
        )
    return {"per_class_iou": {n: None if np.isnan(v) else round(float(v), 4) for n, v in zip(names, values)}}
