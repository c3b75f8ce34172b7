"""Milliseconds per rendered scene on one core, and the oracles of the segmentation task.

python perf/scenes.py                     # sizes, oracles
python perf/scenes.py --against FOLDER    # over the renderer of another checkout, in turn, one process each
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

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


SERVE = """
import sys, time
from tasks.scenes.render import render
try:  # as a rendering process does
    from benchmark.system.processes import keep_memory
    keep_memory()
except ImportError:
    pass
for line in sys.stdin:
    start = time.process_time()
    for split in ("train", "labels-train", "retrieval"):
        for index in range(int(line)):
            render(0, index, 96, split=split)
    print(time.process_time() - start, flush=True)
"""


def over(other: str, n: int, rounds: int = 7) -> tuple[float, float, float]:
    """Milliseconds per scene of this checkout and of another (each the least of its rounds), and the median ratio."""
    folders = (str(Path(__file__).resolve().parents[1]), other)
    pair = [
        subprocess.Popen([sys.executable, "-c", SERVE], cwd=folder, text=True, env={**os.environ, "PYTHONPATH": folder},
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for folder in folders
    ]  # fmt: skip

    def ask(process: subprocess.Popen[str], count: int) -> float:
        print(count, file=process.stdin, flush=True)
        assert process.stdout is not None
        return float(process.stdout.readline()) / (3 * count) * 1e3

    for process in pair:
        ask(process, 1)
    found = [[ask(process, n) for process in pair] for _ in range(rounds)]
    for process in pair:
        process.communicate()
    ours, theirs = (min(column) for column in zip(*found))
    return ours, theirs, statistics.median(a / b for a, b in found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="scenes per size")
    parser.add_argument("--against", help="the folder of another checkout")
    words = parser.parse_args()
    n = words.n
    if words.against:
        ours, theirs, ratio = over(words.against, max(n // 8, 1))
        print(f"{ours:.2f} ms and {theirs:.2f} ms per scene of processor time: {ratio:.2f} ×")
        return
    for size in (64, 96, 128, 224):
        cpu, clock = per_scene(size, n)
        print(f"{size:4d} px  {cpu:5.2f} ms/scene processor time, median {clock:5.2f} ms by the clock")
    for cells in (8, 12):
        grid, majority = oracles(n, grid=cells)
        print(f"true class shares of a {cells} × {cells} grid, up-sampled: {grid:.1f} mIoU ({n} test scenes)")
    print(f"commonest class per pixel: {majority:.1f} mIoU")


if __name__ == "__main__":
    main()
