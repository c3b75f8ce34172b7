"""The CLS that stands beside a linear head's patch tokens: that of the last block, in the patches' own space.

`ImageFeatures.cls` is what an encoder pools for retrieval: CLIP's is already projected into the space of its texts.
"""

from __future__ import annotations

from benchmark.contracts import EncoderCard
from benchmark.errors import NotApplicable
from benchmark.system.late import torch


def last_block(card: EncoderCard, wanted: bool) -> tuple[int, ...]:
    """The layers to ask for: the last block where it is wanted (for its CLS, or without the final norm) and the
    encoder has blocks, else the final output."""
    return (-1,) if wanted and card.depth else ()


def beside(patches: torch.Tensor, cls: torch.Tensor, name: str) -> torch.Tensor:
    """[B, 2D, h, w] of patch tokens [B, D, h, w] and CLS [B, D]. Raises NotApplicable as `require_width`."""
    require_width(patches, cls, name)
    return torch.cat([patches, cls[:, :, None, None].expand_as(patches)], 1)


def require_width(patches: torch.Tensor, cls: torch.Tensor, name: str) -> None:
    """Raises NotApplicable where the encoder `name` gives patches [B, D, h, w] and no CLS of their width D."""
    if cls.shape[1] != patches.shape[1]:
        raise NotApplicable(
            f"{name} has patches of {patches.shape[1]} values, no blocks to ask, and a pooled vector of "
            f"{cls.shape[1]}: no CLS to set beside the patches. Try --set with_cls=false"
        )
