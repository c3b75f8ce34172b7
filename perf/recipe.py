"""What a training step of tipsv2-mini-64 costs: each loss over the contrastive one, and the data path's share.

python perf/recipe.py [--steps N] [--config tipsv2-mini-64] [--dtype bfloat16]
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

ROWS: dict[str, dict[str, Any]] = {
    "contrastive": {"dino": 0.0, "patch_loss": "none"},
    "+ DINO": {"patch_loss": "none"},
    "+ iBOT": {"patch_loss": "ibot"},
    "+ iBOT++": {"patch_loss": "ibot++"},
}


def median_seconds(call: Callable[[], object], times: int) -> float:
    """Median processor time of `call`: what it costs, whatever else the machine does."""
    spent = []
    for _ in range(times):
        begun = time.process_time()
        call()
        spent.append(time.process_time() - begun)
    return statistics.median(spent)


def data_seconds(config: RecipeConfig, trainer: Trainer, times: int) -> tuple[float, list[Batch]]:
    """(seconds for one batch from rendered shards, some batches)."""
    batches = steps_from(0, Positions(trainer.source, trainer.config), trainer.tokenizer)
    kept = [next(batches)[0] for _ in range(3)]  # the first pass renders
    return median_seconds(lambda: next(batches), times), kept


def measure(config: RecipeConfig, times: int, folder: Path) -> tuple[float, float]:
    """(seconds of computation, seconds of data) for one step."""
    with joined(config.train) as place:
        trainer = Trainer(config, folder, place, quiet=True)
        data, batches = data_seconds(config, trainer, times)
        step = iter(range(10**9))
        return median_seconds(lambda: trainer._one_step(batches[next(step) % 3]), times + 2), data


def main() -> None:
    """Print images/s on one core, the ratio of each row to the contrastive one, and the data path's share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--config", default="tipsv2-mini-64")
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(1)
    changes = {"data.samples": 1000, "train.steps": 1000, "train.threads": 1, "train.dtype": args.dtype}
    config = read_config(args.config, changes)
    base = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        for name, losses in ROWS.items():
            variant = dataclasses.replace(config, loss=dataclasses.replace(config.loss, **losses))
            compute, data = measure(variant, args.steps, Path(scratch) / name.strip("+ "))
            base = base or compute
            speed = config.train.batch_size / (compute + data)
            print(
                f"{name:12s} {speed:6.1f} images/s per core   {compute / base:5.2f} × contrastive"
                f"   data {100 * data / (compute + data):4.1f} % of a step",
                flush=True,
            )


if __name__ == "__main__":
    main()
