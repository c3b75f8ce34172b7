"""TIPS text to token ids, as the official code does it."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adapters.pieces import Unopened, open_pieces
from benchmark.errors import WeightsError

PAD = 0
# The official code lower-cases with `tf.strings.lower`, which changes ASCII letters only: "É" stays, as in training.
LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
LENGTHS = (16, 32)  # shorter rows are padded to these: the mask makes the result the same, and the cost is a third


class Tokenizer:
    """SentencePiece without BOS or EOS, cut at `max_tokens`, padded with id 0."""

    def __init__(self, path: Path, vocabulary: int, max_tokens: int = 64) -> None:
        """Raises WeightsError when `path` is no SentencePiece model or has more pieces than the weights embed."""
        try:
            self.pieces = open_pieces(path)
        except Exception as e:  # the library raises RuntimeError, OSError or TypeError
            raise WeightsError(
                f"{path} is not a SentencePiece model ({str(e).splitlines()[0]}). Download it again"
            ) from None
        if not isinstance(self.pieces, Unopened) and self.pieces.get_piece_size() > vocabulary:
            raise WeightsError(
                f"{path} has {self.pieces.get_piece_size()} pieces, the text weights embed {vocabulary}. "
                f"Use the tokenizer these weights came with"
            )
        self.max_tokens = max_tokens

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than `max_tokens`."""
        return [len(self.pieces.encode(text.translate(LOWER))) > self.max_tokens for text in texts]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """[N, L] int32 ids, L the smallest of 16, 32 and `max_tokens` that holds the longest text.

        Padding is every id 0, for each row by itself. (The official code drops the mask of a whole batch when one of
        its texts is too long, so its result depends on the neighbours.)
        """
        rows = [self.pieces.encode(text.translate(LOWER))[: self.max_tokens] for text in texts]
        longest = max((len(row) for row in rows), default=0)
        length = next((n for n in LENGTHS if longest <= n < self.max_tokens), self.max_tokens)
        ids = np.full((len(rows), length), PAD, np.int32)
        for row, tokens in zip(ids, rows):
            row[: len(tokens)] = tokens
        return ids
