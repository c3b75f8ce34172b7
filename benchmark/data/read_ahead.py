"""Samples read in threads before they are asked for: decoding lets other threads run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from benchmark.system.late import torch
from benchmark.system.processes import processors

T = TypeVar("T")
MOST = 16  # samples under way
BYTES = 64 << 20  # of them: large maps come one at a time


def read_ahead(read: Callable[[int], T], indices: Iterable[int], threads: int | None = None) -> Iterator[T]:
    """`read(index)` of each of `indices`, in order; later ones are read meanwhile, in `threads` threads (as many as
    this process has processors, four at most).

    What `read` raises is raised where its result would come. Whoever leaves early waits for what is being read, and
    nothing more is begun. How many are read ahead follows from the bytes of the last one.
    """
    left = iter(indices)
    with ThreadPoolExecutor(threads or min(4, processors())) as pool:
        waiting: deque[Future[T]] = deque(pool.submit(read, index) for index in islice(left, 1))
        try:
            while waiting:
                found = waiting.popleft().result()
                most = max(1, min(MOST, BYTES // max(1, size_of(found))))
                waiting.extend(pool.submit(read, index) for index in islice(left, max(0, most - len(waiting))))
                yield found
        finally:
            pool.shutdown(cancel_futures=True)


def size_of(value: Any) -> int:
    """Bytes of the arrays and tensors in `value`, a tuple of them or one."""
    if isinstance(value, tuple):
        return sum(map(size_of, value))
    return int(value.nbytes) if isinstance(value, (np.ndarray, torch.Tensor)) else 0
