"""Resizing without antialiasing, as OpenCV (and so mmcv) and torch do it.

Pillow has no such filter: its `transform` looks alike, but its bicubic kernel is another one (a = -1, where both
libraries have -0.75) and it cuts fractions off instead of rounding.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from benchmark.contracts import Interpolation

CUBIC = -0.75  # OpenCV's and torch's parameter of Keys' kernel (1981)


def sampled(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """[height, width, …] uint8 of [H, W, …] uint8: `nearest`, `bilinear` or `bicubic` at pixel centres.

    Equal to OpenCV's and torch's to one level of 255: they round halves, and OpenCV its shares, differently. The
    nearest is OpenCV's to the pixel, rounding errors included; torch's are others where a place falls on an edge.
    """
    if interpolation == "nearest":
        rows, columns = (
            np.minimum((np.arange(new) * (1 / (new / old))).astype(np.intp), old - 1)
            for old, new in zip(image.shape, (height, width))
        )
        picked: np.ndarray = image[rows[:, None], columns[None]]
        return picked
    vertical = _mixed(image, height, interpolation)
    both = _mixed(vertical.swapaxes(0, 1), width, interpolation).swapaxes(0, 1)
    return np.ascontiguousarray((both + np.float32(0.5)).clip(0, 255).astype(np.uint8))


def _mixed(values: np.ndarray, size: int, interpolation: Interpolation) -> np.ndarray:
    """[size, …] float32 of [N, …] along the first axis."""
    places, shares = _taps(values.shape[0], size, interpolation)
    shape = (size,) + (1,) * (values.ndim - 1)
    out: np.ndarray = values[places[0]] * shares[0].reshape(shape)
    for place, share in zip(places[1:], shares[1:]):
        out += values[place] * share.reshape(shape)
    return out


@lru_cache(64)
def _taps(old: int, new: int, interpolation: Interpolation) -> tuple[np.ndarray, np.ndarray]:
    """([taps, new] source positions, [taps, new] float32 shares) of each target; the edge goes on outside."""
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(at)
    t = at - first
    if interpolation == "bilinear":
        around, shares = np.arange(0, 2), np.stack([1 - t, t])
    else:
        around, a = np.arange(-1, 3), CUBIC
        far, near = np.stack([1 + t, 2 - t]), np.stack([t, 1 - t])
        far, near = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a, ((a + 2) * near - (a + 3)) * near**2 + 1
        shares = np.stack([far[0], near[0], near[1], far[1]])
    places = np.clip(first.astype(np.intp) + around[:, None], 0, old - 1)
    return places, shares.astype(np.float32)
