"""Milliseconds per rendered scene on one core, and the oracles of the segmentation task: `python perf/scenes.py`."""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from tasks.scenes.render import render
from tasks.scenes.tables import CLASS_NAMES


def per_scene(size: int, n: int) -> tuple[float, float]:
    """Milliseconds per scene: processor time, and the median of single scenes by the clock."""
    render(0, 0, size)
    clock = []
    start = time.process_time()
    for index in range(n):
        began = time.perf_counter()
        render(0, index, size)
        clock.append(time.perf_counter() - began)
    return (time.process_time() - start) / n * 1e3, float(np.median(clock)) * 1e3


def mean_iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """mIoU in percent over the classes that occur, of (prediction, truth) maps."""
    c = len(CLASS_NAMES)
    table = sum(np.bincount(t.ravel().astype(int) * c + p.ravel(), minlength=c * c) for p, t in pairs)
    confusion = np.asarray(table).reshape(c, c)
    hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return float(np.mean(hits[union > 0] / union[union > 0]) * 100)


def upsample(cells: np.ndarray, size: int) -> np.ndarray:
    """[g, g, C] to [size, size, C], bilinear with pixel centres aligned and edges held."""
    g = cells.shape[0]
    at = np.clip((np.arange(size) + 0.5) * g / size - 0.5, 0, g - 1)
    low = np.minimum(at.astype(int), g - 2)
    weight = at - low
    for axis in (0, 1):
        w = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        cells = np.take(cells, low, axis) * (1 - w) + np.take(cells, low + 1, axis) * w
    return cells


def oracles(n: int, size: int = 96, grid: int = 8) -> tuple[float, float]:
    """mIoU of the true class shares of each cell, upsampled; and of the commonest class per pixel."""
    truth = [render(0, index, size, split="test").semantic for index in range(n)]
    one_hot = [(np.arange(len(CLASS_NAMES)) == mask[..., None]).astype(np.float32) for mask in truth]
    cell = size // grid
    shares = [hot.reshape(grid, cell, grid, cell, -1).mean((1, 3)) for hot in one_hot]
    coarse = [upsample(share, size).argmax(-1) for share in shares]
    majority = np.sum(one_hot, axis=0).argmax(-1)
    return mean_iou(list(zip(coarse, truth))), mean_iou([(majority, mask) for mask in truth])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="scenes per size")
    n = parser.parse_args().n
    for size in (64, 96, 128, 224):
        cpu, clock = per_scene(size, n)
        print(f"{size:4d} px  {cpu:5.2f} ms/scene processor time, median {clock:5.2f} ms by the clock")
    for cells in (8, 12):
        grid, majority = oracles(n, grid=cells)
        print(f"true class shares of a {cells} × {cells} grid, up-sampled: {grid:.1f} mIoU ({n} test scenes)")
    print(f"commonest class per pixel: {majority:.1f} mIoU")


if __name__ == "__main__":
    main()
