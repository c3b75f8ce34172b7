"""Surface normals (TIPSv2 §4.1, Table 7): angular RMSE in degrees at full resolution.

`pixel_normals`: ridge regression to the three components on sampled pixels, normalised after up-sampling.
`trained_normals`: a DPT head trained by gradient steps on augmented pictures.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from benchmark.contracts import DataKind, EncoderCard, Measurement, Need, Outcome, TaskContext
from benchmark.images.windows import Size
from benchmark.metrics.geometry import ANGLE_BIN, normal_errors
from benchmark.statistics.statistic import Statistic
from tasks.dense import (
    PixelProbe,
    counted_target,
    dense_not_applicable,
    everywhere,
    fit_ridge,
    predicted_maps,
    probe_needs,
    resampled_by_thing,
    stack_rows,
    training_pixels,
)
from tasks.predictions import Predictions
from tasks.trained_normals import TrainedNormals, run_trained
from tasks.training.fields import missing_layers
from tasks.training.forwards import live_forwards


@dataclass(frozen=True)
class PixelNormals(PixelProbe):
    """A PixelProbe; nothing more to choose."""


class NormalsTask:
    """From patch tokens to unit vectors."""

    name: ClassVar[str] = "normals"
    kind: ClassVar[DataKind] = "normals"
    needs_text: ClassVar[bool] = False
    schemas: ClassVar[Mapping[str, type]] = {"pixel_normals": PixelNormals, "trained_normals": TrainedNormals}

    def splits(self, protocol: PixelNormals | TrainedNormals) -> Sequence[str]:
        return ("test",) if isinstance(protocol, TrainedNormals) and protocol.head_weights else ("train", "test")

    def dataset_options(self, dataset: str, protocol: PixelNormals | TrainedNormals) -> Mapping[str, str]:
        """How the protocol wants `dataset` opened: which pixels count, and how NAVI's normals come from its depth."""
        if not isinstance(protocol, TrainedNormals) or dataset not in ("navi", "nyuv2"):
            return {}
        return {"valid": protocol.valid} | ({"normals": protocol.navi_normals} if dataset == "navi" else {})

    def not_applicable(self, card: EncoderCard, protocol: PixelNormals | TrainedNormals) -> str | None:
        if isinstance(protocol, TrainedNormals):
            return missing_layers(card, protocol)
        return dense_not_applicable(card, protocol)

    def needs(
        self, card: EncoderCard, protocol: PixelNormals | TrainedNormals, data: Mapping[str, Any]
    ) -> Sequence[Need]:
        return () if isinstance(protocol, TrainedNormals) else probe_needs(protocol, data)

    def live_forwards(
        self, protocol: PixelNormals | TrainedNormals, shapes: Sequence[Size], train: int
    ) -> Mapping[Size, int]:
        """Forwards of training crops and of test pictures of these (height, width): none is stored."""
        return live_forwards(protocol, shapes) if isinstance(protocol, TrainedNormals) else {}

    def run(self, context: TaskContext) -> Outcome:
        """Fits on the training pictures, scores every valid test pixel."""
        if isinstance(context.protocol, TrainedNormals):
            return run_trained(context, normal_measurements())
        return self.run_pixels(context)

    def run_pixels(self, context: TaskContext) -> Outcome:
        """Ridge regression on sampled training pixels."""
        protocol, test = context.protocol, context.data["test"]
        needs = self.needs(context.card, protocol, context.data)
        started = time.perf_counter()
        pixels = training_pixels(context, needs, protocol, lambda v, _: np.isfinite(v).all(-1) & (v != 0).any(-1))
        targets = torch.from_numpy(pixels.targets.astype(np.float32))
        head = fit_ridge(pixels, targets, protocol.penalties, context.device)
        fitted = time.perf_counter()
        reader = context.features(needs[1])
        cls = context.features(needs[3]) if protocol.with_cls else None
        mean = pixels.targets.mean(0)
        rows, blind, kept = [], [], Predictions(context, "normals")
        for index, at_size in predicted_maps(
            context, reader, cls, test.images, needs[1], head.predict, "scoring normals"
        ):
            target = counted_target(test, index)
            prediction = at_size(*target.shape[:2]).permute(1, 2, 0)  # only the angle counts: length plays no part
            kept.add(index, prediction)
            rows.append({"id": test.images.image_id(index), **normal_errors(prediction, target, True)})
            blind.append(normal_errors(everywhere(mean, target.shape), target, True))
        samples = stack_rows(rows)
        details = {"penalty": head.penalty}
        return Outcome(
            samples,
            resampled_by_thing(test, samples, normal_measurements()),
            "angular RMSE",
            len(rows),
            details,
            fitted - started,
            time.perf_counter() - fitted,
            kept.files(samples),
            [stack_rows(blind)],
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


TASK = NormalsTask()
