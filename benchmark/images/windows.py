"""Sliding windows: where they lie and how their maps are joined (mmsegmentation's `slide_inference` rules)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from benchmark.errors import UsageError
from benchmark.system.late import torch

Box = tuple[int, int, int, int]  # y0, x0, y1, x1
Size = tuple[int, int]  # height, width


def window_boxes(height: int, width: int, size: int | tuple[int, int], stride: int | tuple[int, int]) -> list[Box]:
    """Boxes (y0, x0, y1, x1) that cover height × width pixels, row by row.

    The last window of a row or column is moved back flush with the border, so all have the full size unless the
    picture itself is smaller. `size` and `stride` are pixels, one number or (vertical, horizontal).
    """
    (size_y, size_x), (stride_y, stride_x) = _pair(size), _pair(stride)
    if min(size_y, size_x, stride_y, stride_x, height, width) < 1:
        raise UsageError(f"window {size} with stride {stride} on {height} × {width}: all must be at least one pixel")
    if stride_y > size_y or stride_x > size_x:
        raise UsageError(f"stride {stride} is larger than the window {size}: pixels between windows would be skipped")
    return [(y, x, min(y + size_y, height), min(x + size_x, width))
            for y in _starts(height, size_y, stride_y) for x in _starts(width, size_x, stride_x)]  # fmt: skip


def window_sizes(pictures: Iterable[Size], size: int, stride: int) -> Counter[Size]:
    """How many windows of each size lie over all `pictures`."""
    found: Counter[Size] = Counter()
    for picture, times in Counter(pictures).items():
        for y0, x0, y1, x1 in window_boxes(*picture, size, stride):
            found[y1 - y0, x1 - x0] += times
    return found


def fuse(maps: Iterable[torch.Tensor], boxes: Sequence[Box], height: int, width: int) -> torch.Tensor:
    """[C, height, width] float32: the mean over windows of `maps` ([C, y1-y0, x1-x0] each, in the order of `boxes`).

    `maps` may be a generator, so that only one window is in memory.
    """
    total: torch.Tensor | None = None
    count = torch.zeros(height, width)
    for window, (y0, x0, y1, x1) in zip(maps, boxes, strict=True):
        if window.shape[-2:] != (y1 - y0, x1 - x0):
            raise UsageError(f"window map is {tuple(window.shape[-2:])}, its box is {(y1 - y0, x1 - x0)}")
        if total is None:
            total = torch.zeros(window.shape[0], height, width, device=window.device)
            count = count.to(window.device)
        total[:, y0:y1, x0:x1] += window
        count[y0:y1, x0:x1] += 1
    if total is None:
        raise UsageError("no windows to fuse: `boxes` is empty")
    if bool((count == 0).any()):
        raise UsageError(f"{int((count == 0).sum())} pixels lie in no window: use the boxes of window_boxes")
    return total.div_(count)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _starts(length: int, size: int, stride: int) -> list[int]:
    count = max(length - size + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - size), 0) for i in range(count)]
