"""Texts as CLIP reads them, for CLIP and for dino.txt.

Raise the versions of both in code_versions.toml where other tokens come out.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ftfy


class ClipTexts:
    """An encoder that reads `context` tokens of CLIP's `tokenizer`."""

    tokenizer: Any
    context: int

    def tokenize(self, texts: Sequence[str]) -> Any:
        """`input_ids` [N, L] and `attention_mask`, L the longest text's length, at most 77."""
        cleaned = [repaired(text) for text in texts]
        return self.tokenizer(cleaned, padding=True, truncation=True, max_length=self.context, return_tensors="pt")

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than the 77 tokens that are read."""
        whole = self.tokenizer([repaired(text) for text in texts], truncation=False)["input_ids"]
        return [len(ids) > self.context for ids in whole]


def repaired(text: str) -> str:
    """`text` as the authors' tokenizer takes it."""
    return html.unescape(html.unescape(ftfy.fix_text(text)))
