"""Shards as they fill while pictures are encoded, and the thread that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from benchmark.contracts import Tap
from benchmark.errors import EncoderError
from benchmark.features.store import StoredArray


class Filling:
    """Shards as their items come in, each in one array made at its first item; a full one goes to the writer.

    Sub-batches of different shapes may arrive out of order.
    """

    def __init__(
        self, name: str, wanted: Mapping[Tap, StoredArray], lacking: Mapping[Tap, set[int]], writer: Writer
    ) -> None:
        self.name, self.wanted, self.lacking, self.writer = name, wanted, lacking, writer
        self.begun: dict[tuple[Tap, int], tuple[np.ndarray, int]] = {}  # its array, and the items it still waits for

    def add(self, tap: Tap, indices: list[int], items: np.ndarray) -> None:
        """Takes the items [B, *item] of pictures `indices`, which ascend."""
        array = self.wanted[tap]
        places = np.asarray(indices)
        for shard in sorted(set((places // array.size).tolist()) & self.lacking[tap]):
            rows = array.shard_range(shard)
            first, last = np.searchsorted(places, [rows.start, rows.stop])
            into, waiting = self.begun.pop((tap, shard), (None, len(rows)))
            if into is None:
                into = np.empty((len(rows), *items.shape[1:]), np.float32)
            if into.shape[1:] != items.shape[1:]:
                raise EncoderError(
                    f"{self.name}: {tap.name} is {list(items.shape[1:])} for one batch and {list(into.shape[1:])} for "
                    "another. Give every picture the same shape"
                )
            into[places[first:last] - rows.start] = items[first:last]
            waiting -= int(last - first)
            if waiting:
                self.begun[tap, shard] = (into, waiting)
            else:
                self.writer.put(array, shard, into)


class Writer:
    """Writes shards beside the encoder, one at a time; an error surfaces at the next call."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None

    def put(self, array: StoredArray, shard: int, items: np.ndarray) -> None:
        self._wait()
        self.pending = self.pool.submit(array.write, shard, items)

    def close(self) -> None:
        self.pool.shutdown(wait=True)
        self._wait()

    def _wait(self) -> None:
        if self.pending is not None:
            self.pending.result()
        self.pending = None
