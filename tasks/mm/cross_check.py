"""mIoU a second time, by mmsegmentation's IoUMetric, on the very predictions that are scored (`--cross-check`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from benchmark.contracts import ignored_label
from benchmark.errors import BenchError
from benchmark.metrics.segmentation import miou
from tasks.mm.library import IoUMetric

TOLERANCE = 1e-6  # percentage points


class IouCrossCheck:
    """Collects predictions beside our own statistics and compares the two means at the end."""

    def __init__(self, classes: int) -> None:
        self.ignored = ignored_label(classes)
        self.metric = IoUMetric(ignore_index=self.ignored, iou_metrics=["mIoU"], prefix="mm")
        self.metric.dataset_meta = {"classes": tuple(map(str, range(classes)))}

    def add(self, prediction: torch.Tensor, target: np.ndarray | torch.Tensor) -> None:
        """One image: [H, W] predicted and true class indices."""
        truth = torch.as_tensor(np.asarray(target)).long()
        truth = torch.where(truth == -1, self.ignored, truth)
        sample = {"pred_sem_seg": {"data": torch.as_tensor(prediction).long().cpu()}, "gt_sem_seg": {"data": truth}}
        self.metric.process({}, [sample])

    def details(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """`{"cross_check": …}` with both values and their difference in percentage points.

        IoUMetric counts pixels in float32, exact up to 2^24 per image, and would also sum images in float32; its counts
        are summed in float64 here. Raises BenchError when the difference is above 1e-6.
        """
        totals = [torch.stack(list(part)).double().sum(0) for part in zip(*self.metric.results)]
        iou = IoUMetric.total_area_to_metrics(*totals, metrics=["mIoU"])["IoU"]
        theirs, ours = float(100 * np.nanmean(iou)), float(miou().of(samples))
        difference = abs(ours - theirs)
        if not difference <= TOLERANCE:
            raise BenchError(
                f"--cross-check: mIoU is {ours:.9f}, mmsegmentation's IoUMetric gives {theirs:.9f} on the same "
                "predictions. One of the two is wrong: please report it"
            )
        return {"cross_check": {"mIoU": theirs, "by": "mmseg.evaluation.IoUMetric", "difference": difference}}
