"""Shards of stored arrays that are mapped into memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from benchmark.system.mapped import let_go, mapped

RESIDENT = 8 << 20  # bytes of shards that may count as this process's memory


class OpenShards:
    """The shards of all arrays that are mapped into memory, those used last: each holds one of the few files that a
    process may have open, and of what was read only RESIDENT stays in its memory. The rest is in the page cache."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._maps: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._resident: dict[Path, int] = {}  # bytes that may have been read since all were let go of
        self._lock = threading.Lock()  # shards are written by another thread than reads them

    def get(self, path: Path) -> np.ndarray:
        """The array of the file `path`. Raises OSError."""
        with self._lock:
            if path not in self._maps:
                self._maps[path] = mapped(path)
                if len(self._maps) > self.most:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(path)
            found = self._maps[path]
            self._resident[path] = found.nbytes
            if sum(self._resident.values()) > RESIDENT:
                for read in self._resident.keys() & self._maps.keys():
                    let_go(self._maps[read])
                self._resident = {path: found.nbytes}
            return found

    def clear(self) -> None:
        """Closes all."""
        with self._lock:
            self._maps.clear()

    def drop(self, path: Path) -> None:
        """Forgets the array of a file that is another now."""
        with self._lock:
            self._maps.pop(path, None)
