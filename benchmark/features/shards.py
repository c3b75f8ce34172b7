"""Shards of stored arrays that are mapped into memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np


class OpenShards:
    """The shards of all arrays that are mapped into memory, those used last: each holds one of the few files that a
    process may have open. What is closed is still in the page cache."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._maps: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()  # shards are written by another thread than reads them

    def get(self, path: Path) -> np.ndarray:
        """The array of the file `path`. Raises OSError."""
        with self._lock:
            if path not in self._maps:
                self._maps[path] = np.load(path, mmap_mode="r", allow_pickle=False)
                if len(self._maps) > self.most:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(path)
            return self._maps[path]

    def clear(self) -> None:
        """Closes all."""
        with self._lock:
            self._maps.clear()

    def drop(self, path: Path) -> None:
        """Forgets the array of a file that is another now."""
        with self._lock:
            self._maps.pop(path, None)
