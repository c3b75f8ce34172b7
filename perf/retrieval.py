"""Cost of exact retrieval ranks over the bare matrix products: 5,000 images × 25,000 captions × 768, both directions.

python perf/retrieval.py [--images N] [--rounds N]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

from benchmark.metrics.retrieval import caption_positives, ranks

CAPTIONS, WIDTH, BLOCK = 5, 768, 2048


def products(a: torch.Tensor, b: torch.Tensor) -> None:
    """All scores, block by block, looked at by nobody."""
    for i in range(0, len(a), BLOCK):
        for j in range(0, len(b), BLOCK):
            torch.matmul(a[i : i + BLOCK], b[j : j + BLOCK].T)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio, the lowest and all rounds, and the peak memory of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(args.images, WIDTH, generator=draw)
    texts = images.repeat_interleave(CAPTIONS, 0) + 5 * torch.randn(args.images * CAPTIONS, WIDTH, generator=draw)
    images, texts = (torch.nn.functional.normalize(x, dim=1) for x in (images, texts))
    to_text, to_image = caption_positives([CAPTIONS] * args.images)
    ratios = []
    for _ in range(args.rounds):
        bare = seconds(lambda: products(images, texts)) + seconds(lambda: products(texts, images))
        ours = seconds(lambda: ranks(images, texts, to_text)) + seconds(lambda: ranks(texts, images, to_image))
        ratios.append(ours / bare)
        print(f"bare {bare:.2f} s, ranks {ours:.2f} s, ratio {ours / bare:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"median ratio {sorted(ratios)[len(ratios) // 2]:.2f}, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
