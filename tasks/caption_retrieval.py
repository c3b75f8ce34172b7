"""Image→text and text→image retrieval (TIPSv2 §4.1, Table 6): R@1, R@5, R@10 by cosine, several captions per image.

The surprise: which CLS token meets the caption is open for two-CLS models (TIPS pairs the first with alt-text, the
second with synthetic captions), so it is a protocol field. And two pictures of COCO may have the same caption, word for
word: nothing tells the two apart, so they are encoded once and their order in the list decides, as a sort's would. Two
pictures of the same pixels are one right answer: the captions of either are right for both, and ask for either.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar, Literal

import numpy as np

from benchmark.contracts import (
    EncoderCard,
    EncoderExtras,
    Measurement,
    Method,
    Need,
    Outcome,
    Tap,
    Task,
    TaskContext,
    View,
)
from benchmark.data.equal_pictures import counted, first_equal, picture_digests
from benchmark.metrics.positives import Positives, caption_positives, chance_recall
from benchmark.metrics.retrieval import mutual_ranks, recall_hits
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Amount
from benchmark.system.late import torch
from tasks.global_vectors import ClsChoice, GlobalVectors, no_text_space
from tasks.idle_fields import check_view
from tasks.predictions import caption_pictures

KS = (1, 5, 10)
ROWS = 4096  # vectors read at a time


@dataclass(frozen=True)
class CaptionRetrieval:
    """Protocol of both retrieval directions."""

    view: Literal["encoder", "square"]
    view_size: Amount
    cls: ClsChoice

    def __post_init__(self) -> None:
        check_view(self.view, self.view_size)


class Cosine(Method[CaptionRetrieval]):
    """One direction; both read the same stored vectors."""

    schema = CaptionRetrieval
    queries: ClassVar[Literal["image", "text"]]

    def not_applicable(self, card: EncoderCard) -> str | None:
        return no_text_space(self.protocol.cls)

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        view = View(self.protocol.view, self.protocol.view_size)
        return {"test/cls": Need(data["test"].images, view, Tap("cls"))}

    def run(self, context: TaskContext) -> Outcome:
        """R@k of every query, the rank of its best positive kept as its sample."""
        data, protocol = context.data["test"], self.protocol
        started = time.perf_counter()
        captions = [text for texts in data.captions for text in texts]
        counts = [len(texts) for texts in data.captions]
        images = GlobalVectors(context.features("test/cls"), protocol.cls)
        place = {text: i for i, text in enumerate(dict.fromkeys(captions))}
        texts = context.text(list(place))[[place[text] for text in captions]]
        first = first_equal(picture_digests(data.images, context.progress))
        own, to_image = equal_together(first, *caption_positives(counts))
        to_text = word_for_word(captions, own)
        image_rank, text_rank = _ranks(images, texts, to_text, to_image, context.device)
        names = np.array([data.images.image_id(i) for i in range(len(counts))])
        owner = np.repeat(np.arange(len(counts)), counts)
        if self.queries == "image":
            right, rank, ids = to_text, image_rank, names
        else:
            right, rank = to_image, text_rank
            within = np.concatenate([np.arange(c) for c in counts])
            ids = np.array([f"{names[o]}#{w}" for o, w in zip(owner, within)])
        clusters = names[first] if self.queries == "image" else np.repeat(names[first], counts)
        samples = {"id": ids, "image": clusters, "rank": rank, **{f"hit@{k}": recall_hits(rank, k) for k in KS}}
        measured = [
            Measurement(f"R@{k}", Statistic("mean", (f"hit@{k}",), 100.0, cluster="image"), True, "%") for k in KS
        ]
        files = caption_pictures(context, images, texts, rank, owner, right, self.queries == "image")
        details = {"equal_pictures": counted(first), "captions": len(captions), "captions_cut": cut(context, captions)}
        seconds = time.perf_counter() - started
        answers = len(captions) if self.queries == "image" else len(names)
        blind = {f"hit@{k}": chance_recall(right.counts(), np.full(len(ids), answers), k) for k in KS}
        return Outcome(
            samples,
            measured,
            main_metric="R@1",
            n=len(ids),
            details=details,
            score_s=seconds,
            files=files,
            blind=[blind],
        )


_last: tuple[str, tuple[np.ndarray, np.ndarray]] | None = None
_one_at_a_time = Lock()


def _ranks(
    images: GlobalVectors, texts: torch.Tensor, to_text: Positives, to_image: Positives, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both directions; kept for the other direction's task, which asks for the same."""
    global _last
    content = hashlib.sha256(texts.float().cpu().numpy().data)
    for start in range(0, len(images), ROWS):
        content.update(images[start : start + ROWS].float().cpu().numpy().data)
    for positives in (to_text, to_image):
        content.update(positives.offsets.data)
        content.update(positives.indices.data)
    with _one_at_a_time:
        if _last is None or _last[0] != content.hexdigest():
            _last = content.hexdigest(), mutual_ranks(images, texts, to_text, to_image, device=device)
        return _last[1]


def cut(context: TaskContext, captions: Sequence[str]) -> int | None:
    """How many captions are longer than the encoder reads; None where it does not say."""
    asked = EncoderExtras.of(context.encoder()).is_cut
    return sum(map(bool, asked(captions))) if asked and captions else None


def equal_together(first: np.ndarray, to_text: Positives, to_image: Positives) -> tuple[Positives, Positives]:
    """Both directions' positives where equal pictures count as one; `first` [N] is the first equal one of each."""
    if (first == np.arange(len(first))).all():
        return to_text, to_image
    equal: dict[int, list[int]] = {}
    for picture, same in enumerate(first.tolist()):
        equal.setdefault(same, []).append(picture)
    own = np.split(to_text.indices, to_text.offsets[1:-1])
    texts = [[caption for other in equal[same] for caption in own[other].tolist()] for same in first.tolist()]
    owners = to_image.indices.tolist()  # one picture for each caption
    return Positives.from_lists(texts), Positives.from_lists([equal[int(first[picture])] for picture in owners])


def word_for_word(captions: Sequence[str], own: Positives) -> Positives:
    """`own` (image → text) with later captions of other pictures that say exactly what one of the picture's own says.

    They tie with it, and a tie counts against the query: of the pictures that share a caption none could be right.
    """
    places: dict[str, list[int]] = {}
    for i, text in enumerate(captions):
        places.setdefault(text, []).append(i)
    if len(places) == len(captions):
        return own
    lists = []
    for mine in np.split(own.indices, own.offsets[1:-1]):
        later = (j for i in mine for j in places[captions[i]] if j > i)
        lists.append(sorted({*mine.tolist(), *later}))
    return Positives.from_lists(lists)


class ImageToText(Cosine):
    """Pictures ask for their captions."""

    queries = "image"


class TextToImage(Cosine):
    """Captions ask for their pictures."""

    queries = "text"


IMAGE_TO_TEXT = Task("image_to_text_retrieval", "captions", {"cosine": ImageToText}, needs_text=True)
TEXT_TO_IMAGE = Task("text_to_image_retrieval", "captions", {"cosine": TextToImage}, needs_text=True)
