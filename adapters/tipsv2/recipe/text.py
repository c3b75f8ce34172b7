"""The tokeniser: SentencePiece, lower-case, no BOS or EOS, pad id 0 (as TIPS); trained on the captions of the run."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
import torch

from benchmark.errors import WeightsError, first_line

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,;:'-"


class Tokenizer:
    """Texts → ids, with the model file kept as bytes so that it can be written beside the weights."""

    def __init__(self, model: bytes, max_length: int, source: str = "tokenizer.model") -> None:
        self.model, self.max_length = model, max_length
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._pieces.encode("a")  # an empty model is loaded all the same, and only then found to be none
        except Exception as error:  # whatever the library raises
            raise WeightsError(
                f"{source}: not a SentencePiece model ({first_line(error)}). Give a tokenizer.model file"
            ) from None
        self._nothing = {self._pieces.unk_id(), self._pieces.piece_to_id("▁")}
        self._memo: dict[str, list[int]] = {}

    @classmethod
    def read(cls, path: Path | str, max_length: int) -> Tokenizer:
        """The tokeniser in file `path`."""
        path = Path(path)
        if not path.is_file():
            raise WeightsError(f"{path}: no such file. Set model.tokenizer to a SentencePiece tokenizer.model")
        return cls(path.read_bytes(), max_length, str(path))

    @property
    def vocab_size(self) -> int:
        """Number of pieces, padding included."""
        return self._pieces.get_piece_size()

    def ids(self, text: str) -> list[int]:
        """Ids without padding, cut to `max_length`; a text without any piece is one unknown."""
        found = self._memo.get(text)
        if found is None:
            found = self._pieces.encode(text.lower())[: self.max_length] or [self._pieces.unk_id()]
            if len(self._memo) < 200_000:
                self._memo[text] = found
        return found

    def says(self, text: str) -> bool:
        """Whether the text has a piece that the vocabulary knows: else it would be the same unknown as every other."""
        return not self._nothing.issuperset(self.ids(text))

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """[B, L] int64 padded with 0 to the longest text."""
        rows = [self.ids(t) for t in texts]
        out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for i, row in enumerate(rows):
            out[i, : len(row)] = torch.tensor(row)
        return out


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> Tokenizer:
    """A BPE vocabulary of at most `vocab_size` pieces; the same texts give the same bytes."""
    lines = [t.lower() for t in texts if t.strip()]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="bpe",
        vocab_size=min(vocab_size, _most_pieces(lines)),
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        character_coverage=1.0,
        required_chars=ALPHABET,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    return Tokenizer(written.getvalue(), max_length)


def _most_pieces(lines: Sequence[str]) -> int:
    """How many pieces the words can support: SentencePiece refuses to be asked for more."""
    words = {w for line in lines for w in line.split()}
    characters = set(ALPHABET) | {c for w in words for c in w}
    return len(characters) + sum(max(len(w), 1) for w in words) + 3
