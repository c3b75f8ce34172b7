"""Samples read in threads come in their order, with their errors in their place, and not more than fit are held."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from benchmark.data.read_ahead import BYTES, MOST, read_ahead
from benchmark.errors import DataError


def test_results_come_in_the_order_asked_for_whoever_is_first() -> None:
    def slow_first(index: int) -> int:
        time.sleep(0.02 if index % 4 == 0 else 0)
        return index * index

    asked = [5, 0, 3, 8, 1, 2, 4, 4]
    assert list(read_ahead(slow_first, asked, threads=4)) == [i * i for i in asked]
    assert list(read_ahead(slow_first, [])) == []


def test_an_error_comes_where_its_sample_would() -> None:
    def read(index: int) -> int:
        if index == 2:
            raise DataError("2.png: cannot be read")
        return index

    found = read_ahead(read, range(9), threads=4)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(DataError, match="2.png"):
        next(found)


@pytest.mark.parametrize(("share", "held"), [(1, 2), (4, 5), (10**6, MOST + 1)])
def test_large_samples_are_read_one_at_a_time(share: int, held: int) -> None:
    """`share` fit into the bytes; one more is the reader's own."""
    begun, yielded, most = 0, 0, 0
    lock = threading.Lock()
    content = np.broadcast_to(np.uint8(0), BYTES // share)

    def read(index: int) -> tuple[int, np.ndarray]:
        nonlocal begun
        with lock:
            begun += 1
        return index, content

    for _ in read_ahead(read, range(60), threads=4):
        yielded += 1
        time.sleep(0.002)
        most = max(most, begun - yielded + 1)
    assert yielded == begun == 60 and min(held, 3) <= most <= held


def test_who_leaves_early_lets_nothing_more_be_begun() -> None:
    begun: list[int] = []
    found = read_ahead(lambda index: begun.append(index), range(1000), threads=2)
    next(found)
    found.close()
    seen = len(begun)
    time.sleep(0.05)
    assert len(begun) == seen < 1000
    assert not any("ThreadPoolExecutor" in thread.name and thread.is_alive() for thread in threading.enumerate())
