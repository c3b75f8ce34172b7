"""Global and local crops: random resized crop and flip, nothing else (TIPSv2 §3)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

Range = tuple[float, float]
Box = tuple[float, float, float, float]


def crop_box(width: int, height: int, scale: Range, ratio: Range, rng: np.random.Generator) -> Box:
    """(left, top, right, bottom) in pixels of a random crop: area share from `scale`, width / height from `ratio`.

    After ten boxes that do not fit, the largest centred box of an allowed ratio.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h


def whole_pixels(box: Box) -> tuple[int, int, int, int]:
    """`box` at its nearest whole pixels, at least one wide and high."""
    left, top, right, bottom = map(round, box)
    left, top = min(left, right - 1), min(top, bottom - 1)
    return max(left, 0), max(top, 0), max(right, 1), max(bottom, 1)


def random_view(
    pixels: np.ndarray,
    size: int,
    scale: Range,
    ratio: Range,
    flip: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    """[size, size, 3] uint8 of [H, W, 3] uint8: one crop of whole pixels, antialiased bilinear resize, flipped with
    probability `flip`.

    The resize is torch's on bytes, which takes a third of Pillow's time. Inside a crop both agree to one level; at its
    edges Pillow's filter would see the pixels beside the crop.
    """
    left, top, right, bottom = whole_pixels(crop_box(pixels.shape[1], pixels.shape[0], scale, ratio, rng))
    crop = torch.from_numpy(pixels[None, top:bottom, left:right].copy()).permute(0, 3, 1, 2)  # channels last in memory
    view = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)
    return (view.flip(-1) if rng.random() < flip else view)[0].permute(1, 2, 0)


def centre_view(image: Image.Image, size: int) -> np.ndarray:
    """[size, size, 3] uint8: the whole picture stretched to a square, as the encoder sees it at test time."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
