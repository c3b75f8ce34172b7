"""Shuffled reading of the hub's parquet: row groups of 100 MB, as `datasets` 5 writes them, beside 100 rows each.

python perf/parquet.py [--pictures 4000] [--reads 300]

Random bytes of a photograph's size stand for the pictures, as only reading is measured. Every file is read in a process
of its own: processor milliseconds a picture, and by how much the process grows.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHUNKS = {"min_chunk_size": 256 << 10, "max_chunk_size": 1 << 20, "norm_level": 0}
LAYOUTS = {  # `datasets` 5, and what it wrote before
    "100 MB groups": {"compression": {"image.bytes": "none"}, "use_dictionary": False, "write_page_index": True,
                      "use_content_defined_chunking": CHUNKS, "row_group_size": 910},
    "100-row groups": {"row_group_size": 100},
}  # fmt: skip


def make(folder: Path, pictures: int) -> list[Path]:
    rng = np.random.default_rng(0)
    values = [
        {"bytes": rng.bytes(int(n)), "path": f"{i}.jpg"} for i, n in enumerate(rng.integers(60e3, 160e3, pictures))
    ]
    table = pa.table({"image": values})
    for name, how in LAYOUTS.items():
        pq.write_table(table, folder / f"{name}.parquet", **how)
    return [folder / f"{name}.parquet" for name in LAYOUTS]


def read(path: str, pictures: int, reads: int) -> None:
    """Print milliseconds a picture and the growth in MB."""
    from tasks.datasets.parquet import cell

    def resident() -> float:  # ru_maxrss begins with that of the parent
        return float(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024

    order = np.random.default_rng(1).permutation(pictures)[:reads]
    before, started = resident(), time.process_time()
    for row in order:
        cell(path, "image", int(row))
    spent = 1e3 * (time.process_time() - started) / reads
    print(f"{Path(path).stem:15} {spent:8.3f} ms a picture, {resident() - before:6.1f} MB")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pictures", type=int, default=4000)
    words.add_argument("--reads", type=int, default=300)
    words.add_argument("--read", help=argparse.SUPPRESS)
    args = words.parse_args()
    if args.read:
        read(args.read, args.pictures, args.reads)
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in make(Path(folder), args.pictures):
            sizes = ["--pictures", str(args.pictures), "--reads", str(args.reads)]
            subprocess.run([sys.executable, __file__, "--read", str(path), *sizes], check=True)


if __name__ == "__main__":
    main()
