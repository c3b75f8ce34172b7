"""The three losses: two-pair InfoNCE over the global batch, DINO on local crops, iBOT and iBOT++ on patches."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, temperature: torch.Tensor, captioned: torch.Tensor | None = None
) -> torch.Tensor:
    """Softmax InfoNCE in both directions, averaged over the (CLS, caption) pairs.

    `images` and `texts` are this process's rows [B, K, D], L2-normalised; the negatives are the rows of all
    processes. The mean of the value over processes is the loss of the global batch. The cosines are float32 under
    autocast too: one of bfloat16 is off by up to 0.002, which a temperature of 0.0036 makes half a nat.

    A row of a pair that is not `captioned` [B, K] (bool; None: all are) is neither asked nor an answer in that pair,
    and the mean runs over the others of all processes.
    """
    there = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device) if captioned is None else captioned
    with torch.autocast(images.device.type, enabled=False):
        images, texts = images.float(), texts.float()
        all_images, all_texts, everywhere = images, texts, there
        if distributed():  # one exchange; its backward pass is the second
            packed = gather_rows(torch.cat([images, texts, there[..., None].float()], -1))
            all_images, all_texts, flags = torch.split(packed, [images.shape[-1], texts.shape[-1], 1], -1)
            everywhere = flags[..., 0].detach() > 0
        pairs = []
        for k in range(images.shape[1]):
            rows = None if bool(everywhere[:, k].all()) else (there[:, k], everywhere[:, k])
            asking = _one_way(images[:, k], all_texts[:, k], temperature, rows)
            pairs.append(0.5 * (asking + _one_way(texts[:, k], all_images[:, k], temperature, rows)))
        return torch.stack(pairs).mean()


def _one_way(
    queries: torch.Tensor,
    keys: torch.Tensor,
    temperature: torch.Tensor,
    rows: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """`keys` are those of all processes; `rows`: which of the queries and which of the keys count; None: all."""
    logits = queries @ keys.T / temperature  # [B, B · world]
    rank = dist.get_rank() if distributed() else 0
    labels = torch.arange(len(queries), device=queries.device) + rank * len(queries)
    if rows is None:
        return F.cross_entropy(logits, labels)
    asked, answers = rows
    labels = labels.masked_fill(~asked, -100)  # cross_entropy's ignore_index
    total = F.cross_entropy(logits.masked_fill(~answers, -torch.inf), labels, reduction="sum")
    world = dist.get_world_size() if distributed() else 1
    return total * world / answers.sum().clamp_min(1)


def dino_loss(student: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of the teacher's global-view target [B, P] with the student's crops [M, B, P]."""
    log_q = (student.float() / temperature).log_softmax(-1)
    return -(target.detach() * log_q).sum(-1).mean()


def patch_loss(
    student: torch.Tensor, target: torch.Tensor, temperature: float, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of student [B, N, P] and target [B, N, P] averaged over patches, then over images.

    iBOT: `weights` is the mask [B, N] and only masked patches count. iBOT++: no weights, every patch counts,
    the visible ones too. Each is the paper's sum divided by the number of patches that it runs over.
    """
    log_q = (student.float() / temperature).log_softmax(-1)
    each = -(target.detach() * log_q).sum(-1)  # [B, N]
    if weights is None:
        return each.mean()
    weights = weights.to(each.dtype)
    return ((each * weights).sum(1) / weights.sum(1).clamp_min(1)).mean()


class _GatherRows(torch.autograd.Function):
    """Rows of all processes in rank order; backward hands each process the sum of everyone's gradients for its rows."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """[B, …] of this process → [B · world, …]; the identity in one process."""
    return _GatherRows.apply(rows) if distributed() else rows  # type: ignore[no-untyped-call]


def global_sum(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if distributed():
        dist.all_reduce(value)
    return value


def distributed() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
