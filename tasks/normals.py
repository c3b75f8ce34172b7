"""Surface normals (TIPSv2 §4.1, Table 7): angular RMSE in degrees at full resolution.

`pixel_normals`: ridge regression to the three components on sampled pixels, normalised after up-sampling.
`trained_normals`: a DPT head trained by gradient steps on augmented pictures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.contracts import Answer, Encoder, KeptHead, Measurement, Outcome, Task, TaskContext
from benchmark.metrics.geometry import ANGLE_BIN, has_normal, normal_errors
from benchmark.statistics.statistic import Statistic
from benchmark.system.late import torch
from tasks.dense import (
    Columns,
    PixelMethod,
    PixelProbe,
    fit_ridge,
    head_use,
    predicted_maps,
    resampled_by_thing,
    training_pixels,
)
from tasks.predictions import Predictions
from tasks.trained_normals import TrainedNormals, answer, run_trained
from tasks.training.method import TrainedMethod


@dataclass(frozen=True)
class PixelNormals(PixelProbe):
    """A PixelProbe; nothing more to choose."""


class TrainedNormalsMethod(TrainedMethod[TrainedNormals]):
    """A DPT head trained by gradient steps."""

    schema = TrainedNormals

    def dataset_options(self, dataset: str) -> Mapping[str, str]:
        """Which pixels count, and how NAVI's normals come from its depth."""
        if dataset not in ("navi", "nyuv2"):
            return {}
        navi = {"normals": self.protocol.navi_normals} if dataset == "navi" else {}
        return {"valid": self.protocol.valid, **navi}

    def run(self, context: TaskContext) -> Outcome:
        """Trains or loads the head, scores every valid test pixel."""
        return run_trained(context, self.protocol, normal_measurements())

    def answer(self, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
        """As the task predicts a test picture of the size it was scored on."""
        return answer(self.protocol, head, encoder, device, picture)


class PixelNormalsMethod(PixelMethod[PixelNormals]):
    """Ridge regression on sampled training pixels."""

    schema = PixelNormals

    def run(self, context: TaskContext) -> Outcome:
        """Fits on the training pictures, scores every valid test pixel."""
        protocol, test = self.protocol, context.data["test"]
        needs = self.needs(context.card, context.data)
        started = time.perf_counter()
        pixels = training_pixels(context, needs, protocol, lambda v, _: has_normal(v))
        targets = torch.from_numpy(pixels.targets.astype(np.float32))
        head = fit_ridge(pixels, targets, protocol.penalties, context.device)
        fitted = time.perf_counter()
        mean = pixels.targets.mean(0)
        rows, blind = Columns(len(test.images)), Columns(len(test.images))
        kept = Predictions(context, "normals")
        for index, at_size, target in predicted_maps(context, needs, head.predict, "scoring normals", test.counted):
            prediction = at_size(*target.shape[:2]).permute(1, 2, 0)  # only the angle counts: length plays no part
            kept.add(index, prediction)
            rows.add({"id": test.images.image_id(index), **normal_errors(prediction, target, True)})
            blind.add(normal_errors(np.full(target.shape, mean, np.float32), target, True))
        samples = rows.table()
        return Outcome(
            samples,
            resampled_by_thing(test, samples, normal_measurements()),
            main_metric="angular RMSE",
            n=rows.filled,
            details={"penalty": head.penalty},
            fit_s=fitted - started,
            score_s=time.perf_counter() - fitted,
            files=kept.files(samples),
            head=KeptHead("normals", {"weight": head.weight, "bias": head.bias}, head_use(protocol)),
            blind=[blind.table()],
        )


def normal_measurements() -> list[Measurement]:
    """Angular RMSE per image (main) and pooled, mean and median angle, shares of pixels below three angles."""
    shares = [
        Measurement(f"{t:g}°", Statistic("ratio", (f"hits_{int(t)}", "n"), 100.0), True, "%")
        for t in (11.25, 22.5, 30.0)
    ]
    return [
        Measurement("angular RMSE", Statistic("mean", ("angular_rmse",)), False, "°"),
        Measurement("angular RMSE pooled", Statistic("root_ratio", ("sum_sq_angle", "n")), False, "°"),
        Measurement("mean angle", Statistic("ratio", ("sum_angle", "n")), False, "°"),
        Measurement("median angle", Statistic("quantile", ("angles",), width=ANGLE_BIN), False, "°"),
        *shares,
    ]


TASK = Task(
    "normals",
    "normals",
    {"pixel_normals": PixelNormalsMethod, "trained_normals": TrainedNormalsMethod},
    trained=True,
)
