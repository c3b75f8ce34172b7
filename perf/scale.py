"""What docs/scale.md says of many workers: a checkpoint a hundred times on 64, what a piece of work costs, the store.

python perf/scale.py [--rate 1500]     # images per second of tipsv2-b at 448 px that the schedule is made with
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmark.engine.alike import versions
from benchmark.engine.cluster import Cluster, start_ray
from benchmark.engine.options import RunOptions
from benchmark.engine.worker import SHARE, Brief
from benchmark.features.store import FeatureStore, close_shards
from benchmark.forecast import forecast as plan
from benchmark.forecast.decoding import decoding
from benchmark.forecast.lines import Forecast
from benchmark.forecast.schedule import schedule

LOAD_S = 10.0  # of a model on a GPU, taken
GPU_BYTES = 80e9
CALLS = 300


def paper(rate: float) -> Forecast:
    """The plan of tipsv2-b on the paper suite where a picture of 448 px takes 1 / `rate` seconds."""
    plan.CALIBRATION_S = 4.0
    (found,) = plan.forecast(["tipsv2-b"], [], "paper", RunOptions(data=Path("/nowhere")))
    factor = rate / found.images_per_s[448, 448]
    rates = {size: own * factor for size, own in found.images_per_s.items()}
    return replace(found, images_per_s=rates, rate=found.rate * factor, load_s=LOAD_S, room=SHARE * GPU_BYTES)


def overhead() -> float:
    """Seconds from asking a worker for a piece that is nothing to having its answer."""
    ray = start_ray(num_cpus=1, object_store_memory=80 * 2**20)
    cluster = Cluster("local", 1, "cpu")
    cluster.give(Brief((), (), {}, Path.cwd(), tuple(sys.path), (), versions(), {}))
    worker = cluster.hire()
    cluster.wait([cluster.call(worker, "hello")], 120)
    began = time.perf_counter()
    for _ in range(CALLS):
        cluster.wait([cluster.call(worker, "hello")], 120)
    spent = time.perf_counter() - began
    ray.shutdown()
    return spent / CALLS


def store() -> tuple[float, float]:
    """Megabytes of stored patches a second of processor time: written (with their checksums), and read as float32."""
    items = torch.randn(128, 32, 32, 768).numpy().astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        array = FeatureStore(Path(folder)).array({"model": "none"}, 4 * len(items), item_bytes=items[0].nbytes)
        began = time.process_time()
        for shard in range(array.num_shards):
            array.write(shard, items[: len(array.shard_range(shard))])
        wrote = time.process_time() - began
        size = sum(file.stat().st_size for file in array.folder.glob("shard-*")) / 2**20
        close_shards()
        began = time.process_time()
        for shard in range(array.num_shards):
            rows = array.shard_range(shard)
            array[rows.start : rows.stop]
        return size / wrote, size / (time.process_time() - began)


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1500.0)
    one = paper(parser.parse_args().rate)
    read = decoding([one] * 4)
    live = 4 * (one.forwards - read.encoded // 4)
    print(f"four models: {read.decoded:,} pictures decoded, not {read.encoded:,}, and {live:,} crops and windows")
    for models, workers in ((1, 8), (8, 8), (64, 64), (70, 64), (100, 64), (200, 64)):
        found = schedule([one] * models, workers)
        print(
            f"{models} checkpoints on {workers}: {found.makespan / 3600:.2f} h, {found.makespan / found.bound:.3f} of "
            f"the least (longest piece {found.longest / 3600:.2f} h, evenly {found.total / workers / 3600:.2f} h), "
            f"idle {100 * found.idle:.1f} %, {found.jobs:,} pieces, {found.loads} loads"
        )
    print(f"a piece of work costs {1000 * overhead():.1f} ms beside itself")
    wrote, read = store()
    print(f"store: {wrote:.0f} MB/s written, {read:.0f} MB/s read on one core, in float16")


if __name__ == "__main__":
    main()
