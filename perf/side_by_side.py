"""Pictures decoded once for several encoders: processor seconds of a pass of four, side by side and one after another.

    python perf/side_by_side.py [--pictures 128] [--rounds 3] [--size 96]

JPEGs of 640 × 427 pixels, laid at `--size` pixels before the embedded encoders, in one process and in turn. Exits with
1 where a feature differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from decode import photograph

from benchmark import load_encoder
from benchmark.contracts import Encoder, Need, Tap, View
from benchmark.contracts.progress import silent
from benchmark.features.extract import Extractor, Share, together
from benchmark.features.plan import Planner
from benchmark.features.store import FeatureStore
from tasks.datasets.blobs import FileBlobs
from tasks.datasets.kinds import Pictures

MODELS = ("tipsv2-mini", "tips-mini", "clip-mini", "random-vit")
TAPS = (Tap("cls"), Tap("patches"))


def shares(encoders: list[Encoder], images: Pictures, size: int, store: Path) -> list[Share]:
    """What each encoder lacks in an empty store."""
    found = []
    for encoder in encoders:
        planner = Planner(encoder.card, encoder.transform, FeatureStore(store))
        planner.add([Need(images, View("square", size, interpolation="bicubic"), tap) for tap in TAPS])
        (task,) = planner.passes.values()
        found.append(Share(Extractor(encoder, "cpu", None, 0, silent), task))
    return found


def spent(lots: list[list[Share]]) -> tuple[float, int]:
    """Processor seconds, and pictures decoded."""
    began = time.process_time()
    for lot in lots:
        together(lot)
    every = [share for lot in lots for share in lot]
    assert not any(share.error for share in every)
    return time.process_time() - began, sum(share.extractor.read for share in every)


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=96)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    encoders = [load_encoder(name, device="cpu") for name in MODELS]
    ratios, wrong = [], 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photograph(place / "0.jpg", 640, 427)
        for number in range(1, asked.pictures):
            (place / f"{number}.jpg").write_bytes((place / "0.jpg").read_bytes())
        images = Pictures(FileBlobs(folder, tuple(f"{n}.jpg" for n in range(asked.pictures))))
        for turn in range(asked.rounds):
            beside = shares(encoders, images, asked.size, place / f"beside-{turn}")
            apart = shares(encoders, images, asked.size, place / f"apart-{turn}")
            one, read = spent([beside])
            many, again = spent([[share] for share in apart])
            for a, b in zip(beside, apart, strict=True):
                wrong += any((a.task.taps[tap][:] != b.task.taps[tap][:]).any() for tap in TAPS)
            ratios.append(one / many)
            print(f"side by side {one:.2f} s, {read:,} decoded; apart {many:.2f} s, {again:,} decoded", flush=True)
    print(f"{len(MODELS)} encoders: {statistics.median(ratios):.3f} of the processor seconds; {wrong} passes differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
