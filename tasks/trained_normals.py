"""Surface normals with a DPT (or linear) head trained by gradient steps on a frozen encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchmark.contracts import Measurement, Outcome, TaskContext
from benchmark.metrics.geometry import normal_errors
from benchmark.system.bounds import Score
from benchmark.system.late import F, torch
from tasks.dense import mean_target, resampled_by_thing, stack_rows
from tasks.training.batches import Batch
from tasks.training.fields import TrainedHead
from tasks.training.losses import normal_loss
from tasks.training.scoring import kept_pictures, predicted

if TYPE_CHECKING:
    from tasks.training.head import Ready


@dataclass(frozen=True)
class TrainedNormals(TrainedHead):
    """A TrainedHead whose output are three components, with a fourth for their certainty where the loss has one."""

    loss: Literal["uncertainty", "angular", "l2"]
    unit_first: bool  # vectors are brought to unit length before they are up-sampled (TIPS' released head)
    navi_normals: Literal["camera", "probe3d"]  # how NAVI's targets are taken from its depth; of no other dataset
    # NAVI and NYUv2: pixels that count in training and test, those with a normal, or all with a depth (90° without one)
    valid: Literal["normal", "depth"]
    axes: tuple[Score, ...]  # signs of a loaded head's x, y, z beside the dataset's: x right, y down, z into the scene

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.axes) != 3 or any(abs(a) != 1 for a in self.axes):
            raise ValueError("axes must be three signs, 1 or -1")
        if self.rotate_p:
            raise ValueError("rotate_p must be 0: turning a picture would turn its normals as well")
        if self.unit_first and self.loss == "uncertainty":
            raise ValueError("unit_first has no meaning with a fourth channel. Use loss = angular or l2")


def run_trained(context: TaskContext, p: TrainedNormals, measurements: list[Measurement]) -> Outcome:
    """Trains or loads the head, scores every test picture."""
    from tasks.training.head import make_head  # modules of torch: not for reading a preset

    started = time.perf_counter()
    channels = 4 if p.loss == "uncertainty" else 3

    def vectors(ready: Ready, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """[B, 3 or 4, H, W], of any length."""
        found: torch.Tensor = ready.maps(images, lambda out: F.normalize(out, dim=1) if p.unit_first else out, size)
        return found

    def loss(ready: Ready, batch: Batch, step: int) -> torch.Tensor:
        truth = batch.targets.to(context.device)  # [B, H, W, 3]
        guess = vectors(ready, batch.images, (truth.shape[1], truth.shape[2]))
        return normal_loss(guess, truth, p.loss)

    def unit(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        found = F.normalize(vectors(ready, images, size)[:, :3], dim=1)
        return found * found.new_tensor(p.axes)[:, None, None]

    ready = make_head(context, p, context.data, channels, loss, "normals")
    trained = time.perf_counter()
    test = context.data["test"]
    bar = context.progress("scoring normals", len(test.images))
    rows, blind = [], []
    mean = mean_target(context.data, lambda vectors: np.isfinite(vectors).all(-1))
    for index, found, target in predicted(test, range(len(test.images)), p, unit):
        errors = normal_errors(found.permute(1, 2, 0).cpu(), target, zeros_count=True)
        rows.append({"id": test.images.image_id(index), **errors})
        blind.append(normal_errors(np.full(target.shape, mean, np.float32), target, zeros_count=True))
        bar.advance()
    samples = stack_rows(rows)
    files = kept_pictures(context, samples, test, p, unit, "normals")
    return Outcome(
        samples,
        resampled_by_thing(test, samples, measurements),
        main_metric="angular RMSE" if p.average == "image" else "angular RMSE pooled",
        n=len(rows),
        details=ready.details,
        fit_s=trained - started,
        score_s=time.perf_counter() - trained,
        files={**ready.files, **files},
        blind=[stack_rows(blind)],
    )
