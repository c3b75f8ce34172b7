"""What a linear head on whole pictures answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmark.contracts import KeptHead
from benchmark.metrics.classification import label_ranks
from benchmark.system.late import torch
from tasks.swept_vectors import RawVectors, StoredVectors

BLOCK = 4096  # vectors that are scored at a time


@dataclass(frozen=True)
class LinearHead:
    """A trained head, the test vectors it reads, and what the row says of it."""

    logits: Callable[[torch.Tensor], torch.Tensor]  # [b, D] -> [b, C]
    vectors: RawVectors | StoredVectors
    details: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    kept: KeptHead | None = None


def linear_answers(head: LinearHead, labels: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """([N] 1 where the head's best class is the true one, [N] its best class)."""
    hits, best = [], []
    for start in range(0, len(head.vectors), BLOCK):
        rows = slice(start, start + BLOCK)
        scores = head.logits(head.vectors[rows].to(device))
        hits.append(label_ranks(scores, torch.from_numpy(labels[rows]).to(device)) < 1)
        best.append(scores.argmax(1).cpu().numpy())
    return np.concatenate(hits).astype(float), np.concatenate(best)
