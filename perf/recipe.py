"""What a training step of tipsv2-mini-64 costs: each loss over the contrastive one, and the data path's share.

    python perf/recipe.py [--steps N] [--config tipsv2-mini-64] [--dtype bfloat16] [--device cuda] [--batch N]

On a CPU the seconds are processor time of one core; on a GPU they are the clock's, after it has finished. The data path
is that of one process; training has data.workers of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.loader import Positions, steps_from
from adapters.tipsv2.recipe.parallel import joined
from adapters.tipsv2.recipe.trainer import Trainer
from tasks.scenes.render import render

ROWS: dict[str, dict[str, Any]] = {
    "contrastive": {"dino": 0.0, "patch_loss": "none"},
    "+ DINO": {"patch_loss": "none"},
    "+ iBOT": {"patch_loss": "ibot"},
    "+ iBOT++": {"patch_loss": "ibot++"},
}


def median_seconds(call: Callable[[], object], times: int, on_gpu: bool = False) -> float:
    """Median processor time of `call`, which other work disturbs little; on a GPU the clock until it has finished."""
    clock, wait = (time.perf_counter, torch.cuda.synchronize) if on_gpu else (time.process_time, lambda: None)
    spent = []
    for _ in range(times):
        wait()
        begun = clock()
        call()
        wait()
        spent.append(clock() - begun)
    return statistics.median(spent)


def data_seconds(config: RecipeConfig, trainer: Trainer, times: int) -> tuple[float, list[Batch]]:
    """(seconds for one batch from rendered shards, some batches)."""
    batches = steps_from(0, Positions(trainer.source, trainer.config), trainer.tokenizer)
    kept = [next(batches)[0].to(trainer.place.device) for _ in range(3)]  # the first pass renders
    return median_seconds(lambda: next(batches), times), kept


def measure(config: RecipeConfig, times: int, folder: Path) -> tuple[float, float]:
    """(seconds of computation, seconds of data) for one step."""
    with joined(config.train) as place:
        trainer = Trainer(config, folder, place, quiet=True, render=render)
        data, batches = data_seconds(config, trainer, times)
        step = iter(range(10**9))
        on_gpu = place.device.type == "cuda"
        return median_seconds(lambda: trainer._one_step(batches[next(step) % 3]), times + 2, on_gpu), data


def main() -> None:
    """Print images/s on one core or GPU, the ratio of each row to the contrastive one, and what the data path takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--config", default="tipsv2-mini-64")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch = {"train.batch_size": args.batch} if args.batch else {}
    changes = {"data.samples": 1000, "train.steps": 1000, "train.threads": 1, "train.dtype": args.dtype}
    config = read_config(args.config, changes | {"train.device": args.device} | batch)
    base = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for name, losses in ROWS.items():
            variant = dataclasses.replace(config, loss=dataclasses.replace(config.loss, **losses))
            compute, data = measure(variant, args.steps, Path(scratch) / name.strip("+ "))
            base = base or compute
            on_gpu = args.device != "cpu"
            speed = config.train.batch_size / (compute if on_gpu else compute + data)
            where = "GPU, without the data path" if on_gpu else "core"
            cost = (
                f"one process makes a batch in {1e3 * data:.0f} ms"
                if on_gpu
                else f"data {100 * data / (compute + data):4.1f} % of a step"
            )
            print(
                f"{name:12s} {speed:6.1f} images/s per {where}   {compute / base:5.2f} × contrastive   {cost}",
                flush=True,
            )


if __name__ == "__main__":
    main()
