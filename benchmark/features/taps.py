"""Taps: the arrays taken from an encoder's output, one item per image."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

from benchmark.contracts import ImageFeatures, ImageRequest, Tap
from benchmark.views import Placement


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
    size = np.array([height, width])
    at = np.minimum((pixel_coordinates(image_id, tap) * size).astype(np.int64), size - 1)  # so may the product
    return at[:, 0], at[:, 1]


def mix_at_pixels(
    grid: torch.Tensor, rows: np.ndarray, columns: np.ndarray, height: int, width: int, place: Placement
) -> torch.Tensor:
    """[count, D]: the bilinear mixture (align_corners False) of the patch map [h, w, D] at each pixel's centre.

    A linear head applied to these equals the head's up-sampled output at the same pixels.
    """
    h, w = grid.shape[:2]
    y = (place.top + (torch.as_tensor(rows, dtype=torch.float64) + 0.5) / height * place.height) * h - 0.5
    x = (place.left + (torch.as_tensor(columns, dtype=torch.float64) + 0.5) / width * place.width) * w - 0.5
    y, x = y.clamp(0, h - 1), x.clamp(0, w - 1)
    y0, x0 = y.floor().long(), x.floor().long()
    y1, x1 = (y0 + 1).clamp(max=h - 1), (x0 + 1).clamp(max=w - 1)
    fy = (y - y0).to(grid.device, grid.dtype)[:, None]
    fx = (x - x0).to(grid.device, grid.dtype)[:, None]
    top = grid[y0, x0] * (1 - fx) + grid[y0, x1] * fx
    bottom = grid[y1, x0] * (1 - fx) + grid[y1, x1] * fx
    return top * (1 - fy) + bottom * fy


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
    out = []
    for grid, image_id, (height, width), place in zip(source.patches.float(), ids, sizes, places):
        rows, columns = pixel_indices(image_id, tap, height, width)
        out.append(mix_at_pixels(grid, rows, columns, height, width, place))
    return torch.stack(out).cpu().numpy()
