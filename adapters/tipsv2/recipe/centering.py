"""Teacher targets: centering + sharpening (TIPSv2's choice) or Sinkhorn-Knopp, over the global batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from adapters.tipsv2.recipe.chunked import Assigned
from adapters.tipsv2.recipe.config import HeadConfig
from adapters.tipsv2.recipe.cosines import Cosines, inverse_lengths
from adapters.tipsv2.recipe.losses import distributed, global_sum

Target = torch.Tensor | Assigned  # distributions [..., P], or what they are made of


class Centered(nn.Module):
    """Logits [..., P] of the teacher → target distributions [..., P] that carry no gradient.

    The centre that a step uses is the one of the steps before; `move_centers` moves it once a step, by the mean
    over every process and micro-batch.
    """

    center: torch.Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.momentum = config.center_momentum
        self.register_buffer("center", torch.zeros(config.prototypes))
        self.seen: torch.Tensor | None = None  # [P + 1], the sum of logits since the last move, and of how many rows

    @torch.no_grad()
    def forward(self, logits: torch.Tensor | Cosines, temperature: float) -> Target:
        """Of the factors of logits a target that the loss computes by rows."""
        if isinstance(logits, Cosines):
            rows = logits.features.flatten(0, -2)
            with torch.autocast(rows.device.type, enabled=False):  # the sum of logits is the logit of the sum
                total = logits.prototypes.float() @ rows.float().sum(0)
                self._see(total.mul_(inverse_lengths(logits.prototypes)), len(rows))
            return Assigned(logits, self.center.clone(), temperature)
        logits = logits.float()
        rows = logits.reshape(-1, logits.shape[-1])
        self._see(rows.sum(0), len(rows))
        return ((logits - self.center) / temperature).softmax(-1)

    def _see(self, total: torch.Tensor, rows: int) -> None:
        found = torch.cat([total, total.new_tensor([float(rows)])])
        self.seen = found if self.seen is None else self.seen + found


@torch.no_grad()
def move_centers(centered: Sequence[Centered]) -> None:
    """Moves each centre towards the mean of the logits seen since the last move; all in one exchange."""
    moved = [(each, each.seen) for each in centered if each.seen is not None]
    if not moved:
        return
    sums = torch.split(global_sum(torch.cat([seen for _, seen in moved])), [len(seen) for _, seen in moved])
    for (each, _), found in zip(moved, sums, strict=True):
        each.center.lerp_(found[:-1] / found[-1], 1 - each.momentum)
        each.seen = None


@torch.no_grad()
def sinkhorn(logits: Sequence[torch.Tensor], temperature: float, iterations: int) -> list[torch.Tensor]:
    """For each of `logits` assignments [..., P] whose prototype totals are equal and whose rows sum to 1, over the
    global batch. All share their exchanges. Processes hold equally many rows (`parallel.joined`)."""
    flat = [each.reshape(-1, each.shape[-1]) for each in logits]
    tops = torch.stack([rows.max() for rows in flat])
    if distributed():
        dist.all_reduce(tops, dist.ReduceOp.MAX)
    world = dist.get_world_size() if distributed() else 1
    found = [((rows - top) / temperature).exp() for rows, top in zip(flat, tops, strict=True)]  # [N, P] each
    widths = [q.shape[-1] for q in found]
    for _ in range(iterations):
        totals = torch.split(global_sum(torch.cat([q.sum(0) for q in found])), widths)
        found = [_shared(q, total, len(q) * world) for q, total in zip(found, totals, strict=True)]
    return [(q * (len(q) * world)).reshape(each.shape) for q, each in zip(found, logits, strict=True)]


def _shared(q: torch.Tensor, totals: torch.Tensor, rows: int) -> torch.Tensor:
    """Each prototype's column, then each row, at its share of the whole."""
    tiny = torch.finfo(q.dtype).tiny
    q = q / (totals * len(totals)).clamp_min(tiny)
    return q / (q.sum(1, keepdim=True) * rows).clamp_min(tiny)
