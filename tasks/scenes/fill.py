"""Renders a range of a split into a folder: `python -m tasks.scenes.fill FOLDER SPLIT SIZE START STOP`.

Pictures go to their place in shared .npy files by ordinary writes (a write into a map of a full disk would kill the
process); normals, which compress well, and captions go to files of their own range.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from benchmark.errors import BenchError
from benchmark.system.files import disk_errors
from benchmark.system.processes import keep_memory
from tasks.scenes.render import Scene, render
from tasks.scenes.splits import SPLITS

SEED = 0  # of every stored split
ARRAYS = {"images": (np.uint8, (3,)), "semantic": (np.uint8, ()), "depth": (np.float32, ())}
TICK = 16  # scenes between two signs of life


def array_names(split: str) -> list[str]:
    """The .npy files of a split."""
    return list(ARRAYS) if SPLITS[split].targets else ["images"]


def start_arrays(folder: Path, split: str, size: int, n: int) -> None:
    """Write the headers of the split's .npy files and make room for `n` pictures."""
    for name in array_names(split):
        dtype, tail = ARRAYS[name]
        with open(folder / f"{name}.npy", "wb") as f:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (n, size, size, *tail)}
            np.lib.format.write_array_header_1_0(f, header)
            f.truncate(f.tell() + n * _stride(name, size))


def _stride(name: str, size: int) -> int:
    dtype, tail = ARRAYS[name]
    return size * size * int(np.prod(tail, dtype=int)) * np.dtype(dtype).itemsize


def fill(folder: Path, split: str, size: int, start: int, stop: int) -> None:
    """Render scenes start … stop-1. Ends early when the process that started it is gone."""
    parent = os.getppid()
    captions, blobs = [], []
    files: dict[str, IO[bytes]] = {name: open(folder / f"{name}.npy", "r+b") for name in array_names(split)}  # noqa: SIM115
    try:
        heads = {name: _header_bytes(f) for name, f in files.items()}
        for index in range(start, stop):
            scene = render(SEED, index, size, split=split)
            _write(files, heads, scene, index, size)
            if SPLITS[split].targets:
                captions.append([scene.alt, scene.short, scene.long])
                blobs.append(zlib.compress(np.moveaxis(scene.normals, -1, 0).tobytes(), 1))
            if (index - start) % TICK == TICK - 1:
                with open(folder / f"tick-{start}", "ab") as ticks:
                    ticks.write(b".")
                if os.getppid() != parent:
                    return
    finally:
        for f in files.values():
            f.close()
    if SPLITS[split].targets:
        (folder / f"captions-{start:06d}.json").write_text(json.dumps(captions))
        np.save(folder / f"lengths-{start:06d}.npy", np.array([len(b) for b in blobs], np.int64))
        (folder / f"normals-{start:06d}.bin").write_bytes(b"".join(blobs))


def _header_bytes(f: IO[bytes]) -> int:
    version = np.lib.format.read_magic(f)
    if version != (1, 0):
        raise BenchError(f"{f.name}: not a file this version writes")
    np.lib.format.read_array_header_1_0(f)
    return f.tell()


def _write(files: dict[str, IO[bytes]], heads: dict[str, int], scene: Scene, index: int, size: int) -> None:
    arrays = {"images": scene.rgb, "semantic": scene.semantic, "depth": scene.depth}
    for name, f in files.items():
        f.seek(heads[name] + index * _stride(name, size))
        f.write(arrays[name].tobytes())


def main() -> int:
    """Entry point of a rendering process; prints one line when it fails."""
    folder, split, size, start, stop = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    with suppress(OSError, AttributeError):  # Windows has no such word
        os.nice(5)  # an encoder may be at work on what is there already
    keep_memory()
    try:
        with disk_errors(folder):
            fill(folder, split, size, start, stop)
    except (BenchError, OSError) as e:
        print(e if isinstance(e, BenchError) else f"{folder}: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
