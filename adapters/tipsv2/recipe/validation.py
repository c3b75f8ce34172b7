"""Retrieval R@1 on held-out samples: a cheap sign of life while training; the benchmark proper is `bench run`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from adapters.tipsv2.recipe.batch import Batch, channels_first
from adapters.tipsv2.recipe.captions import texts
from adapters.tipsv2.recipe.samples import Sample
from adapters.tipsv2.recipe.text import Tokenizer
from adapters.tipsv2.recipe.views import centre_view


@torch.no_grad()
def retrieval(
    model: nn.Module, size: int, tokenizer: Tokenizer, samples: Sequence[Sample], device: torch.device
) -> dict[str, float]:
    """R@1 in percent for each caption kind: "alt" through CLS1, "synthetic-k" through the last CLS, both directions.

    `model` is the Pretrainer as it trains, wrapped or not: sharded weights meet only in its own forward. All processes
    call this with the same samples. `size` is that of the global view in pixels.
    """
    kinds = ["alt", *(f"synthetic-{k}" for k in range(min(len(s.synthetic) for s in samples)))]
    pieces = []
    for start in range(0, len(samples), 100):
        chosen = samples[start : start + 100]
        captions = [[s.alt, *((*texts(k), "")[0] for k in s.synthetic[: len(kinds) - 1])] for s in chosen]
        batch = Batch(
            images=channels_first(torch.from_numpy(np.stack([centre_view(s.image, size) for s in chosen]))),
            texts=tuple(tokenizer(list(column)) for column in zip(*captions)),
            captioned=torch.zeros(0, dtype=torch.bool),
            ssl_rows=torch.zeros(0, dtype=torch.int64),
            local=torch.zeros(0),
            mask=torch.zeros(0, dtype=torch.bool),
        )
        pieces.append(model(batch.to(device), "pairs")[:2])
    cls, read = torch.cat([p[0] for p in pieces]), torch.cat([p[1] for p in pieces])  # [N, CLS, D], [N, kinds, D]
    found = {}
    for k, kind in enumerate(kinds):
        scores = cls[:, 0 if k == 0 else -1] @ read[:, k].T  # [images, texts]
        found[f"{kind}/i2t"] = recall_at_one(scores)
        found[f"{kind}/t2i"] = recall_at_one(scores.T)
    return found


def recall_at_one(scores: torch.Tensor) -> float:
    """Percent of rows [N, N] whose diagonal entry is the largest; a tie is a miss."""
    truth = scores.diagonal()[:, None]
    return 100 * ((scores >= truth).sum(1) == 1).float().mean().item()
