"""Extraction against a bare forward loop: the same batches, the same encoder, in one run.

    python perf/overhead.py [--images 96] [--batch 16] [--rounds 3] [--device cuda]
    python perf/overhead.py --images 8192 --batch 128 --dtype bfloat16 --workers 15 --rounds 5    # on a GPU

A randomly initialised ViT-B/16 (transformers) at 224 px on JPEG files of ImageNet's size, 500 × 375. Rounds are
interleaved; printed are the best time of each, the median of the ratios of neighbouring rounds, and the same in
processor seconds (this process and its workers), which a busy machine disturbs less. The bare loop is given pictures
that are already decoded (bytes, page-locked for a GPU), so the ratio holds decoding, resizing, sampling and storing.
The seconds until the first batch is there (worker processes start) are printed and, with --workers, not in the ratio.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmark.contracts import (
    EncoderCard,
    ImageFeatures,
    ImageRequest,
    ImageSet,
    ImageTransform,
    Need,
    Tap,
    View,
    WeightsInfo,
)
from benchmark.contracts.progress import silent
from benchmark.features.extract import Extractor
from benchmark.features.plan import Planner
from benchmark.features.store import FeatureStore
from benchmark.images.decode import decode

TAPS = (Tap("cls"), Tap("pixels", None, 64, 0))


class RandomB16:
    """ViT-B/16 with random weights behind the Encoder contract."""

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        from transformers import Dinov2Config, Dinov2Model

        self.device, self.dtype = device, dtype
        self.first: float | None = None  # when it was given its first batch
        config = Dinov2Config(
            image_size=224, patch_size=16, hidden_size=768, num_hidden_layers=12, num_attention_heads=12
        )
        self.model = Dinov2Model(config).eval().to(device, dtype)
        self.transform = ImageTransform("square", 224, interpolation="bilinear")
        self.card = EncoderCard(
            "random-b16", "perf", "torch", 768, 16, 224, 12, 1, False, WeightsInfo("random", "0" * 64), "Apache-2.0"
        )

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        self.first = self.first or time.perf_counter()
        tokens = self.model(images.to(self.dtype)).last_hidden_state
        return ImageFeatures(tokens[:, :1], tokens[:, 1:].unflatten(1, (14, 14)))


@dataclass(frozen=True)
class Jpegs(ImageSet):
    """Noise pictures as files."""

    folder: Path
    n: int
    digest: str = "jpegs"

    def __len__(self) -> int:
        return self.n

    def image_id(self, index: int) -> str:
        return f"{index}.jpg"

    def load(self, index: int) -> np.ndarray:
        return decode(self.folder / f"{index}.jpg")


def make(folder: Path, n: int, size: tuple[int, int]) -> Jpegs:
    """`n` smooth noise pictures (width, height); a few are drawn and copied, as only their number matters."""
    rng = np.random.default_rng(0)
    for i in range(min(n, 64)):
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
    for i in range(64, n):
        shutil.copyfile(folder / f"{i % 64}.jpg", folder / f"{i}.jpg")
    return Jpegs(folder, n)


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock and of processors, workers that have ended included; `start`: until the first batch came."""

    clock: float
    processor: float
    start: float = 0.0

    @staticmethod
    def now() -> Spent:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return Spent(time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in used))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.clock - other.clock, self.processor - other.processor)


def bare(encoder: RandomB16, batches: list[torch.Tensor]) -> Spent:
    started = Spent.now()
    with torch.inference_mode():
        for batch in batches:
            there = batch.to(encoder.device, non_blocking=True)
            encoder.encode_image(there.float() / 255).cls.float().cpu()
    return Spent.now() - started


def ours(encoder: RandomB16, images: Jpegs, batch: int, store: Path, workers: int | None) -> Spent:
    planner = Planner(encoder.card, encoder.transform, FeatureStore(store))
    needs = [Need(images, View("square"), tap) for tap in TAPS]
    planner.add(needs)
    extractor = Extractor(encoder, encoder.device, batch, workers, silent)
    encoder.first, started = None, Spent.now()
    extractor.run(planner.of(needs[0]))
    assert encoder.first is not None
    return replace(Spent.now() - started, start=encoder.first - started.clock)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=int, default=96)
    words.add_argument("--batch", type=int, default=16)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--size", default="500x375", help="of the files: 256x256 is what earlier figures were taken on")
    words.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    words.add_argument("--workers", type=int, help="processes that decode [default: as a run has it]")
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = words.parse_args()
    torch.manual_seed(0)
    encoder = RandomB16(args.device, getattr(torch, args.dtype))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        width, height = map(int, args.size.split("x"))
        images = make(folder, args.images, (width, height))
        view = Planner(encoder.card, encoder.transform, FeatureStore(folder / "s"))
        view.add([Need(images, View("square"), TAPS[0])])
        lay = next(iter(view.passes.values())).view.lay
        with ThreadPoolExecutor() as pool:
            laid = pool.map(
                lambda i: torch.from_numpy(np.rint(255 * lay(images.load(i))).astype(np.uint8)), range(args.images)
            )
            batches = list(torch.stack(list(laid)).split(args.batch))
        if args.device != "cpu":
            batches = [batch.pin_memory() for batch in batches]
        bare(encoder, batches[:1])
        times: dict[str, list[Spent]] = {"bare": [], "densebench": []}
        for r in range(args.rounds):
            times["bare"].append(bare(encoder, batches))
            times["densebench"].append(ours(encoder, images, args.batch, folder / f"store{r}", args.workers))
    for name, rounds in times.items():
        seconds, processor = min(s.clock for s in rounds), min(s.processor for s in rounds)
        print(f"{name:12} {seconds:7.2f} s  {args.images / seconds:7.2f} images/s  {processor:7.2f} processor s")
    pairs = list(zip(times["densebench"], times["bare"]))
    start = statistics.median(a.start for a, _ in pairs)
    clock = statistics.median((a.clock - (a.start if args.workers else 0)) / b.clock for a, b in pairs)
    print(f"first batch after       {start:.2f} s")
    print(f"ratio of the clock      {clock:.3f}{', that start not counted' if args.workers else ''}")
    print(f"ratio of processor time {statistics.median(a.processor / b.processor for a, b in pairs):.3f}")


if __name__ == "__main__":
    main()
