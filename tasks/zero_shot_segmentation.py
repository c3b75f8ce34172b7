"""Zero-shot segmentation (TIPSv2 §4.1, Table 5): argmax over classes of the cosine between patches and class texts.

Patches are taken in text space (`text_patches`: the value path of the last block). `whole`: one forward of the whole
picture, the similarity map resized to full resolution. `slide`: windows over the resized picture, softmax over
classes, averaged where windows overlap.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import normalize

from benchmark.contracts import DataKind, EncoderCard, Interpolation, Measurement, Need, Outcome, Tap, TaskContext, View
from benchmark.metrics.segmentation import confusion_areas
from tasks.dense import predicted_maps, stack_rows, upsample
from tasks.linear_segmentation import segmentation_details, segmentation_measurements
from tasks.prompting import class_embeddings, templates_for
from tasks.sliding import window_maps


@dataclass(frozen=True)
class ZeroShotSegmentation:
    """Protocol. `background = threshold` gives the background class to pixels whose best cosine is below it."""

    mode: Literal["whole", "slide"]
    view_size: int  # whole: side of the square (0: the encoder's); slide: short side in pixels
    interpolation: Literal["encoder", "bilinear", "bicubic"]
    window: int  # slide only, pixels
    stride: int  # slide only, pixels
    softmax: bool  # slide only: softmax over classes before windows are averaged
    templates: str
    background: Literal["text", "threshold"]
    threshold: float


class ZeroShotSegmentationTask:
    """Patches against class prompts."""

    name: ClassVar[str] = "zero_shot_segmentation"
    kind: ClassVar[DataKind] = "segmentation"
    needs_text: ClassVar[bool] = True
    schemas: ClassVar[Mapping[str, type]] = {"cosine": ZeroShotSegmentation}

    def splits(self, protocol: ZeroShotSegmentation) -> Sequence[str]:
        return ("test",)

    def not_applicable(self, card: EncoderCard, protocol: ZeroShotSegmentation) -> str | None:
        return None if card.has_text_patches else f"{card.name} has no patches in text space"

    def needs(self, card: EncoderCard, protocol: ZeroShotSegmentation, data: Mapping[str, Any]) -> Sequence[Need]:
        if protocol.mode == "slide":
            return []  # windows are encoded while scoring: their number depends on each picture's shape
        interpolation: Interpolation | None = None if protocol.interpolation == "encoder" else protocol.interpolation
        view = View("square", protocol.view_size, interpolation)
        return [Need(data["test"].images, view, Tap("text_patches"))]

    def run(self, context: TaskContext) -> Outcome:
        """Scores every test pixel; samples are per-image class areas."""
        data, protocol = context.data["test"], context.protocol
        started = time.perf_counter()
        texts = class_embeddings(context, data.class_names, templates_for(protocol.templates, data)).to(context.device)
        rows = []
        for index, target, scores in self._scores(context, texts):
            prediction = scores.argmax(0)
            if protocol.background == "threshold" and data.background is not None:
                best = scores[[c for c in range(len(scores)) if c != data.background]]
                others = torch.tensor([c for c in range(len(scores)) if c != data.background], device=scores.device)
                prediction = torch.where(best.amax(0) < protocol.threshold, data.background, others[best.argmax(0)])
            areas = confusion_areas(prediction, target, len(data.class_names))
            rows.append({"id": data.images.image_id(index), **areas.columns()})
        samples = stack_rows(rows)
        details = segmentation_details(samples, data.class_names)
        measured: list[Measurement] = segmentation_measurements()
        return Outcome(samples, measured, "mIoU", len(rows), details, score_s=time.perf_counter() - started)

    def _scores(self, context: TaskContext, texts: torch.Tensor) -> Iterator[tuple[int, Any, torch.Tensor]]:
        """Index, target and class scores [C, H, W] of each test picture."""
        data, protocol = context.data["test"], context.protocol
        if protocol.mode == "slide":
            bar = context.progress("sliding windows", len(data.images))
            for index in range(len(data.images)):
                target = data.target(index)
                scores = window_maps(context, data.images.load(index), texts, protocol)
                yield index, target, upsample(scores, *target.shape[:2])
                bar.advance()
            return
        (need,) = self.needs(context.card, protocol, context.data)

        def cosine(tokens: torch.Tensor) -> torch.Tensor:
            return normalize(tokens, dim=-1) @ texts.T

        maps = predicted_maps(context, context.features(need), None, data.images, need, cosine, "scoring zero-shot")
        for index, at_size in maps:
            target = data.target(index)
            yield index, target, at_size(*target.shape[:2])


TASK = ZeroShotSegmentationTask()
