"""SentencePiece models, by a library that only texts need: without it pictures are encoded all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.errors import EncoderError, first_line


class Unopened:
    """Stands for a model that nothing here can open: whoever asks it for anything is told why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __getattr__(self, name: str) -> Any:
        raise EncoderError(
            f"texts need the library sentencepiece, which cannot be imported ({self._why}). "
            "pip install --force-reinstall sentencepiece"
        )


def open_pieces(path: Path) -> Any:
    """The SentencePieceProcessor of a file, or Unopened. Raises what the library raises for a file that is none."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        return Unopened(first_line(error))
    return SentencePieceProcessor(model_file=str(path))
