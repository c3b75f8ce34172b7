"""Making a head: trained on a job's training split, or read from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmark.contracts import Encoder, HeadKind, KeptHead, TaskContext
from benchmark.errors import DataError, first_line
from benchmark.heads.depth_bins import LinearDense
from benchmark.heads.dpt import DPT
from benchmark.heads.dpt_weights import load_dpt
from benchmark.system.digest import fingerprint
from tasks.block_cls import require_width
from tasks.training.batches import Batches
from tasks.training.curve import curve_files
from tasks.training.fields import TrainedHead
from tasks.training.frozen import EncodedBatches, Frozen, Shown, to_size
from tasks.training.loop import fit, initialise


@dataclass
class Ready:
    """A head over its encoder, with what the row keeps of its making."""

    frozen: Frozen
    head: nn.Module
    protocol: TrainedHead
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def kept(self, kind: HeadKind, test: Any, **more: Any) -> KeptHead | None:
        """What `--save-heads` keeps of it; None where it came from a file. `longest` is the longer side in pixels of
        the first test picture: the size at which the head is used to see things."""
        if self.protocol.head_weights:
            return None
        use = {"longest": max(test.images.picture(0).shape[:2]), **more}
        return KeptHead(kind, {name: values.clone() for name, values in self.head.state_dict().items()}, use)

    def maps(
        self, shown: Shown | torch.Tensor, read: Callable[[torch.Tensor], torch.Tensor], size: tuple[int, int]
    ) -> Any:
        """[B, C, *size]: `read` of the head's output for pictures (images, or what was encoded of them), brought to
        the target's size."""
        if isinstance(shown, torch.Tensor):
            shown = self.frozen.shown(shown)
        layers, card = shown.layers, self.frozen.encoder.card
        if self.protocol.head == "linear" and self.protocol.with_cls:
            require_width(layers[-1][1], layers[-1][0], card.name)
        grid, patch = layers[0][1].shape[2:], card.patch_size
        return to_size(read(self.head(layers)), size, shown.size, grid, patch, self.protocol)


def make_head(
    context: TaskContext,
    p: TrainedHead,
    data: Mapping[str, Any],
    out: int,
    loss: Callable[[Ready, Shown, int], torch.Tensor],
    label: str,
) -> Ready:
    """The head of `p` with `out` output channels; `loss` of a batch of `data`'s training split at a step trains it.

    Raises WeightsError for a file that is no head of this size, BenchError when training diverges.
    """
    card = context.card
    frozen = _frozen(context, p)
    details: dict[str, Any] = {"layers": [block % card.depth for block in frozen.blocks] or [card.depth - 1]}
    if p.head_weights:
        assert p.head_weights.path is not None
        head: nn.Module = load_dpt(p.head_weights.path, card.embed_dim, out).to(context.device)
        return Ready(frozen, head, p, {**details, "head_weights": p.head_weights.path.name})
    head = initialise(lambda: _new(p, card.embed_dim, out), p.init, context.seed)
    ready = Ready(frozen, head, p, details)
    source = EncodedBatches(Batches(data["train"], p, context.seed), frozen)
    key = fingerprint([p, data["train"].digest, context.seed, card.weights.sha256, card.code_version, out])
    bar = context.progress(f"training the {label} head", p.steps)
    losses = fit(
        head, p, lambda start: source.read(context.steps(source, start)), lambda _, b, s: loss(ready, b, s),
        context.scratch, key, bar, context.device,
    )  # fmt: skip
    last = losses[-max(1, len(losses) // 20) :]
    details |= {"steps": len(losses), "final_loss": sum(last) / len(last), "head_parameters": _count(head)}
    ready.files = curve_files(losses, p)
    return ready


def restored(head: KeptHead, encoder: Encoder, device: str, p: TrainedHead, out: int) -> Ready:
    """A kept head with `out` output channels over its encoder. Raises DataError where its arrays do not fit."""
    module = _new(p, encoder.card.embed_dim, out)
    try:
        module.load_state_dict(dict(head.arrays))
    except RuntimeError as e:
        raise DataError(f"the kept head does not fit its protocol: {first_line(e)}") from None
    return Ready(Frozen(encoder, p.blocks(encoder.card), device, p.final_norm), module.to(device).eval(), p)


def encoded_batches(context: TaskContext, p: TrainedHead, data: Mapping[str, Any]) -> EncodedBatches:
    """What the steps of the head of `p` read of `data`'s training split."""
    return EncodedBatches(Batches(data["train"], p, context.seed), _frozen(context, p))


def _frozen(context: TaskContext, p: TrainedHead) -> Frozen:
    return Frozen(context.encoder(), p.blocks(context.card), context.device, p.final_norm)


def _new(p: TrainedHead, width: int, out: int) -> nn.Module:
    if p.head == "dpt":
        return DPT(width, out, p.channels)
    return LinearDense(width, out, p.upsample, p.with_cls, p.batch_norm)


def _count(head: nn.Module) -> int:
    return sum(parameter.numel() for parameter in head.parameters())
