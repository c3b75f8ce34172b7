"""Global and local crops: random resized crop and flip, nothing else (TIPSv2 §3)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import numpy as np
import pyarrow
import torch
import torch.nn.functional as F
from PIL import Image

Range = tuple[float, float]
Box = tuple[float, float, float, float]


def crop_box(width: int, height: int, scale: Range, ratio: Range, rng: np.random.Generator) -> Box:
    """(left, top, right, bottom) in pixels of a random crop: area share from `scale`, width / height from `ratio`.

    After ten boxes that do not fit, the largest centred box of an allowed ratio.
    """
    narrowest, widest = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = width * height * _uniform(rng, *scale)
        aspect = math.exp(_uniform(rng, narrowest, widest))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = _uniform(rng, 0, width - w), _uniform(rng, 0, height - h)
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """`rng.uniform(low, high)`, whose arguments NumPy would make arrays of."""
    return low + (high - low) * rng.random()


def whole_pixels(box: Box) -> tuple[int, int, int, int]:
    """`box` at its nearest whole pixels, at least one wide and high."""
    left, top, right, bottom = map(round, box)
    left, top = min(left, right - 1), min(top, bottom - 1)
    return max(left, 0), max(top, 0), max(right, 1), max(bottom, 1)


def pixels_of(image: Image.Image) -> np.ndarray:
    """[H, W, 4] uint8, the memory of a picture in RGB itself, whose last channel means nothing; [H, W, 3], a copy,
    where Pillow is older than 11.2 or holds the picture in several pieces."""
    if image.mode == "RGB" and hasattr(image, "__arrow_c_array__"):
        with contextlib.suppress(ValueError):  # several pieces
            return np.asarray(pyarrow.array(image).values).reshape(image.height, image.width, 4)
    return np.asarray(image)


def random_view(
    pixels: np.ndarray,
    size: int,
    scale: Range,
    ratio: Range,
    flip: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """[size, size, C] uint8 of [H, W, C] uint8 (`pixels_of`): one crop of whole pixels, antialiased bilinear resize,
    flipped with probability `flip`.

    The resize is torch's on bytes, which takes a third of Pillow's time. Inside a crop both agree to one level; at its
    edges Pillow's filter would see the pixels beside the crop.
    """
    left, top, right, bottom = whole_pixels(crop_box(pixels.shape[1], pixels.shape[0], scale, ratio, rng))
    crop = torch.from_numpy(pixels[None, top:bottom, left:right].copy()).permute(0, 3, 1, 2)  # channels last in memory
    view: np.ndarray = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return view[:, ::-1] if rng.random() < flip else view


def stacked(views: Sequence[np.ndarray]) -> torch.Tensor:
    """[n, size, size, 3] of n views [size, size, 3 or more]."""
    out = np.empty((len(views), *views[0].shape[:2], 3), np.uint8)
    for row, view in zip(out, views, strict=True):
        for channel in range(3):  # one after the other they are copied ten times faster than as a slice
            row[..., channel] = view[..., channel]
    return torch.from_numpy(out)


def centre_view(image: Image.Image, size: int) -> np.ndarray:
    """[size, size, 3] uint8: the whole picture stretched to a square, as the encoder sees it at test time."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
