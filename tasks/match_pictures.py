"""Pictures of correspondence: the best, the median and the worst pairs, or those that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.contracts import CorrespondenceData, TaskContext
from benchmark.images.drawing import png
from benchmark.images.matches import matches
from benchmark.rows.row import slug
from tasks.predictions import best_median_worst, numbered


@dataclass(frozen=True)
class Drawn:
    """The points of a pair: `right` [K] are those that `word` counts; pairs are sorted by `goodness`."""

    index: int
    source: np.ndarray  # [K, 2] pixels
    found: np.ndarray
    target: np.ndarray
    right: np.ndarray
    goodness: float


def pictures(context: TaskContext, data: CorrespondenceData, pairs: Sequence[Drawn], word: str) -> dict[str, bytes]:
    """Name -> PNG, with lines between points and answers; none where no pictures are kept."""
    if not context.keep_predictions:
        return {}
    out = {}
    place = {pair.index: row for row, pair in enumerate(pairs)}
    asked = numbered([place[index] for index in context.look_at if index in place])
    goodness = np.array([pair.goodness for pair in pairs])
    for name, row in asked or best_median_worst(goodness, context.keep_predictions):
        pair = pairs[row]
        one, other = (int(image) for image in data.pairs[pair.index])
        ids = "_".join(slug(data.images.image_id(image)) for image in (one, other))
        shown = data.images.picture(one), data.images.picture(other)
        out[f"pictures/{name}_{word}-{100 * pair.right.mean():.3g}_{ids}.png"] = png(
            matches(*shown, pair.source, pair.found, pair.target, pair.right)
        )
    return out
