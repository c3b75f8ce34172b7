"""Which rate an optimiser of the recipe trains with best: loss curves of a ViT from scratch, a run for each rate.

    python perf/recipe_rates.py OUT [--width 384 --depth 12] [--rates 3e-4 1e-3 3e-3 1e-2] [--steps 100 --every 20]
                                    [--warm-up 10] [--optimizer adafactor]

All losses on 32 scenes of 96 px a step, some steps of warm-up, then a constant rate; over the last `--every` steps it
falls to zero. Same seed, same pictures in the same order. The runs take turns, `--every` steps each, so that one that
is cut short (SIGTERM writes a checkpoint) has curves of equal length; the same command goes on from there.
OUT/curves.csv has every step; printed are means of the contrastive loss over the steps of each turn.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from pathlib import Path

from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.guards import DivergenceError
from adapters.tipsv2.recipe.stop import Stopped
from adapters.tipsv2.recipe.trainer import train
from tasks.scenes.render import render

BATCH, SCENES = 32, 3200
LOSSES = ("contrastive", "dino", "patch")


def config_of(rate: float, until: int, words: argparse.Namespace) -> RecipeConfig:
    """The run at `rate` up to step `until`; tipsv2-mini-64's but for the sizes and the optimiser."""
    ends, heads = until == words.steps, words.width // 64
    return read_config("tipsv2-mini-64", {
        "model.width": words.width, "model.depth": words.depth, "model.heads": heads, "model.text_heads": heads,
        "model.text_depth": words.depth // 3, "model.patch_size": 16, "model.image_size": 96, "model.init_std": 0.02,
        "model.layerscale": 1.0, "views.global_size": 96, "views.local_size": 48, "loss.ssl_ramp": 0.0,
        "data.samples": SCENES, "data.cache": str(words.out / "scenes"),
        "optim.name": words.optimizer, "optim.lr": rate, "optim.weight_decay": 0.01, "optim.schedule": "trapezoid",
        "optim.warmup": words.warm_up / until, "optim.decay": words.every / until if ends else 0.0,
        "optim.final_lr": 0.0,
        "train.steps": until, "train.batch_size": BATCH, "train.threads": words.threads, "train.device": "cpu",
        "train.dtype": "float32", "train.log_every": 1, "train.checkpoint_every": 10, "train.keep": 1,
        "train.validate_every": 0, "guard.patience": words.steps + 1,
    })  # fmt: skip


def turn(rate: float, until: int, words: argparse.Namespace) -> None:
    """Trains the run at `rate` up to step `until`; one that has diverged stays where it is."""
    folder = words.out / f"{rate:g}"
    ended = folder / "diverged.txt"
    if ended.exists() or len(readings(folder)) >= until:
        return
    try:
        train(config_of(rate, until, words), folder, quiet=True, render=render)
    except DivergenceError as error:
        ended.write_text(str(error))
    except Stopped as error:
        raise SystemExit(str(error)) from None


def readings(folder: Path) -> list[dict[str, float]]:
    """One for each step."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_curves(words: argparse.Namespace) -> None:
    """OUT/curves.csv, and the table."""
    curves = {rate: readings(words.out / f"{rate:g}") for rate in words.rates}
    with open(words.out / "curves.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["rate", "step", *LOSSES])
        for rate, found in curves.items():
            rows.writerows([rate, row["step"], *(f"{row[loss]:.4f}" for loss in LOSSES)] for row in found)
    turns = range(words.every, words.steps + 1, words.every)
    print(f"chance {math.log(BATCH):.2f}; contrastive loss by steps  " + "  ".join(f"–{end:4d}" for end in turns))
    for rate, found in curves.items():
        losses = [row["contrastive"] for row in found]
        parts = [losses[end - words.every : end] for end in turns]
        print(f"{rate:8g}  " + "  ".join(f"{statistics.mean(part):5.3f}" for part in parts if part), flush=True)


def main() -> None:
    """Train all runs, turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=12, help="of the vision tower; the text tower has a third")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3, 1e-2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=10, help="steps until the rate is whole")
    parser.add_argument("--optimizer", default="adafactor")
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    if words.warm_up > words.every:
        parser.error(f"--warm-up {words.warm_up} must lie in the first turn, --every {words.every}")
    for until in range(words.every, words.steps + 1, words.every):
        for rate in words.rates:
            turn(rate, until, words)
        write_curves(words)


if __name__ == "__main__":
    main()
