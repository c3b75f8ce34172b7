"""The values a protocol's number may have, said in its type: `temperature: Positive`.

A number out of its bounds gives rows that look like any other (votes divided by zero, a rate of infinity), so it is
refused where a preset, a task file or `--set` is read. Every numeric field of a protocol has bounds; no number is ever
infinite or NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Bounds:
    """`low` … `high`, both allowed unless `above` or `below` says otherwise; of a list, its length."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # low itself is not allowed
    below: bool = False  # high itself is not allowed

    def hold(self, value: float) -> bool:
        """Whether `value` is finite and within them."""
        if not math.isfinite(value) or value < self.low or value > self.high:
            return False
        return not (self.above and value == self.low) and not (self.below and value == self.high)

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f"{'above' if self.above else 'at least'} {self.low:g}"
        high = "" if self.high == math.inf else f"{'below' if self.below else 'at most'} {self.high:g}"
        return " and ".join(filter(None, (low, high))) or "finite"


Count = Annotated[int, Bounds(1)]
Amount = Annotated[int, Bounds(0)]  # 0 stands for something: none, the encoder's own
Layer = Annotated[int, Bounds()]  # negative ones count from the last
Positive = Annotated[float, Bounds(0, above=True)]
NotNegative = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]
Ratio = Annotated[float, Bounds(0, 1, above=True)]
Part = Annotated[float, Bounds(0, 1, above=True, below=True)]  # neither none nor all
Decay = Annotated[float, Bounds(0, 1, below=True)]  # of a running mean: 1 would never move
Score = Annotated[float, Bounds(-1, 1)]  # a cosine, or a probability
Counts = Annotated[tuple[Count, ...], Bounds(1)]
Rates = Annotated[tuple[Positive, ...], Bounds(1)]
