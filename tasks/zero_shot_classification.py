"""Zero-shot classification (TIPSv2 §4.1, Table 6): top-1 of the nearest class text embedding.

The surprise: CLIP's 1,000 ImageNet names are 998. Two classes are called "missile" and two "sunglasses"; no text tells
them apart, and the common code takes the first of the two, as is done here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmark.contracts import EncoderCard, Measurement, Method, Need, Outcome, Tap, Task, TaskContext, View
from benchmark.contracts.prompts import as_prompts
from benchmark.metrics.classification import blind_hits, label_ranks
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Amount
from benchmark.system.late import torch
from tasks.global_vectors import ClsChoice, GlobalVectors, no_text_space
from tasks.idle_fields import check_view
from tasks.predictions import class_pictures
from tasks.prompting import class_embeddings, templates_for

BLOCK = 4096


@dataclass(frozen=True)
class ZeroShotClassification:
    """Protocol: the view, the CLS token and the prompt templates (a list of tasks/prompts, or `dataset`)."""

    view: Literal["encoder", "square"]
    view_size: Amount
    cls: ClsChoice
    templates: str

    def __post_init__(self) -> None:
        check_view(self.view, self.view_size)


class Cosine(Method[ZeroShotClassification]):
    """Cosine between the picture's vector and each class's averaged prompts."""

    schema = ZeroShotClassification

    def not_applicable(self, card: EncoderCard) -> str | None:
        return no_text_space(self.protocol.cls)

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        view = View(self.protocol.view, self.protocol.view_size)
        return {"test/cls": Need(data["test"].images, view, Tap("cls"))}

    def run(self, context: TaskContext) -> Outcome:
        """top-1 and top-5; each sample keeps the rank of its true class."""
        data, protocol = context.data["test"], self.protocol
        started = time.perf_counter()
        names, place, later = one_of_each(data.class_names, as_prompts(context.card, data.class_names))
        which = torch.from_numpy(place).to(context.device)
        texts = class_embeddings(context, names, templates_for(protocol.templates, data)).to(context.device)
        images = GlobalVectors(context.features("test/cls"), protocol.cls)
        labels = np.asarray(data.labels)
        rank, guess = [], []
        for start in range(0, len(images), BLOCK):
            truth = labels[start : start + BLOCK]
            scores = (images[start : start + BLOCK].to(context.device) @ texts.T)[:, which]
            rank.append(label_ranks(scores, truth) - later[truth])
            guess.append(scores.argmax(1).cpu().numpy())
        place = np.concatenate(rank)
        ids = np.array([data.images.image_id(i) for i in range(len(labels))])
        samples = {"id": ids, "label": labels, "prediction": np.concatenate(guess), "rank": place}
        samples |= {"hit@1": (place < 1).astype(float), "hit@5": (place < 5).astype(float)}
        measured = [Measurement(f"top-{k}", Statistic("mean", (f"hit@{k}",), 100.0), True, "%") for k in (1, 5)]
        blind = [
            {"hit@1": one, "hit@5": five}
            for one, five in zip(*(blind_hits(labels, len(data.class_names), k) for k in (1, 5)))
        ]
        seconds = time.perf_counter() - started

        def cosines(row: int) -> torch.Tensor:
            return (images[row : row + 1].to(context.device) @ texts.T)[0, which].cpu()

        files = class_pictures(context, cosines, place, data.class_names)
        return Outcome(samples, measured, "top-1", len(labels), score_s=seconds, files=files, blind=blind)


def one_of_each(names: Sequence[str], written: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(a name of each text, [C] which of them a class has, [C] how many later classes have the same).

    `written` are the names as the encoder's prompts have them. Classes of one text get one score, whatever the
    rounding. The later ones would tie with the first and count against it; the first is the one that is predicted.
    """
    first = {text: name for name, text in reversed(list(zip(names, written)))}
    different = list(dict.fromkeys(written))
    place = {text: i for i, text in enumerate(different)}
    seen, later = Counter[str](), []
    for text in reversed(written):
        later.append(seen[text])
        seen[text] += 1
    return [first[text] for text in different], np.array([place[t] for t in written]), np.array(later[::-1])


TASK = Task("zero_shot_classification", "labels", {"cosine": Cosine}, needs_text=True)
