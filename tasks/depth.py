"""Monocular depth (TIPSv2 §4.1, Table 7): RMSE in metres at full resolution.

`pixel_depth`: a linear head over 256 depth bins and, beside it, ridge regression, both on sampled pixels.
`trained_depth`: a linear or DPT head trained by gradient steps on augmented pictures. Errors are averaged over images,
as DINOv2 and Probe3D do; the RMSE of all pixels is reported too, because papers differ.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from benchmark.contracts import Answer, Encoder, KeptHead, Measurement, Outcome, Task, TaskContext
from benchmark.heads.bins import fit_bins
from benchmark.metrics.geometry import depth_errors, has_depth
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Count, NotNegative, Positive, Rates
from benchmark.system.late import torch
from tasks.dense import (
    PixelMethod,
    PixelProbe,
    finer,
    fit_ridge,
    head_use,
    predicted_maps,
    resampled_by_thing,
    stack_rows,
    training_pixels,
)
from tasks.depth_range import depth_range
from tasks.idle_fields import check_range
from tasks.predictions import Predictions
from tasks.trained_depth import TrainedDepth, answer, depth_measurements, eigen_crop, run_trained, trained_data
from tasks.training.method import TrainedMethod

FAR = 80.0  # metres; the limit where neither the protocol nor the dataset sets one
RIDGE = Measurement("RMSE ridge", Statistic("mean", ("ridge_rmse",)), False, "m")


@dataclass(frozen=True)
class PixelDepth(PixelProbe):
    """A PixelProbe with depth bins between `min_depth` and `max_depth` metres (0: the dataset's own limit)."""

    bins: Count
    bin_loss: Literal["sig", "l2"]  # scale-invariant log loss, or squared error
    bin_steps: Count
    bin_batch: Count  # sampled pixels per step
    bin_rates: Rates  # AdamW; more than one are judged on the held-out training images
    bin_upsample: Count  # times the grid on which the bins' expectation is taken, from up-sampled scores
    min_depth: Positive
    max_depth: NotNegative
    crop: Literal["none", "eigen"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("max_depth", self.min_depth, self.max_depth)


class TrainedDepthMethod(TrainedMethod[TrainedDepth]):
    """A head trained by gradient steps."""

    schema = TrainedDepth

    def dataset_options(self, dataset: str) -> Mapping[str, str]:
        """NAVI scales by pixels, too, that its framing cuts off."""
        return {"depth": "relative"} if self.protocol.relative and dataset == "navi" else {}

    def trained_data(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return trained_data(data, self.protocol)

    def run(self, context: TaskContext) -> Outcome:
        """Trains or loads the head, scores every valid test pixel."""
        limit = context.data["test"].max_depth
        # Relative depth is scaled later: here its maps are still in metres, or in a unit of their own.
        far = FAR if self.protocol.relative else self.protocol.max_depth or limit or FAR
        read = depth_range(context.data, 0.0, far)
        outcome = run_trained(context, self.protocol, limit or FAR)
        return replace(outcome, details={**outcome.details, "depths_read": read})

    def answer(self, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
        """As the task predicts a test picture of the size it was scored on."""
        return answer(self.protocol, head, encoder, device, picture)


class PixelDepthMethod(PixelMethod[PixelDepth]):
    """A linear head over depth bins, and ridge regression, on sampled training pixels."""

    schema = PixelDepth

    def run(self, context: TaskContext) -> Outcome:
        """Fits both heads, scores every valid test pixel.

        Where neither protocol nor data set a limit the bins reach as far as the training pixels do: spread over 80 m
        they would say nothing of a room. Every depth up to there is scored all the same.
        """
        protocol, test = self.protocol, context.data["test"]
        limit = protocol.max_depth or test.max_depth
        near, far, times = protocol.min_depth, limit or FAR, protocol.bin_upsample
        read = depth_range(context.data, near, far)
        needs = self.needs(context.card, context.data)
        started = time.perf_counter()
        pixels = training_pixels(context, needs, protocol, lambda v, _: has_depth(v, near, far))
        depth = torch.from_numpy(pixels.targets.astype(np.float32))
        reach = limit or float(torch.nextafter(depth.max(), torch.tensor(torch.inf)))
        ridge = fit_ridge(pixels, depth[:, None], protocol.penalties, context.device)
        binned = fit_bins(
            pixels.features,
            depth,
            pixels.holdout if len(protocol.bin_rates) > 1 else None,
            near,
            reach,
            protocol.bins,
            context.seed,
            learning_rates=protocol.bin_rates,
            steps=protocol.bin_steps,
            batch=protocol.bin_batch,
            loss=protocol.bin_loss,
            device=context.device,
            progress=context.progress(
                "fitting the bins of depth",
                protocol.bin_steps * (len(protocol.bin_rates) + (len(protocol.bin_rates) > 1)),
            ),
        )
        fitted = time.perf_counter()

        def both(tokens: torch.Tensor) -> torch.Tensor:
            # The expectation of interpolated scores is what the head was fitted as; that of the grid's is another.
            metres = finer(ridge.predict(tokens), times)
            scores = (finer(binned.scores(t[None]), times) for t in tokens)  # one picture's at a time: 256 maps each
            return torch.cat([torch.cat([binned.expectation(s) for s in scores])[..., None], metres], -1)

        mean = pixels.targets.mean()
        rows, blind, kept = [], [], Predictions(context, "depth", far)
        for index, at_size, target in predicted_maps(context, needs, both, "scoring depth", test.target):
            maps = at_size(*target.shape)
            kept.add(index, maps[0].clamp(near, far))
            if protocol.crop == "eigen":
                maps, target = torch.stack([eigen_crop(m) for m in maps]), eigen_crop(target)
            row = depth_errors(maps[0], target, near, far, clamp=True)
            row |= {f"ridge_{k}": v for k, v in depth_errors(maps[1], target, near, far, clamp=True).items()}
            rows.append({"id": test.images.image_id(index), **row})
            guess = depth_errors(np.full(target.shape, mean, np.float32), target, near, far, clamp=True)
            blind.append(guess | {f"ridge_{k}": v for k, v in guess.items()})
        samples = stack_rows(rows)
        use = {**head_use(protocol), "near": near, "far": reach, "upsample": times}
        return Outcome(
            samples,
            resampled_by_thing(test, samples, [*depth_measurements(), RIDGE]),
            main_metric="RMSE",
            n=len(rows),
            details={"ridge_penalty": ridge.penalty, "max_depth_m": reach, "depths_read": read},
            fit_s=fitted - started,
            score_s=time.perf_counter() - fitted,
            files=kept.files(samples),
            head=KeptHead("depth", {"weight": binned.weight, "bias": binned.bias}, use),
            blind=[stack_rows(blind)],
        )


TASK = Task("depth", "depth", {"pixel_depth": PixelDepthMethod, "trained_depth": TrainedDepthMethod}, trained=True)
