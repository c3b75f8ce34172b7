"""Label maps read in threads ahead of the loop that samples them, over the same read one by one.

    python perf/read_ahead.py [--maps 2000] [--rounds 3]

PNGs of 683 × 512 pixels and 150 classes, as ADE20K's; wall clock, both ways in turn on all processors, from the page
cache. What the threads may win depends on the processors: a head's training pixels are read before it can begin.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.data.read_ahead import read_ahead
from benchmark.images.decode import resize
from benchmark.system.processes import processors


def write(folder: Path, count: int) -> list[Path]:
    """Maps of about forty regions each."""
    paths = []
    for i in range(count):
        coarse = np.random.default_rng(i % 50).integers(0, 150, (6, 8)).astype(np.uint8)
        large = resize(np.repeat(coarse[..., None], 3, -1), 512, 683, "nearest", False)[..., 0]
        paths.append(folder / f"{i}.png")
        Image.fromarray(large).save(paths[-1])
    return paths


def main() -> None:
    """Prints milliseconds a map, both ways, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), words.maps)

        def read(index: int) -> np.ndarray:
            return np.asarray(Image.open(paths[index]))

        took: dict[str, list[float]] = {"ahead": [], "one by one": []}
        for _ in range(words.rounds):
            ways = {"one by one": map(read, range(len(paths))), "ahead": read_ahead(read, range(len(paths)))}
            for name, maps in ways.items():
                began = time.perf_counter()
                total = sum(int(one[::64, ::64].sum()) for one in maps)
                took[name].append(time.perf_counter() - began)
                assert total > 0
    ratios = [a / b for a, b in zip(took["ahead"], took["one by one"])]
    each = {name: 1000 * statistics.median(values) / words.maps for name, values in took.items()}
    print(f"{each['ahead']:.2f} and {each['one by one']:.2f} ms a map: {statistics.median(ratios):.2f} ×", end=", ")
    print(f"{processors()} processors")


if __name__ == "__main__":
    main()
