"""Pictures a second that one core makes ready from tar shards, beside the path they took before.

    python perf/recipe_data.py [--samples N] [--rounds N]

Before: each picture through an array and back, batches in float32. Both sides alternate in one process; processor time.
Pictures are JPEGs of 640 × 480 with noise, views those of g-224 (224 px and six of 98).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from adapters.tipsv2.recipe import source_files
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.loader import Collate, Positions
from adapters.tipsv2.recipe.samples import open_source
from adapters.tipsv2.recipe.text import train_tokenizer
from benchmark.images.decode import decode


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


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Pictures through an array."""
    with mock.patch.object(source_files, "decode_image", lambda source: Image.fromarray(decode(source))):
        yield


def main() -> None:
    """Print both speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    spent: dict[str, list[float]] = {"before": [], "now": []}
    with tempfile.TemporaryDirectory() as scratch:
        write_shard(Path(scratch) / "a.tar", args.samples)
        changes = {"data.source": "tar", "data.path": f"{scratch}/a.tar", "data.cache": scratch}
        config = read_config("g-224", changes)
        positions = Positions(open_source(config.data), config)
        collate = Collate(train_tokenizer(["a b c d e"] * 9, 60, 64))
        for _ in range(args.rounds):
            for name in spent:
                began = time.process_time()
                with as_before() if name == "before" else contextlib.nullcontext():
                    batch, bad, _ = collate([positions[i] for i in range(args.samples)])
                    assert batch is not None, bad
                    if name == "before":
                        batch = batch.to(torch.device("cpu"))
                spent[name].append(time.process_time() - began)
    before, now = (args.samples / min(spent[name]) for name in ("before", "now"))
    print(f"{before:.0f} pictures a second on one core before, {now:.0f} now: {now / before:.2f} ×")


if __name__ == "__main__":
    main()
