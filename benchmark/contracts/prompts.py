"""How a zero-shot prompt is written for an encoder; captions of retrieval are never rewritten.

big_vision's zero-shot evaluator canonicalises class names and templates (SigLIP, SigLIP 2), its retrieval evaluator
leaves captions as they are: one text in two tasks is two texts. The encoder's card says which rule is its own.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from benchmark.contracts import EncoderCard

WITHOUT_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def as_prompts(card: EncoderCard, texts: Sequence[str]) -> list[str]:
    """`texts` as `encode_text` takes them in zero-shot tasks, by `card.prompts`."""
    return [canonical(text) for text in texts] if card.prompts == "canonical" else list(texts)


def canonical(text: str) -> str:
    """Lower case, `_` a space, ASCII punctuation gone, runs of space collapsed.

    Source: big_vision, evaluators/proj/image_text/prompt_engineering.py; open_clip's tokenizers that canonicalize.
    """
    return re.sub(r"\s+", " ", text.translate(WITHOUT_PUNCTUATION).lower()).strip()
