"""The peak of a process during a full step at 32,768 prototypes, beside another checkout.

    python perf/recipe_memory.py --against FOLDER [--rounds N] [--projector g-224]

tipsv2-mini with that many prototypes, centred, behind its own hidden layers or those of another config; 8 pictures,
each with all losses; three steps on one thread. The high-water mark of the process, libraries included. Each side in a
process of its own, in turn; the most of each counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS = """
import resource, sys, tempfile
from pathlib import Path
import torch
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.loader import Positions, steps_from
from adapters.tipsv2.recipe.parallel import joined
from adapters.tipsv2.recipe.trainer import Trainer
from tasks.scenes.render import render

torch.set_num_threads(1)
changes = {"init_from": "", "head.prototypes": 32768, "head.balance": "center", "loss.ssl_every": 1}
changes |= {"data.samples": 64, "train.batch_size": 8, "train.device": "cpu", "train.dtype": "float32"}
cache, projector = sys.argv[1:]
head = read_config(projector, {}).head
changes |= {"head.hidden": head.hidden, "head.bottleneck": head.bottleneck, "head.layers": head.layers}
config = read_config("tipsv2-mini", {**changes, "data.cache": cache})
with tempfile.TemporaryDirectory() as out, joined(config.train) as place:
    try:
        trainer = Trainer(config, Path(out), place, True, render)
    except TypeError:  # of before the renderer was handed in
        trainer = Trainer(config, Path(out), place, True)
    batches = steps_from(0, Positions(trainer.source, trainer.config), trainer.tokenizer)
    for _ in range(3):
        trainer._one_step(next(batches)[0].to(place.device))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(folder: str, cache: str, projector: str) -> float:
    """MiB."""
    environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    words = [sys.executable, "-c", STEPS, cache, projector]
    done = subprocess.run(words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print both peaks and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the folder of another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--projector", default="tipsv2-mini", help="the config whose hidden layers it has")
    words = parser.parse_args()
    sides = (str(Path(__file__).resolve().parents[1]), words.against)
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            [peak(folder, f"{scratch}/{i}", words.projector) for i, folder in enumerate(sides)]
            for _ in range(words.rounds)
        ]
    ours, theirs = (max(column) for column in zip(*found))
    print(f"{ours:,.0f} MiB and {theirs:,.0f} MiB: {ours / theirs:.2f} ×")


if __name__ == "__main__":
    main()
