"""What the truth itself would get on an encoder's patch grid: each patch holds the shares, or the mean, of its target,
and is up-sampled as predictions are. A coarse grid is so not read as a weak encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pad

from benchmark.contracts import DepthData, Measurement, NormalsData, SegmentationData, ignored_label
from benchmark.images.views import Placement, ResolvedView
from benchmark.metrics.geometry import depth_errors, normal_errors
from benchmark.metrics.segmentation import confusion_areas

FAR = 80.0  # metres, where neither protocol nor data have a limit


def ceiling(
    data: Any, rows: Sequence[int], grid: tuple[int, int], view: ResolvedView, measured: Measurement, protocol: Any
) -> float | None:
    """The main metric of the true shares on `grid` [h, w] over the pictures `rows`; None where that has no meaning:
    a view that cuts pictures, a protocol that scores a part of them, another kind of data."""
    fields = vars(protocol)  # each schema has its own
    if fields.get("crop", "none") not in ("none", 0, None):
        return None
    found = []
    for row in rows:
        target = np.asarray(data.counted(row) if isinstance(data, NormalsData) else data.target(row))
        place = view.placement(*target.shape[:2])
        if place.top < 0 or place.left < 0:
            return None
        if isinstance(data, SegmentationData):
            found.append(_areas(target, len(data.class_names), grid, place))
        elif isinstance(data, DepthData):
            limit = fields.get("max_depth") or data.max_depth or FAR
            near = fields.get("min_depth", 1e-3)
            there = np.isfinite(target) & (target > near) & (target < limit)
            guess = _means(target, there, grid, place)[..., 0]
            found.append(depth_errors(guess, target, near, limit, clamp=True))
        elif isinstance(data, NormalsData):
            there = np.isfinite(target).all(-1) & (target != 0).any(-1)
            found.append(dict(normal_errors(_means(target, there, grid, place), target, True)))
    if not found:
        return None
    columns = {name: np.stack([np.asarray(one[name]) for one in found]) for name in found[0]}
    if set(measured.statistic.columns) - columns.keys():  # another metric than the field's
        return None
    return float(measured.statistic.of(columns))


def _areas(target: np.ndarray, classes: int, grid: tuple[int, int], place: Placement) -> Mapping[str, Any]:
    scored = (target != ignored_label(classes)) & (target >= 0)
    present = np.unique(target[scored]).astype(np.int64)
    if not len(present):
        return confusion_areas(np.zeros_like(target), target, classes).columns()
    shares = _on_grid(np.stack([(target == label) & scored for label in present]).astype(np.float32), grid, place)
    prediction = present[shares.argmax(0)]
    return confusion_areas(prediction, target, classes).columns()


def _means(target: np.ndarray, there: np.ndarray, grid: tuple[int, int], place: Placement) -> np.ndarray:
    """[H, W, C] the mean target of each patch, up-sampled; of a patch without any, that of the picture."""
    values = np.where(there[..., None], target.reshape(*there.shape, -1), 0).astype(np.float32)
    planes = np.concatenate([values, there[..., None]], -1).transpose(2, 0, 1)
    pooled = _pooled(planes, grid, place)
    mean = pooled[:-1].sum((1, 2), keepdim=True) / pooled[-1:].sum().clamp(min=1e-9)
    found = torch.where(pooled[-1:] > 0, pooled[:-1] / pooled[-1:].clamp(min=1e-9), mean)
    up: np.ndarray = upsampled(found, there.shape, place).permute(1, 2, 0).numpy()
    return up


def _on_grid(planes: np.ndarray, grid: tuple[int, int], place: Placement) -> np.ndarray:
    up: np.ndarray = upsampled(_pooled(planes, grid, place), planes.shape[1:], place).numpy()
    return up


def _pooled(planes: np.ndarray, grid: tuple[int, int], place: Placement) -> torch.Tensor:
    """[C, h, w] means of [C, H, W] over patches, the border that a view adds counted as empty."""
    maps = torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))
    (top, left), full = _border(planes.shape[1:], place)
    bottom, right = full[0] - top - planes.shape[1], full[1] - left - planes.shape[2]
    return adaptive_avg_pool2d(pad(maps, (left, right, top, bottom)), grid)


def upsampled(maps: torch.Tensor, shape: Sequence[int], place: Placement) -> torch.Tensor:
    """[C, h, w] on patches as [C, *shape], bilinear, the border that a view adds cut off."""
    (top, left), full = _border(shape, place)
    whole = interpolate(maps[None], full, mode="bilinear", align_corners=False)[0]
    return whole[:, top : top + shape[0], left : left + shape[1]]


def _border(shape: Sequence[int], place: Placement) -> tuple[tuple[int, int], tuple[int, int]]:
    """((rows above, columns left), (height, width)) of a picture of `shape` with its border, in its own pixels."""
    full = round(shape[0] / place.height), round(shape[1] / place.width)
    top, left = (min(round(at * side), side - own) for at, side, own in zip((place.top, place.left), full, shape))
    return (top, left), full
