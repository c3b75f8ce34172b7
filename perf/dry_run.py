"""What --dry-run says of the memory of a step, beside what a process was seen to take.

    python perf/dry_run.py [--width 192 384] [--batch 16] [--processes N [--shards M] [--accumulate K]]

Each size is trained for two steps in a process of its own on one CPU thread: the high-water mark of its resident size
over what it was before the model was made, freed memory given back at once. A
distillation is the third row: its frozen teacher counts. With `--processes` only pre-training is tried, under FSDP in
that many processes on gloo, M of which hold a copy of the weights together; the most that one of them takes counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import subprocess
import sys

import torch
import torch.distributed as dist

from adapters.tipsv2.recipe.config import ModelConfig, RecipeConfig, TeacherConfig
from adapters.tipsv2.recipe.config_file import from_table
from adapters.tipsv2.recipe.cost import estimate
from adapters.tipsv2.recipe.model import Pretrainer
from adapters.tipsv2.recipe.optim import make_optimizer
from adapters.tipsv2.recipe.parallel import ALONE, Place, joined, wrap
from adapters.tipsv2.recipe.rehearsal import content_free, rehearse
from adapters.tipsv2.recipe.step import backward
from adapters.tipsv2.recipe.teacher import Teacher
from benchmark.system.processes import PeakMemory


def sized(width: int, batch: int) -> RecipeConfig:
    """Six layers of `width` channels, in float32."""
    model = {"width": width, "depth": 6, "heads": width // 32, "text_depth": 4, "text_heads": width // 32}
    model |= {"image_size": 112, "vocab_size": 8000}
    head = {"prototypes": 4096, "hidden": 512, "bottleneck": 128}
    table = {
        "model": model, "head": head, "views": {"global_size": 112, "local_size": 56, "local_crops": 4},
        "train": {"steps": 10, "batch_size": batch, "device": "cpu", "dtype": "float32"}, "optim": {"name": "adamw"},
    }  # fmt: skip
    return from_table(table, "size")


def taken(config: RecipeConfig, teacher: ModelConfig | None, place: Place = ALONE) -> float:
    """MiB that two steps take in this process."""
    torch.set_num_threads(1)
    small = from_train(sized(64, 2), config)
    _steps(small, Pretrainer(small), [], place)  # libraries are loaded
    before = PeakMemory()
    begun = before.mb()
    frozen = [] if teacher is None else [Pretrainer(_with(config, teacher))]
    _steps(config, Pretrainer(config), frozen, place)
    return before.mb() - begun


def from_train(config: RecipeConfig, other: RecipeConfig) -> RecipeConfig:
    """`config` run as the other one is."""
    return dataclasses.replace(config, train=other.train)


def shared(config: RecipeConfig) -> float:
    """The same under FSDP, the most that one of the processes takes."""
    with joined(config.train) as place:
        most = torch.tensor(taken(config, None, place))
        dist.all_reduce(most, dist.ReduceOp.MAX)
    return float(most)


def _with(config: RecipeConfig, model: ModelConfig) -> RecipeConfig:
    return dataclasses.replace(config, model=model, teacher=TeacherConfig(mask=True))


def _steps(config: RecipeConfig, student: Pretrainer, frozen: list[Pretrainer], place: Place) -> None:
    student.initialise(0)
    targets = Teacher(config, student, frozen.pop() if frozen else None)
    model = wrap(student, config.train, place)
    optimizer = make_optimizer(student.named_parameters(), config.optim)
    batch = content_free(config, config.train.batch_size // place.world)
    for tensor in (batch.images, batch.local, *batch.texts, batch.mask, batch.captioned):
        tensor.fill_(1)
    batch.ssl_rows.copy_(torch.arange(len(batch.ssl_rows)))
    seen = batch.to(torch.device("cpu"))
    for step in range(2):
        backward(model, targets, seen, config, step, torch.autocast("cpu", enabled=False))
        optimizer.step()
        targets.update(student, step)
        optimizer.zero_grad(set_to_none=True)


def _fsdp(config: RecipeConfig, shards: int, parts: int) -> RecipeConfig:
    train = dataclasses.replace(config.train, strategy="fsdp", shards=shards, accumulate=parts)
    return dataclasses.replace(config, train=train)


def _together(args: argparse.Namespace, width: int) -> float:
    """What the processes of a group tell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    batch = args.batch * args.processes
    words = [sys.executable, __file__, "--one", json.dumps([width, batch, False, args.shards, args.accumulate])]
    world = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "WORLD_SIZE": str(args.processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    group = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True,
                         env={**world, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(args.processes)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in group]
    assert not any(process.returncode for process in group), "a process ended; it says why above"
    return float(said[0].split()[-1])


def main() -> None:
    """Print MiB said and MiB taken for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, nargs="+", default=[192, 384])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--shards", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches of a step, of the batch together")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        width, batch, distils, sharded, parts = json.loads(args.one)
        config = sized(width, batch)
        if sharded is None:
            print(taken(config, sized(2 * width, batch).model if distils else None))
        else:
            print(shared(_fsdp(config, sharded, parts)))
        return
    if args.processes > 1:
        for width in args.width:
            config = _fsdp(sized(width, args.batch * args.processes), args.shards, args.accumulate)
            cost = estimate(config, args.processes)
            said, seen = 1024 * (cost.weights_gib + cost.activations_gib), _together(args, width)
            print(f"width {width:4d}, {args.processes} processes: said {said:,.0f} MiB, the most taken {seen:,.0f} MiB:"
                  f" {said / seen:.2f} ×", flush=True)  # fmt: skip
        return
    for width, distils in [*((w, False) for w in args.width), (args.width[0], True)]:
        config = sized(width, args.batch)
        said = rehearse(config, args.batch, sized(2 * width, args.batch).model if distils else None).peak / 2**20
        words = [sys.executable, __file__, "--one", json.dumps([width, args.batch, distils, None, 1])]
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        seen = float(done.stdout)
        what = "distilled from twice the width" if distils else "pre-training"
        print(f"width {width:4d}, {what}: said {said:,.0f} MiB, taken {seen:,.0f} MiB: {said / seen:.2f} ×", flush=True)


if __name__ == "__main__":
    main()
