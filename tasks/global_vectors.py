"""Global image vectors: which CLS token stands for the picture."""

from __future__ import annotations

from typing import Literal

from benchmark.contracts import FeatureReader
from benchmark.system.late import F, torch

ClsChoice = Literal["first", "last", "mean", "concat"]


class GlobalVectors:
    """[N, D] L2-normalised vectors read from a stored `cls` tap [N, K, D] in blocks; indexable like a tensor.

    `first` and `last` take one CLS token (the same for encoders with one); `mean` the average of the normalised
    tokens; `concat` puts them side by side.
    """

    def __init__(self, reader: FeatureReader, choice: ClsChoice) -> None:
        self.reader, self.choice = reader, choice
        k, d = reader.shape[1:]
        self.shape = (len(reader), d * (k if choice == "concat" else 1))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: object) -> torch.Tensor:
        return pick_cls(self.reader[rows], self.choice)


def no_text_space(choice: ClsChoice) -> str | None:
    """Why vectors of this choice cannot be compared with texts, or None."""
    return "concatenated CLS tokens are not in text space" if choice == "concat" else None


def pick_cls(cls: torch.Tensor, choice: ClsChoice) -> torch.Tensor:
    """[..., D] or [..., K·D] unit vectors of CLS tokens [..., K, D]."""
    if choice == "first":
        return F.normalize(cls[..., 0, :], dim=-1)
    if choice == "last":
        return F.normalize(cls[..., -1, :], dim=-1)
    unit = F.normalize(cls, dim=-1)
    return F.normalize(unit.mean(-2) if choice == "mean" else unit.flatten(-2), dim=-1)
