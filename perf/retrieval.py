"""Cost of exact retrieval ranks over the bare matrix products: 5,000 images × 25,000 captions × 768, both directions.

python perf/retrieval.py [--images N] [--rounds N] [--device cuda]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmark.metrics.retrieval import caption_positives, ranks

CAPTIONS, WIDTH, BLOCK = 5, 768, 2048


def products(a: torch.Tensor, b: torch.Tensor) -> None:
    """All scores, block by block, looked at by nobody."""
    for i in range(0, len(a), BLOCK):
        for j in range(0, len(b), BLOCK):
            torch.matmul(a[i : i + BLOCK], b[j : j + BLOCK].T)


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(args.images, WIDTH, generator=draw)
    texts = images.repeat_interleave(CAPTIONS, 0) + 5 * torch.randn(args.images * CAPTIONS, WIDTH, generator=draw)
    images, texts = (torch.nn.functional.normalize(x, dim=1).to(args.device) for x in (images, texts))
    to_text, to_image = caption_positives([CAPTIONS] * args.images)
    ratios = []
    for _ in range(args.rounds):
        bare = seconds(lambda: products(images, texts), lambda: products(texts, images))
        ours = seconds(
            lambda: ranks(images, texts, to_text, device=args.device),
            lambda: ranks(texts, images, to_image, device=args.device),
        )
        ratios.append(ours / bare)
        clock, processor = ratios[-1]
        print(
            f"bare {bare[0]:.2f} s ({bare[1]:.2f} s of processor), ranks {ours[0]:.2f} s ({ours[1]:.2f} s): "
            f"ratio {clock:.2f}, processor {processor:.2f}",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    clock, processor = np.median(ratios, axis=0)
    print(f"median ratio {clock:.2f}, processor {processor:.2f}, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
