"""Sliding windows against a plain loop and mmsegmentation's grid."""

from __future__ import annotations

import pytest
import torch

from benchmark.errors import UsageError
from benchmark.images.windows import fuse, window_boxes


def mmseg_grid(height: int, width: int, size: int, stride: int) -> list[tuple[int, int, int, int]]:
    boxes = []
    for row in range(max(height - size + stride - 1, 0) // stride + 1):
        for column in range(max(width - size + stride - 1, 0) // stride + 1):
            y1, x1 = min(row * stride + size, height), min(column * stride + size, width)
            boxes.append((max(y1 - size, 0), max(x1 - size, 0), y1, x1))
    return boxes


@pytest.mark.parametrize("shape", [(512, 683), (512, 512), (100, 700), (448, 449), (341, 853)])
@pytest.mark.parametrize(("size", "stride"), [(512, 341), (448, 336), (448, 448)])
def test_boxes_are_mmsegmentations(shape: tuple[int, int], size: int, stride: int) -> None:
    assert window_boxes(*shape, size, stride) == mmseg_grid(*shape, size, stride)


def test_fusing_crops_of_a_map_gives_the_map_back() -> None:
    whole = torch.randn(3, 50, 71)
    boxes = window_boxes(50, 71, 32, 20)
    torch.testing.assert_close(fuse((whole[:, a:c, b:d] for a, b, c, d in boxes), boxes, 50, 71), whole)


def test_overlaps_are_averaged() -> None:
    boxes = window_boxes(1, 3, (1, 2), (1, 1))
    fused = fuse([torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[4.0, 6.0]]])], boxes, 1, 3)
    assert fused.tolist() == [[[0.0, 3.0, 6.0]]]


def test_impossible_windows_are_refused() -> None:
    with pytest.raises(UsageError, match="pixels between windows would be skipped"):
        window_boxes(10, 10, 4, 5)
    with pytest.raises(UsageError, match="lie in no window"):
        fuse([torch.zeros(1, 2, 2)], [(0, 0, 2, 2)], 3, 2)
