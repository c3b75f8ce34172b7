"""Retrieval R@1 on held-out samples: a cheap sign of life while training; the benchmark proper is `bench run`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from adapters.tipsv2.recipe.loader import to_float
from adapters.tipsv2.recipe.model import Pretrainer, vision_tokens
from adapters.tipsv2.recipe.samples import Sample
from adapters.tipsv2.recipe.text import Tokenizer
from adapters.tipsv2.recipe.views import centre_view


@torch.no_grad()
def retrieval(
    student: Pretrainer, tokenizer: Tokenizer, samples: Sequence[Sample], device: torch.device
) -> dict[str, float]:
    """R@1 in percent for each caption kind: "alt" through CLS1, "synthetic-k" through the last CLS, both directions."""
    size = student.config.views.global_size
    images = []
    for start in range(0, len(samples), 100):
        views = np.stack([centre_view(s.image, size) for s in samples[start : start + 100]])
        images.append(vision_tokens(student.encoder.vision_model, to_float(views).to(device))[0])
    cls = F.normalize(torch.cat(images).float(), dim=-1)  # [N, K, D]
    kinds = {"alt": ([s.alt for s in samples], 0)}
    for k in range(min(len(s.synthetic) for s in samples)):
        kinds[f"synthetic-{k}"] = ([s.synthetic[k] for s in samples], cls.shape[1] - 1)
    found = {}
    for kind, (texts, which) in kinds.items():
        embedded = torch.cat(
            [student.encode_text(tokenizer(texts[i : i + 100]).to(device)) for i in range(0, len(texts), 100)]
        )
        scores = cls[:, which] @ embedded.T  # [images, texts]
        found[f"{kind}/i2t"] = recall_at_one(scores)
        found[f"{kind}/t2i"] = recall_at_one(scores.T)
    return found


def recall_at_one(scores: torch.Tensor) -> float:
    """Percent of rows [N, N] whose diagonal entry is the largest; a tie is a miss."""
    truth = scores.diagonal()[:, None]
    return 100 * ((scores >= truth).sum(1) == 1).float().mean().item()
