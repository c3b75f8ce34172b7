"""Files mapped into memory, whose pages count as a process's own for as long as it does not let go of them."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np


def mapped(path: Path) -> np.memmap:
    """The array of an `.npy` file, read when and where it is looked at. Raises OSError, or ValueError for others."""
    return np.lib.format.open_memmap(path, mode="r")


def let_go(array: np.ndarray) -> None:
    """What was read of a mapped array stays in the system's cache alone: without this the memory of a process grows to
    all that it has ever read. Nothing where the array is no map, or the system (Windows) has no such word."""
    held = getattr(array, "_mmap", None)
    if held is not None and hasattr(mmap, "MADV_DONTNEED"):
        held.madvise(mmap.MADV_DONTNEED)
