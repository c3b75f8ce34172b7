"""Pictures a second that one core makes ready from tar shards, beside another checkout.

    python perf/recipe_data.py --against FOLDER [--samples N] [--rounds N]

From shard to the batch that a worker hands over: JPEGs of 640 × 480 with noise, views of g-224 (224 px and six of 98).
Each side in a process of its own, in turn; processor time of one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SERVE = """
import sys, time
import torch
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.loader import Collate, Positions
from adapters.tipsv2.recipe.samples import open_source
from adapters.tipsv2.recipe.text import train_tokenizer

torch.set_num_threads(1)
folder, cache = sys.argv[1:]
shard = {"data.source": "tar", "data.path": f"{folder}/a.tar", "data.cache": cache}
config = read_config("g-224", shard | {"train.batch_size": 2})  # no batch is larger than the shard
positions = Positions(open_source(config.data), config)
collate = Collate(train_tokenizer(["a b c d e"] * 9, 60, 64))
for line in sys.stdin:
    began = time.process_time()
    batch, bad, *_ = collate([positions[i] for i in range(int(line))])
    assert batch is not None, bad
    print(time.process_time() - began, flush=True)
"""


def write_shard(path: Path, count: int) -> None:
    """JPEGs with as much detail as photographs have: about 90 kB each."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as out:
        for i in range(count):
            blobs = Image.fromarray(rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)).resize((640, 480))
            noisy = np.asarray(blobs) + rng.normal(0, 6, (480, 640, 3))
            held = io.BytesIO()
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(held, "JPEG", quality=90)
            captions = json.dumps({"alt": "a b", "paligemma": "c d e", "gemini": "e"}).encode()
            for name, content in ((f"{i}.jpg", held.getvalue()), (f"{i}.json", captions)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))


def main() -> None:
    """Print both speeds and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the folder of another checkout")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=11)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_shard(Path(scratch) / "a.tar", words.samples)
        sides = [
            subprocess.Popen([sys.executable, "-c", SERVE, scratch, f"{scratch}/{number}"], cwd=folder, text=True,
                             env={**os.environ, "PYTHONPATH": folder}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for number, folder in enumerate((str(Path(__file__).resolve().parents[1]), words.against))
        ]  # fmt: skip

        def ask(side: subprocess.Popen[str]) -> float:
            print(words.samples, file=side.stdin, flush=True)
            assert side.stdout is not None
            return words.samples / float(side.stdout.readline())

        for side in sides:
            ask(side)
        found = [[ask(side) for side in sides] for _ in range(words.rounds)]
        for side in sides:
            side.communicate()
    ours, theirs = (max(column) for column in zip(*found))
    ratio = statistics.median(a / b for a, b in found)
    print(f"{ours:.0f} and {theirs:.0f} pictures a second on one core: {ratio:.2f} ×")


if __name__ == "__main__":
    main()
