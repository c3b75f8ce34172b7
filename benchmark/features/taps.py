"""Taps: the arrays taken from an encoder's output, one item per image."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from benchmark.contracts import ImageFeatures, ImageRequest, Tap
from benchmark.images.views import Placement
from benchmark.system.late import torch


def pixel_coordinates(image_id: str, tap: Tap) -> np.ndarray:
    """[count, 2] fractions (row, column) in [0, 1), the same on every machine for one image id and tap.

    "independent": uniform. "stratified": uniform in a cell of its own of a ⌈√count⌉ × ⌈√count⌉ grid (cells drawn at
    random where there are more), so that no two samples say nearly the same. Either way every pixel is as likely as any
    other. The pixel meant in an H × W picture is (floor(row · H), floor(column · W)).
    """
    count, side = tap.count, math.isqrt(tap.count - 1) + 1 if tap.count else 0
    digest = hashlib.sha256(f"pixels:{tap.seed}:{image_id}".encode()).digest()
    raw = np.random.PCG64(int.from_bytes(digest[:16], "little")).random_raw(2 * count + side * side)
    within = (raw[: 2 * count] >> np.uint64(11)).astype(np.float64).reshape(count, 2) * 2.0**-53
    if tap.sampling == "independent":
        return within
    cells = np.sort(np.argsort(raw[2 * count :], kind="stable")[:count])
    return np.minimum((np.stack(np.divmod(cells, side), 1) + within) / side, 1 - 2.0**-53)  # the sum may round up


def pixel_indices(image_id: str, tap: Tap, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [count] and columns [count] of the sampled pixels in a picture of this size."""
    rows, columns = _pixel_indices(image_id, tap, height, width)
    return rows.copy(), columns.copy()


@lru_cache(4096)  # the heads of one run ask for the same pixels again
def _pixel_indices(image_id: str, tap: Tap, height: int, width: int) -> np.ndarray:
    size = np.array([height, width])
    at: np.ndarray = (pixel_coordinates(image_id, tap) * size).astype(np.int64)
    at = np.minimum(at, size - 1)  # so may the product
    return at.T


def corners_of(
    pixels: tuple[np.ndarray, np.ndarray], size: tuple[int, int], place: Placement, h: int, w: int
) -> tuple[np.ndarray, np.ndarray]:
    """The patches [4, count] around each pixel's centre, of an h × w map (top left, top right, low left, low right),
    and how far it is from the first of them to the next one below and to the right [2, count]."""
    (rows, columns), (height, width) = pixels, size
    y = np.clip((place.top + (rows + 0.5) / height * place.height) * h - 0.5, 0, h - 1)
    x = np.clip((place.left + (columns + 0.5) / width * place.width) * w - 0.5, 0, w - 1)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    low, right = np.minimum(top + 1, h - 1), np.minimum(left + 1, w - 1)
    corners = np.stack([top * w + left, top * w + right, low * w + left, low * w + right])
    return corners, np.stack([y - top, x - left])


def mix_at_pixels(
    maps: torch.Tensor,
    pixels: Sequence[tuple[np.ndarray, np.ndarray]],
    sizes: Sequence[tuple[int, int]],
    places: Sequence[Placement],
) -> torch.Tensor:
    """[B, count, D]: the bilinear mixture (align_corners False) of the patch maps [B, h, w, D] at each pixel's centre.

    A linear head applied to these equals the head's up-sampled output at the same pixels. `pixels` are rows and columns
    [count] of each picture, `sizes` its (height, width). Two copies go to the device and none back.
    """
    h, w = maps.shape[1:3]
    at, shares = [], []
    for i, (pixel, size, place) in enumerate(zip(pixels, sizes, places)):
        around, within = corners_of(pixel, size, place, h, w)
        at.append(i * h * w + around)
        shares.append(within)
    corners = torch.from_numpy(np.stack(at, 1)).to(maps.device)  # [4, B, count] rows of the flat maps
    fy, fx = torch.from_numpy(np.stack(shares, 1)).to(maps.dtype).to(maps.device)[..., None]
    flat = maps.reshape(-1, maps.shape[-1])
    top_row = flat[corners[0]] * (1 - fx) + flat[corners[1]] * fx
    low_row = flat[corners[2]] * (1 - fx) + flat[corners[3]] * fx
    mixed: torch.Tensor = top_row * (1 - fy) + low_row * fy
    return mixed


def request_for(taps: list[Tap]) -> ImageRequest:
    """The one request that serves all `taps`."""
    layers = sorted({t.layer for t in taps if t.layer is not None})
    return ImageRequest(tuple(layers), any(t.name == "text_patches" for t in taps))


def take(
    tap: Tap,
    features: ImageFeatures,
    request: ImageRequest,
    ids: list[str],
    sizes: list[tuple[int, int]],
    places: list[Placement],
) -> np.ndarray:
    """[B, *item] float32 on the CPU. `ids`, `sizes` and `places` say which picture each row is and how it was laid."""
    if tap.name == "text_patches":
        assert features.text_patches is not None
        return features.text_patches.float().cpu().numpy()
    source = features if tap.layer is None else features.layers[request.layers.index(tap.layer)]
    if tap.name == "cls":
        return source.cls.float().cpu().numpy()
    if tap.name == "patches":
        return source.patches.float().cpu().numpy()
    if tap.name == "mean_patches":
        return source.patches.float().mean((1, 2)).cpu().numpy()
    pixels = [pixel_indices(image_id, tap, *size) for image_id, size in zip(ids, sizes)]
    return mix_at_pixels(source.patches.float(), pixels, sizes, places).cpu().numpy()
