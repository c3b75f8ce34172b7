"""Cost of exact kNN over the bare product and over faiss' flat index: 1,000,000 × 256 memory-mapped, 2,000 queries.

    python perf/knn.py [--rows N] [--width D] [--queries N] [--k K] [--rounds N] [--float32] [--file] [--device cuda]

`--file` reads the index as the memory of in-context segmentation is read, in tiles from a file whose pages are
let go of: they are no part of the peak. `--float32` forbids the first look in bfloat16, as on a CPU without that unit.
faiss-cpu is compared where it is installed. Each contender runs in a process of its own, so that peak memory is its;
rounds are interleaved, and each contender's lowest times count. On a busy machine read the processor ratios.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import multiprocessing.connection
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmark.heads import coarse
from benchmark.heads.knn import topk_search
from tasks.patch_memory import RowFile

BLOCK = 1024


class Index(NamedTuple):
    """A file of unit vectors, float32."""

    path: Path
    rows: int
    width: int
    asked: int

    def mapped(self) -> np.ndarray:
        """[rows, width]"""
        return np.memmap(self.path, np.float32, "r", shape=(self.rows, self.width))

    def make(self) -> None:
        """Draws and writes them in blocks."""
        rng = np.random.default_rng(0)
        with open(self.path, "wb") as file:
            for start in range(0, self.rows, 50_000):
                block = rng.standard_normal((min(50_000, self.rows - start), self.width), dtype=np.float32)
                file.write((block / np.linalg.norm(block, axis=1, keepdims=True)).data)

    def queries(self) -> np.ndarray:
        """[asked, width] unit vectors."""
        rows = np.random.default_rng(1).standard_normal((self.asked, self.width), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def bare(index: Index, k: int, device: str) -> np.ndarray:
    """The products alone."""
    vectors, q = index.mapped(), torch.from_numpy(index.queries()).to(device)
    for start in range(0, index.rows, BLOCK):
        torch.matmul(q, torch.from_numpy(np.array(vectors[start : start + BLOCK])).to(device).T)
    if device != "cpu":
        torch.cuda.synchronize()
    return np.zeros(0)


def ours(index: Index, k: int, device: str) -> np.ndarray:
    """Exact neighbours."""
    return topk_search(index.queries(), index.mapped(), k, device=device)[1].numpy()


def ours_from_file(index: Index, k: int, device: str) -> np.ndarray:
    """Exact neighbours in the file of in-context segmentation."""
    rows = RowFile(index.path.parent, index.width)
    with open(index.path, "rb") as rows.file:
        rows.rows = index.rows
        return topk_search(index.queries(), rows, k, device=device)[1].numpy()


def in_float32(call: Contender, index: Index, k: int, device: str) -> np.ndarray:
    """`call` without bfloat16."""
    coarse.pays = lambda width: False
    return call(index, k, device)


def faiss_flat(index: Index, k: int, device: str) -> np.ndarray:
    """faiss.IndexFlatIP, adding included: it keeps the vectors in memory."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatIP(index.width)
    flat.add(index.mapped())
    return np.asarray(flat.search(index.queries(), k)[1])


Contender = Callable[[Index, int, str], np.ndarray]


def measured(
    call: Contender,
    index: Index,
    k: int,
    device: str,
    pipe: multiprocessing.connection.Connection,
) -> None:
    """Send (wall seconds, processor seconds, peak GB, neighbours)."""
    torch.zeros(1, device=device)  # a GPU's start does not count
    start, start_cpu = time.perf_counter(), time.process_time()
    found = call(index, k, device)
    took, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    pipe.send((took, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, found))


def main() -> None:
    """Print seconds, peak memory and the ratio to the bare product."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--file", action="store_true")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    search: Contender = ours_from_file if args.file else ours
    if args.float32:
        search = functools.partial(in_float32, search)
    contenders: dict[str, Contender] = {"bare product": bare, "topk_search": search}
    try:
        import faiss  # noqa: F401

        contenders["faiss flat"] = faiss_flat
    except ImportError:
        print("faiss is not installed: pip install faiss-cpu to compare")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # for the processes to come, as the command line does
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder) / "index", args.rows, args.width, args.queries)
        index.make()
        found: dict[str, np.ndarray] = {}
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
        for _ in range(args.rounds):
            for name, call in contenders.items():
                receiver, sender = spawn.Pipe(duplex=False)
                process = spawn.Process(target=measured, args=(call, index, args.k, args.device, sender))
                process.start()
                took, cpu, peak, found[name] = receiver.recv()
                process.join()
                times[name].append((took, cpu, peak))
                print(f"{name}: {took:.2f} s, processor {cpu:.2f} s, peak {peak:.2f} GB", flush=True)
        base = np.min(times["bare product"], axis=0)
        for name in contenders:
            best = np.min(times[name], axis=0)
            peak = np.max(times[name], axis=0)[2]
            print(
                f"{name}: {best[0]:.2f} s ({best[0] / base[0]:.2f} × bare), "
                f"processor {best[1]:.2f} s ({best[1] / base[1]:.2f} ×), peak {peak:.2f} GB"
            )
    if "faiss flat" in found:
        same = np.mean([len(np.intersect1d(a, b)) / args.k for a, b in zip(found["topk_search"], found["faiss flat"])])
        print(f"neighbours shared with faiss: {100 * same:.4f} %")


if __name__ == "__main__":
    main()
