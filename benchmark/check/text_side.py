"""Conformance of the text tower: shape, unit length, padding and batch invariance, tokens that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import TOLERANCE
from benchmark.contracts import EncoderExtras, TextEncoder

TEXTS = ("a photo of a cat", "a photo of a dog", "two red cars in the snow", "x")
LONG = "a very long description of a street with many houses, trees, people and cars " * 12


@dataclass(frozen=True)
class TextChecks:
    """Checks of one encoder that has text; `golden` is {text, ids} of its row in models.toml."""

    encoder: TextEncoder
    golden: Mapping[str, Any] | None = None

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encoder.encode_text(list(texts)).float().cpu()

    def rows(self) -> list[Finding]:
        """[N, E] finite unit rows that tell texts apart; an empty text counts as a text."""
        width = self.encoder.card.text_dim
        rows = self.encode([*TEXTS, "", LONG])
        expected = (len(TEXTS) + 2, width)
        if tuple(rows.shape) != expected:
            return [failed("text rows", str(list(rows.shape)), f"expected {list(expected)}; check card.text_dim")]
        if not torch.isfinite(rows).all():
            return [failed("text rows", "not finite", "NaN or infinity; an empty or a long text may be the cause")]
        off = (rows.norm(dim=-1) - 1).abs().max().item()
        if off > 1e-3:
            return [failed("text rows", f"length off by {off:.1e}", "L2-normalise what encode_text returns")]
        alike = (rows[0] - rows[1]).abs().max().item()
        if alike < 1e-6:
            return [failed("text rows", "identical", f"{TEXTS[0]!r} and {TEXTS[1]!r} get the same row")]
        return [passed("text rows", f"{list(rows.shape)}, unit length")]

    def padding(self) -> Finding:
        """A text alone gives the row it gives beside a much longer one, whatever its place in the batch."""
        alone = torch.cat([self.encode([text]) for text in TEXTS])
        mixed = self.encode([LONG, *reversed(TEXTS)])[1:].flip(0)
        gap = (alone - mixed).abs().max().item()
        if gap > TOLERANCE.get(self.encoder.card.dtype, 1e-4):
            return failed("padding invariance", f"{gap:.1e}", "rows depend on the batch: mask or fix the padding")
        return passed("padding invariance", f"{gap:.1e}")

    def tokens(self) -> Finding:
        """The tokeniser gives the published ids."""
        tokens = tokens_of(self.encoder, self.golden["text"]) if self.golden else None
        if self.golden is None or tokens is None:
            return passed("golden tokens", "none recorded")
        text, expected = self.golden["text"], list(self.golden["ids"])
        found = tokens[: len(expected)]
        if found != expected:
            return failed("golden tokens", f"{found}", f"{text!r} must give {expected}: another tokeniser's files?")
        return passed("golden tokens", f"{len(expected)} ids of {text!r}")


def tokens_of(encoder: Any, text: str) -> list[int] | None:
    """Ids that the encoder's `tokenize` or `tokenizer` gives; None where it shows none."""
    extras = EncoderExtras.of(encoder)
    tokenize = extras.tokenize or extras.tokenizer
    if not callable(tokenize):
        return None
    rows = tokenize([text])
    rows = rows["input_ids"] if isinstance(rows, Mapping) else rows
    return [int(i) for i in rows[0]]
