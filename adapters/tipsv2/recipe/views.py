"""Global and local crops: random resized crop and flip, nothing else (TIPSv2 §3)."""

from __future__ import annotations

import math

import numpy as np
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


def random_view(
    image: Image.Image,
    size: int,
    scale: Range,
    ratio: Range,
    flip: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """[size, size, 3] uint8: one crop, antialiased bilinear resize, flipped with probability `flip`."""
    box = crop_box(image.width, image.height, scale, ratio, rng)
    view = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return view[:, ::-1] if rng.random() < flip else view


def centre_view(image: Image.Image, size: int) -> np.ndarray:
    """[size, size, 3] uint8: the whole picture stretched to a square, as the encoder sees it at test time."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
