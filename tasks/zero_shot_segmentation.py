"""Zero-shot segmentation (TIPSv2 §4.1, Table 5): argmax over classes of the cosine between patches and class texts.

Patches are taken in text space (`text_patches`: the value path of the last block). `cosine`: the whole picture as a
square, from stored features. `aspect`: every picture at its own aspect ratio, whole or in windows, encoded while
scoring: their grids differ in size, so there is nothing to store.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from benchmark.contracts import EncoderCard, Interpolation, Method, Need, Outcome, Tap, Task, TaskContext, View
from benchmark.data.read_ahead import read_ahead
from benchmark.images.windows import Size, window_sizes
from benchmark.metrics.segmentation import confusion_areas
from benchmark.system.bounds import Amount, Count, Positive, Score
from benchmark.system.late import F, torch
from tasks.dense import stack_rows
from tasks.idle_fields import check_background
from tasks.predictions import Predictions
from tasks.prompting import class_embeddings, templates_for
from tasks.segmentation_scores import cross_check, segmentation_outcome
from tasks.sliding import background_rule, best_class, laid, resized, scores_of

P = TypeVar("P", "ZeroShotSegmentation", "ZeroShotAspect")
BLOCK = 32
Filter = Literal["encoder", "bilinear", "bicubic"]


@dataclass(frozen=True)
class ZeroShotAspect:
    """Protocol at each picture's own aspect ratio.

    `background = threshold`: the background class has no text; it takes the pixels whose best score is below it.
    """

    mode: Literal["whole", "slide"]
    short_side: Count  # pixels
    long_side: Amount  # pixels; 0: as long as it gets
    interpolation: Filter
    antialias: bool
    window: Count  # slide only, pixels
    stride: Count  # slide only, pixels
    softmax: bool  # over classes, before windows are averaged
    temperature: Positive  # cosines are divided by it before the softmax
    templates: str
    background: Literal["text", "threshold"]
    threshold: Score

    def __post_init__(self) -> None:
        check_background(self.background, self.threshold)
        if self.temperature != 1 and not self.softmax:
            raise ValueError(f"temperature = {self.temperature:g} does nothing with softmax = false")


@dataclass(frozen=True)
class ZeroShotSegmentation:
    """Protocol of one square view; `mode = slide` is a `ZeroShotAspect` with the short side at `view_size`."""

    mode: Literal["whole", "slide"]
    view_size: Amount  # whole: side of the square (0: the encoder's); slide: short side in pixels
    interpolation: Filter
    window: Count  # slide only, pixels
    stride: Count  # slide only, pixels
    softmax: bool  # slide only: softmax over classes before windows are averaged
    templates: str
    background: Literal["text", "threshold"]
    threshold: Score

    def __post_init__(self) -> None:
        check_background(self.background, self.threshold)
        if self.mode == "slide" and self.view_size < 1:
            raise ValueError("mode = slide needs view_size, the short side in pixels")
        if self.mode == "whole" and self.softmax:
            raise ValueError("softmax does nothing with mode = whole: no windows are averaged. Use mode = slide")

    def aspect(self) -> ZeroShotAspect:
        """The same fields for windows."""
        how = (self.interpolation, True, self.window, self.stride, self.softmax, 1.0)
        return ZeroShotAspect("slide", self.view_size, 0, *how, self.templates, self.background, self.threshold)


class _Cosine(Method[P]):
    """Patches against class prompts, however they are come by."""

    @property
    @abstractmethod
    def live(self) -> ZeroShotAspect | None:
        """How pictures are encoded while scoring; None when features are stored."""

    def not_applicable(self, card: EncoderCard) -> str | None:
        return None if card.has_text_patches else f"{card.name} has no patches in text space"

    def live_forwards(self, card: EncoderCard, shapes: Sequence[Size], train: int) -> Mapping[Size, int]:
        """Forwards made while scoring."""
        if (how := self.live) is None:
            return {}
        sizes = [resized(h, w, how.short_side, how.long_side) for h, w in shapes]
        return Counter(sizes) if how.mode == "whole" else window_sizes(sizes, how.window, how.stride)

    def run(self, context: TaskContext) -> Outcome:
        """Scores every test pixel; samples are per-image class areas."""
        data, protocol = context.data["test"], self.protocol
        started = time.perf_counter()
        names = list(data.class_names)
        settle = None
        if protocol.background == "threshold" and data.background is not None:
            settle = background_rule(data.background, protocol.threshold, len(names))
            del names[data.background]
        templates = templates_for(protocol.templates, data)
        texts = class_embeddings(context, names, templates, for_patches=True).to(context.device)
        check = cross_check(context, len(data.class_names))
        rows, kept = [], Predictions(context, "segmentation")
        targets = read_ahead(data.target, range(len(data.images)))
        for (index, scores), target in zip(self._scores(context, texts), targets):
            label, best = best_class(scores, *target.shape[:2])
            label = label if settle is None else settle(label, best)
            areas = confusion_areas(label, target, len(data.class_names))
            kept.add(index, label)
            if check:
                check.add(label, target)
            rows.append({"id": data.images.image_id(index), **areas.columns()})
        samples = stack_rows(rows)
        seconds = time.perf_counter() - started
        return segmentation_outcome(samples, data.class_names, {}, check, kept.files(samples), score_s=seconds)

    def _scores(self, context: TaskContext, texts: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Index and class scores [C, h, w], not yet at full size, of each test picture."""
        pictures, live = context.data["test"].images, self.live
        bar = context.progress("scoring zero-shot", len(pictures))
        if live is not None:
            own = context.encoder().transform.interpolation
            laid_out = read_ahead(lambda index: laid(pictures.picture(index), own, live), range(len(pictures)))
            for index, picture in enumerate(laid_out):
                yield index, scores_of(context, picture, texts, live)
                bar.advance()
            return
        reader = context.features("test/text_patches")
        for start in range(0, len(reader), BLOCK):
            tokens = reader[start : start + BLOCK].to(context.device)  # [b, h, w, E]
            cosines = (F.normalize(tokens, dim=-1) @ texts.T).permute(0, 3, 1, 2)  # [b, C, h, w]
            yield from enumerate(cosines, start)
            bar.advance(len(cosines))


class SquareMethod(_Cosine[ZeroShotSegmentation]):
    """One square view of each picture, stored; or windows, encoded while scoring."""

    schema = ZeroShotSegmentation

    @property
    def live(self) -> ZeroShotAspect | None:
        return self.protocol.aspect() if self.protocol.mode == "slide" else None

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        if self.live:
            return {}
        own = self.protocol.interpolation == "encoder"
        interpolation: Interpolation | None = None if own else cast(Interpolation, self.protocol.interpolation)
        view = View("square", self.protocol.view_size, interpolation)
        return {"test/text_patches": Need(data["test"].images, view, Tap("text_patches"))}


class AspectMethod(_Cosine[ZeroShotAspect]):
    """Every picture at its own aspect ratio."""

    schema = ZeroShotAspect

    @property
    def live(self) -> ZeroShotAspect:
        return self.protocol


METHODS: Mapping[str, type[Method[Any]]] = {"cosine": SquareMethod, "aspect": AspectMethod}
TASK = Task("zero_shot_segmentation", "segmentation", METHODS, needs_text=True)
