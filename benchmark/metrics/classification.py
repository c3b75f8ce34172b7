"""Classification: ranks with ties counted against the model, and what guesses hit."""

from __future__ import annotations

import numpy as np

from benchmark.errors import DataError, EncoderError
from benchmark.system.late import torch
from benchmark.system.plurals import number_of


def label_ranks(scores: torch.Tensor, labels: torch.Tensor | np.ndarray) -> np.ndarray:
    """[N] int64: how many classes of `scores` [N, C] beat or tie with the true one (0 is first).

    Ties count against the model: a head that gives every class the same score has rank C-1 everywhere, and so cannot
    pass for a perfect one. Raises EncoderError for NaN scores, DataError for labels outside 0 … C-1.
    """
    truth = torch.as_tensor(labels).long().to(scores.device)
    if truth.shape != scores.shape[:1]:
        raise DataError(f"{len(truth)} labels for {number_of(len(scores), 'row')} of scores: there must be one each")
    if truth.numel() == 0:
        return np.zeros(0, np.int64)
    if bool(torch.isnan(scores).any()):
        row = int(torch.isnan(scores).any(1).nonzero()[0, 0])
        raise EncoderError(f"class scores of sample {row} hold NaN: check the encoder's features for this sample")
    low, high = int(truth.min()), int(truth.max())
    if low < 0 or high >= scores.shape[1]:
        raise DataError(f"label {low if low < 0 else high} is outside 0 … {scores.shape[1] - 1}: check the label file")
    own = scores.gather(1, truth[:, None])
    return ((scores >= own).sum(1) - 1).cpu().numpy().astype(np.int64)


def blind_hits(labels: np.ndarray, classes: int, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Two [N] columns of hits among k answers that see no picture: a uniform guess, and the k commonest labels."""
    common = np.argsort(np.bincount(labels, minlength=classes), kind="stable")[::-1][:k]
    return np.full(len(labels), min(k / classes, 1.0)), np.isin(labels, common).astype(np.float64)
