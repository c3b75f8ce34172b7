"""Machines that leave a run: a Ray cluster of a head and two nodes on this machine, of which one after another is taken
away (its raylet and its workers with it) while pictures are encoded and while heads are trained, and another comes.
What the run leaves behind is that of one process.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from children import differing, kept
from workers import SHORT, STEPS

from benchmark.engine.cluster import QUIET
from benchmark.engine.run import run

MODELS = ("tipsv2-mini", "random-vit")
UNITS = ("instance_retrieval", "depth", "linear_segmentation")  # one whose features are kept, two heads on live crops
MOMENTS = (  # what is done, a file that tells it, and the seconds after it until a node leaves
    ("pictures are encoded", "features/*/*/shard-*", 0.0),
    ("a head is trained", "heads/*/*", 1.0),
    ("a head is trained", "heads/*/*", 3.0),
)


@dataclass
class Left:
    """What came of it."""

    compared: int = 0
    moments: list[str] = field(default_factory=list)  # when a node left
    pieces: list[str] = field(default_factory=list)  # whose worker went with it


class _Lost(logging.Handler):
    """Keeps the pieces of which the run says that their worker is gone."""

    def __init__(self, pieces: list[str]) -> None:
        super().__init__()
        self.pieces = pieces

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if "its worker is gone" in said:
            self.pieces.append(said.split(":")[0])


def nodes_leave(place: Path, steps: int, pictures: int, tell: Callable[[str], object]) -> Left:
    """Raises AssertionError where something else is left than one process leaves."""
    os.environ.update(OMP_NUM_THREADS="1", RAY_worker_niceness="0")
    began = time.monotonic()
    calm = _run(place / "one", steps, pictures, None)
    tell(f"one process: {time.monotonic() - began:.1f} s, {len(calm)} files")
    utils: Any = importlib.import_module("ray.cluster_utils")
    words = {"object_store_memory": 80 * 2**20}
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **words})
    found = Left(len(calm))
    handler, log = _Lost(found.pieces), logging.getLogger("densebench.workers")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        nodes = [cluster.add_node(num_cpus=1, **words) for _ in range(2)]
        cluster.wait_for_nodes()
        ray: Any = importlib.import_module("ray")
        ray.init(address=cluster.address, **QUIET)
        tell("a head and two nodes are there")
        cache = place / "many" / "work" / "cache"
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:  # a node can be added in the main thread alone
            going = pool.submit(_run, place / "many", steps, pictures, cluster.address)
            for what, pattern, seconds in MOMENTS:
                while not going.done() and not any(cache.glob(pattern)):
                    time.sleep(0.002)
                if wait([going], seconds).done:
                    break
                cluster.remove_node(nodes.pop(0), allow_graceful=False)
                found.moments.append(what)
                tell(f"a node left while {what}")
                nodes.append(cluster.add_node(num_cpus=1, **words))
            many = going.result()
        tell(f"nodes that leave: {time.monotonic() - began:.1f} s, pieces that lost their worker: {found.pieces}")
        assert not (other := differing(calm, many)), f"{other} differ from one process"
        ray.shutdown()
    finally:
        log.removeHandler(handler)
        cluster.shutdown()
    return found


def _run(folder: Path, steps: int, pictures: int, address: str | None) -> dict[str, Any]:
    """What a run leaves below `folder`."""
    said = {**{k: v for k, v in SHORT.items() if not k.startswith("classification")}}
    said |= {name: str(steps) for name in STEPS if not name.startswith("classification")}
    report = run(
        list(MODELS), [f"{task}/scenes" for task in UNITS], protocol="paper", overrides=said, limit=pictures,
        ray=address, check=False, device="cpu", command="a run", results=folder / "work" / "rows",
        cache=folder / "work" / "cache",
    )  # fmt: skip
    assert not report.failures, report.failures
    assert len(report.rows) == len(MODELS) * len(UNITS)
    left = kept(folder / "work")
    shutil.rmtree(folder)
    return left
