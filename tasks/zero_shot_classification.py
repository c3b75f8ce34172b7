"""Zero-shot classification (TIPSv2 §4.1, Table 6): top-1 of the nearest class text embedding."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from benchmark.contracts import DataKind, EncoderCard, Measurement, Need, Outcome, Tap, TaskContext, View
from benchmark.metrics.classification import label_ranks
from benchmark.statistic import Statistic
from tasks.global_vectors import ClsChoice, GlobalVectors
from tasks.prompting import class_embeddings, templates_for

BLOCK = 4096


@dataclass(frozen=True)
class ZeroShotClassification:
    """Protocol: the view, the CLS token and the prompt templates (a list of tasks/prompts, or `dataset`)."""

    view: Literal["encoder", "square"]
    view_size: int
    cls: ClsChoice
    templates: str


class ZeroShotClassificationTask:
    """Cosine between the picture's vector and each class's averaged prompts."""

    name: ClassVar[str] = "zero_shot_classification"
    kind: ClassVar[DataKind] = "labels"
    needs_text: ClassVar[bool] = True
    schemas: ClassVar[Mapping[str, type]] = {"cosine": ZeroShotClassification}

    def splits(self, protocol: ZeroShotClassification) -> Sequence[str]:
        return ("test",)

    def not_applicable(self, card: EncoderCard, protocol: ZeroShotClassification) -> str | None:
        if protocol.cls == "concat":
            return "concatenated CLS tokens are not in text space"
        return None

    def needs(self, card: EncoderCard, protocol: ZeroShotClassification, data: Mapping[str, Any]) -> Sequence[Need]:
        return [Need(data["test"].images, View(protocol.view, protocol.view_size), Tap("cls"))]

    def run(self, context: TaskContext) -> Outcome:
        """top-1 and top-5; each sample keeps the rank of its true class."""
        data, protocol = context.data["test"], context.protocol
        started = time.perf_counter()
        classes = class_embeddings(context, data.class_names, templates_for(protocol.templates, data)).to(
            context.device
        )
        (need,) = self.needs(context.card, protocol, context.data)
        images = GlobalVectors(context.features(need), protocol.cls)
        labels = np.asarray(data.labels)
        rank, guess = [], []
        for start in range(0, len(images), BLOCK):
            scores = images[start : start + BLOCK].to(context.device) @ classes.T
            rank.append(label_ranks(scores, torch.from_numpy(labels[start : start + BLOCK]).to(context.device)))
            guess.append(scores.argmax(1).cpu().numpy())
        place = np.concatenate(rank)
        ids = np.array([data.images.image_id(i) for i in range(len(labels))])
        samples = {"id": ids, "label": labels, "prediction": np.concatenate(guess), "rank": place}
        samples |= {"hit@1": (place < 1).astype(float), "hit@5": (place < 5).astype(float)}
        measured = [Measurement(f"top-{k}", Statistic("mean", (f"hit@{k}",), 100.0), True, "%") for k in (1, 5)]
        return Outcome(samples, measured, "top-1", len(labels), score_s=time.perf_counter() - started)


TASK = ZeroShotClassificationTask()
