"""Teacher targets: centering + sharpening (TIPSv2's choice) or Sinkhorn-Knopp, over the global batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from adapters.tipsv2.recipe.chunked import Assigned
from adapters.tipsv2.recipe.config import HeadConfig
from adapters.tipsv2.recipe.cosines import Cosines, inverse_lengths


class Targets(nn.Module):
    """Logits [..., P] of the teacher → target distributions [..., P] that carry no gradient.

    The centre that a step uses is the one of the steps before; `update` moves it once a step, by the mean
    over every process and micro-batch.
    """

    center: torch.Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("center", torch.zeros(config.prototypes))
        self._sum: torch.Tensor | None = None
        self._rows = 0

    @torch.no_grad()
    def forward(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        logits = logits.float()
        if self.config.balance == "sinkhorn":
            return sinkhorn(logits, temperature, self.config.sinkhorn_iterations)
        rows = logits.reshape(-1, logits.shape[-1])
        self._saw(rows.sum(0), len(rows))
        return ((logits - self.center) / temperature).softmax(-1)

    @torch.no_grad()
    def assigned(self, cosines: Cosines, temperature: float) -> Assigned:
        """The same target of the factors of logits, for a loss that computes it by rows."""
        rows = cosines.features.flatten(0, -2)
        with torch.autocast(rows.device.type, enabled=False):  # the sum of logits is the logit of the sum
            total = cosines.prototypes.float() @ rows.float().sum(0)
            self._saw(total.mul_(inverse_lengths(cosines.prototypes)), len(rows))
        return Assigned(cosines, self.center.clone(), temperature)

    def _saw(self, total: torch.Tensor, rows: int) -> None:
        self._sum = total if self._sum is None else self._sum + total
        self._rows += rows

    @torch.no_grad()
    def update(self) -> None:
        """Moves the centre towards the mean of the logits seen since the last update."""
        if self._sum is None:
            return
        packed = torch.cat([self._sum, self._sum.new_tensor([float(self._rows)])])
        if _distributed():
            dist.all_reduce(packed)
        mean = packed[:-1] / packed[-1]
        self.center.lerp_(mean, 1 - self.config.center_momentum)
        self._sum, self._rows = None, 0


@torch.no_grad()
def sinkhorn(logits: torch.Tensor, temperature: float, iterations: int) -> torch.Tensor:
    """Assignments [..., P] whose prototype totals are equal and whose rows sum to 1, over the global batch."""
    shape = logits.shape
    flat = logits.reshape(-1, shape[-1])
    top = flat.max()
    rows = torch.tensor(float(len(flat)), device=flat.device)
    if _distributed():
        dist.all_reduce(top, dist.ReduceOp.MAX)
        dist.all_reduce(rows)
    q = ((flat - top) / temperature).exp()  # [N, P]
    for _ in range(iterations):
        totals = q.sum(0)
        if _distributed():
            dist.all_reduce(totals)
        q = q / (totals * shape[-1]).clamp_min(torch.finfo(q.dtype).tiny)
        q = q / (q.sum(1, keepdim=True) * rows).clamp_min(torch.finfo(q.dtype).tiny)
    return (q * rows).reshape(shape)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
