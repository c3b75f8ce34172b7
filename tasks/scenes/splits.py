"""The splits of `scenes`: each draws from its own random stream, so that no picture can be in two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LayoutName = Literal["open", "centred", "instance", "pair"]
VIEWS = 4  # pictures of each object in the retrieval split


@dataclass(frozen=True)
class Split:
    """`stream` names the random stream (never reused), `n` the number of pictures (0: unbounded)."""

    stream: int
    n: int
    layout: LayoutName
    targets: bool = False  # whether masks, depth, normals and captions are kept
    unique_captions: bool = False  # whether equal captions are worded anew, so that each names one picture


SPLITS: dict[str, Split] = {
    "train": Split(1, 4000, "open", targets=True),
    "test": Split(2, 500, "open", targets=True, unique_captions=True),
    "pretrain": Split(3, 0, "open"),
    "labels-train": Split(4, 1200, "centred"),
    "labels-test": Split(5, 600, "centred"),
    "retrieval": Split(6, 720, "instance"),
    "pairs": Split(7, 600, "pair"),  # a scene, and the same from another place
}
