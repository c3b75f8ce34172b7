"""Which caption meets which CLS: CLS1 ↔ alt text, CLS2 ↔ one synthetic caption drawn uniformly (TIPSv2 §3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def draw_pair(alt: str, synthetic: Sequence[str], rng: np.random.Generator, mode: str = "pairs") -> tuple[str, str]:
    """(text for CLS1, text for CLS2).

    `mode` "alt" or "synthetic" gives both CLS the same kind of text: the ablation's single-granularity runs.
    A sample with no synthetic caption uses its alt text for both.
    """
    drawn = synthetic[int(rng.integers(len(synthetic)))] if synthetic else alt
    if mode == "alt":
        return alt, alt
    if mode == "synthetic":
        return drawn, drawn
    return alt, drawn
