"""What work costs, in multiplications: enough to say what is longest, and what a plan turns into seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.contracts import EncoderCard, LabelData, Method, SegmentationData
from benchmark.features.plan import Pass, input_size

PASSES = 200  # over its rows until a convex head has converged, for all penalties: those of scenes take about so many
SHAPE = (480, 640)  # of a picture whose size nobody has looked at, (height, width) in pixels
Size = tuple[int, int]


def forward(card: EncoderCard, size: Size) -> float:
    """Of one picture of `size`, (height, width) in pixels, through a transformer of these measures."""
    tokens = card.num_cls + (size[0] // card.patch_size) * (size[1] // card.patch_size)
    return float(max(1, card.depth) * tokens * card.embed_dim * (12 * card.embed_dim + 2 * tokens))


def picture(shared: Pass, card: EncoderCard) -> float:
    """Of one picture of a pass."""
    return forward(card, input_size(shared.view, card, shared.images.uniform_shape or SHAPE))


def fit(method: Method[Any], card: EncoderCard, data: Mapping[str, Any]) -> float:
    """Of a convex head, when its features are there; 0 where there is none."""
    train = data.get("train")
    if train is None:
        return 0.0
    vectors, width = method.head_rows(card, len(train))
    values = vectors * width
    for name, need in method.wanted(card, data).items():
        if need.tap.name == "pixels" and name.startswith("train"):
            values += need.tap.count * len(need.images) * card.embed_dim
    classes = len(train.class_names) if isinstance(train, (LabelData, SegmentationData)) else 1
    return float(PASSES * values * classes)


def head(method: Method[Any], card: EncoderCard, data: Mapping[str, Any]) -> float:
    """Of what a method does when its features are there: a fit, and forwards that are not kept."""
    scored = len(next(iter(list(data.values())[-1].pictures().values())))
    live = method.live_forwards(card, [SHAPE] * scored, len(data["train"]) if "train" in data else 0)
    return _forwards(live, card) + fit(method, card, data)


def crops(method: Method[Any], card: EncoderCard, data: Mapping[str, Any]) -> float:
    """Of that, of the crops that other workers may encode (`shared_steps`)."""
    found = method.crop_forwards(card, [SHAPE], len(data["train"]) if "train" in data else 0)
    return _forwards(found, card)


def _forwards(counted: Mapping[Size, int], card: EncoderCard) -> float:
    own = (card.image_size, card.image_size)
    return sum(n * forward(card, size if all(size) else own) for size, n in counted.items())
