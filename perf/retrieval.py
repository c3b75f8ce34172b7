"""Cost of exact retrieval ranks over one product and its top-k: 5,000 images × 25,000 captions × 768, both directions.

python perf/retrieval.py [--images N] [--rounds N] [--device cuda]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmark.metrics.positives import caption_positives
from benchmark.metrics.retrieval import mutual_ranks

CAPTIONS, WIDTH, BLOCK, K = 5, 768, 2048, 10


def top_k(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every score once, block by block, and of both directions the K highest, as benchmarks that know no ties do."""
    rows, columns = [], b.new_full((K, len(b)), -torch.inf)
    for i in range(0, len(a), BLOCK):
        best = a.new_full((len(a[i : i + BLOCK]), K), -torch.inf)
        for j in range(0, len(b), BLOCK):
            tile = a[i : i + BLOCK] @ b[j : j + BLOCK].T
            best = torch.cat([best, tile.topk(K, 1).values], 1).topk(K, 1).values
            there = columns[:, j : j + BLOCK]
            columns[:, j : j + BLOCK] = torch.cat([there, tile.topk(K, 0).values]).topk(K, 0).values
        rows.append(best)
    return torch.cat(rows), columns


def seconds(*calls: Callable[[], object]) -> np.ndarray:
    """[2] wall and processor seconds of some calls, until a GPU has finished them."""
    start = time.perf_counter(), time.process_time()
    for call in calls:
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]])


def main() -> None:
    """Print both ratios of every round, their medians and the peak memory of the process.

    On a machine with other work the processor ratio is the one to read.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(args.images, WIDTH, generator=draw)
    texts = images.repeat_interleave(CAPTIONS, 0) + 5 * torch.randn(args.images * CAPTIONS, WIDTH, generator=draw)
    images, texts = (torch.nn.functional.normalize(x, dim=1).to(args.device) for x in (images, texts))
    to_text, to_image = caption_positives([CAPTIONS] * args.images)
    ratios = []
    for _ in range(args.rounds):
        bare = seconds(lambda: top_k(images, texts))
        ours = seconds(lambda: mutual_ranks(images, texts, to_text, to_image, device=args.device))
        ratios.append(ours / bare)
        clock, processor = ratios[-1]
        print(
            f"top-k {bare[0]:.2f} s ({bare[1]:.2f} s of processor), ranks {ours[0]:.2f} s ({ours[1]:.2f} s): "
            f"ratio {clock:.2f}, processor {processor:.2f}",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    clock, processor = np.median(ratios, axis=0)
    print(f"median ratio {clock:.2f}, processor {processor:.2f}, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
