"""`encode_image` that halves its batch for as long as memory runs out."""

from __future__ import annotations

from collections.abc import Callable

from benchmark.contracts import Encoder, ImageFeatures, ImageRequest
from benchmark.errors import BenchError
from benchmark.system.late import torch


def encode_halving(
    encoder: Encoder,
    images: torch.Tensor,
    request: ImageRequest,
    device: str | torch.device,
    halved: Callable[[int], None] = lambda size: None,
) -> ImageFeatures:
    """Features of images [B, 3, H, W]: uint8, or float in [0, 1]; `halved` is told each smaller batch size.

    Raises BenchError when one picture alone does not fit.
    """
    try:
        with torch.inference_mode():
            there = images.to(device, non_blocking=True)
            return encoder.encode_image(there.float() / 255 if there.dtype == torch.uint8 else there, request)
    except Exception as e:
        if not _out_of_memory(e):
            raise
    if len(images) == 1:
        raise BenchError(
            f"{encoder.card.name}: one {tuple(images.shape[2:])} picture does not fit in memory. "
            "Use a smaller view or --dtype bfloat16"
        )
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
    half = -(-len(images) // 2)
    halved(half)
    return _concatenate([encode_halving(encoder, part, request, device, halved) for part in torch.split(images, half)])


def _out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and ("RESOURCE_EXHAUSTED" in text or "not enough memory" in text or "out of memory" in text)
    )


def _concatenate(parts: list[ImageFeatures]) -> ImageFeatures:
    texts = [p.text_patches for p in parts if p.text_patches is not None]
    layers = tuple(
        type(group[0])(torch.cat([g.cls for g in group]), torch.cat([g.patches for g in group]))
        for group in zip(*(p.layers for p in parts))
    )
    return ImageFeatures(
        torch.cat([p.cls for p in parts]),
        torch.cat([p.patches for p in parts]),
        layers,
        torch.cat(texts) if texts else None,
    )
