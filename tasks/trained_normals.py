"""Surface normals with a DPT (or linear) head trained by gradient steps on a frozen encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchmark.contracts import Answer, Encoder, KeptHead, Measurement, Outcome, TaskContext
from benchmark.metrics.geometry import normal_errors
from benchmark.system.bounds import Score
from benchmark.system.late import F, torch
from tasks.dense import Columns, mean_target, resampled_by_thing
from tasks.training.fields import TrainedHead
from tasks.training.losses import normal_loss
from tasks.training.scoring import answered, kept_pictures, predicted

if TYPE_CHECKING:
    from tasks.training.frozen import Shown
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

    @property
    def channels_out(self) -> int:
        """Of the head: three components, and their certainty where the loss has one."""
        return 4 if self.loss == "uncertainty" else 3


def vectors(p: TrainedNormals, ready: Ready, shown: Shown | torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[B, 3 or 4, *size], of any length, for images [B, 3, H, W]."""
    found: torch.Tensor = ready.maps(shown, lambda out: F.normalize(out, dim=1) if p.unit_first else out, size)
    return found


def unit_vectors(p: TrainedNormals, ready: Ready, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[B, 3, *size] of length 1 along the data's axes."""
    found = F.normalize(vectors(p, ready, images, size)[:, :3], dim=1)
    return found * found.new_tensor(p.axes)[:, None, None]


def run_trained(context: TaskContext, p: TrainedNormals, measurements: list[Measurement]) -> Outcome:
    """Trains or loads the head, scores every test picture."""
    from tasks.training.head import make_head  # modules of torch: not for reading a preset

    started = time.perf_counter()

    def loss(ready: Ready, batch: Shown, step: int) -> torch.Tensor:
        truth = batch.targets  # [B, H, W, 3]
        guess = vectors(p, ready, batch, (truth.shape[1], truth.shape[2]))
        return normal_loss(guess, truth, p.loss)

    ready = make_head(context, p, context.data, p.channels_out, loss, "normals")
    unit = partial(unit_vectors, p, ready)
    trained = time.perf_counter()
    test = context.data["test"]
    bar = context.progress("scoring normals", len(test.images))
    rows, blind = Columns(len(test.images)), Columns(len(test.images))
    mean = mean_target(context.data, lambda vectors: np.isfinite(vectors).all(-1))
    for index, found, target in predicted(test, range(len(test.images)), p, unit):
        errors = normal_errors(found.permute(1, 2, 0).cpu(), target, zeros_count=True)
        rows.add({"id": test.images.image_id(index), **errors})
        blind.add(normal_errors(np.full(target.shape, mean, np.float32), target, zeros_count=True))
        bar.advance()
    samples = rows.table()
    files = kept_pictures(context, samples, test, p, unit, "normals")
    return Outcome(
        samples,
        resampled_by_thing(test, samples, measurements),
        main_metric="angular RMSE" if p.average == "image" else "angular RMSE pooled",
        n=rows.filled,
        details=ready.details,
        fit_s=trained - started,
        score_s=time.perf_counter() - trained,
        files={**ready.files, **files},
        head=ready.kept("normals", test),
        blind=[blind.table()],
    )


def answer(p: TrainedNormals, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
    """The unit vectors that a kept head sees in a picture."""
    from tasks.training.head import restored

    ready = restored(head, encoder, device, p, p.channels_out)
    return answered(head, p, picture, partial(unit_vectors, p, ready))
