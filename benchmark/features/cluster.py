"""Extraction on many processes or machines, with Ray: each worker encodes ranges of blocks into the shared store.

The store is the only thing the workers share (a folder that all of them see, BENCH_CACHE). A shard's bytes depend on
nothing but its pictures, so it does not matter who wrote it; a range whose worker was lost is given to another, and
what is missing at the end is encoded by the process that asked.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmark.contracts import Encoder, Progress, Tap
from benchmark.errors import BenchError, MissingExtra
from benchmark.features.extract import Extractor
from benchmark.features.plan import Pass, identity
from benchmark.features.store import StoredArray

RETRIES = 3  # of a range whose worker was lost
RANGES_PER_WORKER = 4  # small enough that a slow worker holds nobody up
_loaded: dict[str, Encoder] = {}  # of this worker process: the encoder of the last recipe, by the recipe's key


@dataclass(frozen=True)
class Recipe:
    """How a worker makes the encoder, and how it runs it."""

    name: str  # for people
    key: str  # of all that decides the encoder's outputs and of its device: recipes of one key make the same encoder
    load: Callable[[], Encoder]
    device: str
    batch_size: int | None
    workers: int | None
    silent: Callable[[str, int], Progress]  # bars are drawn by the process that asked


class Cluster:
    """A Ray cluster: `address` is "local" (processes on this machine), "auto" or the head's address."""

    def __init__(self, address: str, recipe: Recipe) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise MissingExtra("--ray", "ray") from None
        self.ray, self.recipe = ray, recipe
        if not ray.is_initialized():
            try:
                quiet = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
                ray.init(**({} if address == "local" else {"address": address}), **quiet)
            except (ConnectionError, RuntimeError, ValueError) as e:
                why = str(e).splitlines()[0]
                raise BenchError(f"--ray {address}: no cluster there ({why}). Start one: ray start --head") from None

    @property
    def size(self) -> int:
        """How many ranges are encoded at once."""
        resources = self.ray.cluster_resources()
        return max(1, int(resources.get("GPU" if self.recipe.device.startswith("cuda") else "CPU", 1)))

    def fill(self, task: Pass, progress: Callable[[str, int], Progress]) -> int:
        """Encodes what `task` lacks, on the workers; the number of pictures. A worker's error is raised here."""
        todo = task.missing()
        if not todo:
            return 0
        gpu = self.recipe.device.startswith("cuda")
        remote = self.ray.remote(num_cpus=1, num_gpus=1 if gpu else 0, max_retries=RETRIES)(fill_range)
        shared = self.ray.put((self.recipe, task.images, task.view, fresh(task)))
        pending = [remote.remote(shared, part) for part in ranges(todo, self.size * RANGES_PER_WORKER)]
        bar = progress(
            f"encoding {self.recipe.name} on {self.size} workers", sum(len(task.block_range(b)) for b in todo)
        )
        done = 0
        while pending:
            ready, pending = self.ray.wait(pending, num_returns=1)
            try:
                count = self.ray.get(ready[0])
            except self.ray.exceptions.RayTaskError as e:
                raise (
                    e.cause if isinstance(e.cause, BenchError) else BenchError(f"a worker failed: {e.cause}")
                ) from None
            done += count
            bar.advance(count)
        return done


def ranges(blocks: Sequence[int], count: int) -> list[list[int]]:
    """`blocks` in at most `count` runs of nearly equal length, in order."""
    count = min(count, len(blocks))
    cuts = [round(i * len(blocks) / count) for i in range(count + 1)]
    return [list(blocks[a:b]) for a, b in pairwise(cuts)]


def fresh(task: Pass) -> dict[Tap, StoredArray]:
    """The taps of a pass with arrays that hold no open file, so that they travel."""
    return {tap: StoredArray(a.folder, a.key, a.n, a.codec, a.item_bytes) for tap, a in task.taps.items()}


def fill_range(shared: Any, blocks: list[int]) -> int:
    """Runs in a worker: encodes `blocks` of the pass; the number of pictures encoded.

    Raises BenchError when this machine's files make another encoder than the one whose features are stored.
    """
    recipe, images, view, taps = shared
    if recipe.key not in _loaded:
        encoder = recipe.load()
        _check_same(encoder, taps)
        _loaded.clear()  # the one before would go on holding its memory
        _loaded[recipe.key] = encoder
    extractor = Extractor(_loaded[recipe.key], recipe.device, recipe.batch_size, recipe.workers, recipe.silent)
    extractor.run(Pass(images, view, taps), blocks)
    return extractor.forwards


def _check_same(encoder: Encoder, taps: Mapping[Tap, StoredArray]) -> None:
    for name, value in identity(encoder.card).items():
        for array in taps.values():
            if name != "model" and value != array.key[name]:
                raise BenchError(
                    f"{encoder.card.name}: a worker on {socket.gethostname()} loads {name} {value}, asked for was "
                    f"{array.key[name]}. Give every machine the same files"
                )
