"""Which caption meets which CLS: CLS1 ↔ alt text, CLS2 ↔ a synthetic caption, its kind drawn first (TIPSv2 §3: one
of PaliGemma's and Gemini's, uniformly), then one of that kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.errors import UsageError

Kind = str | Sequence[str]  # the captions of one kind: one, several or none


def draw_pair(
    alt: str, synthetic: Sequence[Kind], rng: np.random.Generator, mode: str = "pairs", weights: Sequence[float] = ()
) -> tuple[str, str]:
    """(text for CLS1, text for CLS2); a text that is missing is "", and its loss passes over it.

    `synthetic` holds kinds, which are as likely as their `weights`, or each other; one without a caption is left out.
    `mode` "alt" or "synthetic" gives both CLS the same kind of text: the ablation's single-granularity runs.
    A sample with no synthetic caption uses its alt text for both. Raises UsageError where weights and kinds differ in
    number.
    """
    if weights and len(weights) != len(synthetic):
        raise UsageError(
            f"data.synthetic_weights has {len(weights)} weights, a sample has {len(synthetic)} kinds of synthetic"
            " captions. Give one weight for each"
        )
    kinds = [(texts(kind), weights[i] if weights else 1.0) for i, kind in enumerate(synthetic)]
    kinds = [(found, weight) for found, weight in kinds if found and weight > 0]
    drawn = alt
    if kinds:
        if weights:
            share = np.array([weight for _, weight in kinds])
            chosen = int(rng.choice(len(kinds), p=share / share.sum()))
        else:
            chosen = int(rng.integers(len(kinds)))
        found = kinds[chosen][0]
        drawn = found[int(rng.integers(len(found)))] if len(found) > 1 else found[0]
    if mode == "alt":
        return alt, alt
    if mode == "synthetic":
        return drawn, drawn
    return alt, drawn


def texts(kind: Kind) -> list[str]:
    """The captions of one kind that say something."""
    return [text for text in ([kind] if isinstance(kind, str) else kind) if text.strip()]
