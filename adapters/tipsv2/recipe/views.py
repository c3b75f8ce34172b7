"""Global and local crops: random resized crop and flip, nothing else (TIPSv2 §3)."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

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
    """[H, W] uint32 of a picture in RGB: a pixel is its four bytes, red, green, blue and one that means nothing. The
    picture's own memory; a copy where Pillow is older than 11.2 or holds the picture in several pieces."""
    if image.mode == "RGB" and hasattr(image, "__arrow_c_array__"):
        with contextlib.suppress(ValueError):  # several pieces
            return np.frombuffer(pyarrow.array(image).buffers()[-1], np.uint32).reshape(image.height, image.width)
    copied: np.ndarray = np.asarray(image.convert("RGBX")).view(np.uint32)[..., 0]
    return copied


class Crop(NamedTuple):
    """A view that was drawn: which whole pixels of the picture it shows, and whether mirrored."""

    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool


def draw_crop(width: int, height: int, scale: Range, ratio: Range, flip: float, rng: np.random.Generator) -> Crop:
    """A crop of whole pixels (`crop_box`), mirrored with probability `flip`."""
    return Crop(*whole_pixels(crop_box(width, height, scale, ratio, rng)), rng.random() < flip)


def cut(pixels: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """[size, size, 3] uint8 of [H, W] uint32 (`pixels_of`): the crop, by an antialiased bilinear resize.

    The resize is torch's on bytes, which takes a third of Pillow's time. Inside a crop both agree to one level; at its
    edges Pillow's filter would see the pixels beside the crop.
    """
    inside = pixels[None, crop.top : crop.bottom, crop.left : crop.right, None].copy()
    laid = torch.from_numpy(inside.view(np.uint8).transpose(0, 3, 1, 2))  # [1, 4, h, w], channels last in memory
    resized = F.interpolate(laid, (size, size), mode="bilinear", antialias=True).numpy()
    view: np.ndarray = resized[0].transpose(1, 2, 0).view(np.uint32)[..., 0]
    return three_bytes(view[:, ::-1].copy() if crop.mirrored else view)


def three_bytes(view: np.ndarray) -> np.ndarray:
    """[h, w, 3] uint8 of [h, w] uint32.

    One after the other all four bytes of a pixel are written where its three belong, and the next pixel covers the
    fourth: a third of the time of three bytes each.
    """
    out = np.empty(3 * view.size + 1, np.uint8)
    np.ndarray(view.size, np.uint32, out, strides=(3,))[:] = view.reshape(-1)
    return out[:-1].reshape(*view.shape, 3)


def centre_view(image: Image.Image, size: int) -> np.ndarray:
    """[size, size, 3] uint8: the whole picture stretched to a square, as the encoder sees it at test time."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
