"""Sliding-window zero-shot segmentation, as in the TIPS notebook (protocols in tasks/protocols)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, normalize

from benchmark import images
from benchmark.contracts import ImageRequest, Interpolation, TaskContext
from benchmark.errors import EncoderError
from benchmark.windows import fuse, window_boxes

WINDOWS_AT_ONCE = 8


def window_maps(context: TaskContext, image: np.ndarray, texts: torch.Tensor, protocol: Any) -> torch.Tensor:
    """[C, h, w] class scores of an [H, W, 3] uint8 picture whose short side was resized to `view_size`.

    Each window is resized to a multiple of the patch size, its cosine map up-sampled to the window's pixels, turned
    into probabilities if `softmax`, and averaged over overlapping windows.
    """
    encoder, patch = context.encoder(), context.card.patch_size
    rule: Interpolation = "bicubic" if protocol.interpolation == "encoder" else protocol.interpolation
    height, width = images.short_side_size(image.shape[0], image.shape[1], protocol.view_size)
    picture = images.resize(image, height, width, rule, True)
    pixels = torch.from_numpy(picture).permute(2, 0, 1).float() / 255  # [3, h, w]
    boxes = window_boxes(height, width, protocol.window, protocol.stride)
    maps = []
    for start in range(0, len(boxes), WINDOWS_AT_ONCE):
        crops = torch.stack([pixels[:, y0:y1, x0:x1] for y0, x0, y1, x1 in boxes[start : start + WINDOWS_AT_ONCE]])
        h, w = crops.shape[2:]
        whole = (max(round(h / patch), 1) * patch, max(round(w / patch), 1) * patch)
        if whole != (h, w):
            crops = interpolate(crops, whole, mode="bicubic", align_corners=False).clamp(0, 1)
        with torch.inference_mode():
            found = encoder.encode_image(crops.to(context.device), ImageRequest(text_patches=True)).text_patches
        if found is None or not bool(torch.isfinite(found).all()):
            raise EncoderError(f"{context.card.name}: text_patches are absent or not finite")
        cosine = (normalize(found.float(), dim=-1) @ texts.T).permute(0, 3, 1, 2)  # [b, C, gh, gw]
        scores = interpolate(cosine, (h, w), mode="bilinear", align_corners=False)
        maps += list(scores.softmax(1) if protocol.softmax else scores)
    return fuse(maps, boxes, height, width)
