"""Extraction against a bare forward loop: the same batches, the same encoder, in one run.

    python perf/overhead.py [--images 96] [--batch 16] [--rounds 3]

A randomly initialised ViT-B/16 (transformers) at 224 px on JPEG files of 256 px. Prints the ratio of the median times;
the bare loop is given pictures that are already decoded, so the ratio holds decoding, resizing, sampling and storing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmark.contracts import EncoderCard, ImageFeatures, ImageRequest, ImageTransform, Need, Tap, View, WeightsInfo
from benchmark.engine.context import silent
from benchmark.features.extract import Extractor
from benchmark.features.plan import Planner
from benchmark.features.store import FeatureStore
from benchmark.images import decode

TAPS = (Tap("cls"), Tap("pixels", None, 64, 0))


class RandomB16:
    """ViT-B/16 with random weights behind the Encoder contract."""

    def __init__(self, device: str) -> None:
        from transformers import Dinov2Config, Dinov2Model

        self.device = device
        config = Dinov2Config(
            image_size=224, patch_size=16, hidden_size=768, num_hidden_layers=12, num_attention_heads=12
        )
        self.model = Dinov2Model(config).eval().to(device)
        self.transform = ImageTransform("square", 224, interpolation="bilinear")
        self.card = EncoderCard(
            "random-b16", "perf", "torch", 768, 16, 224, 12, 1, False, WeightsInfo("random", "0" * 64), "Apache-2.0"
        )

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        tokens = self.model(images).last_hidden_state
        return ImageFeatures(tokens[:, :1], tokens[:, 1:].unflatten(1, (14, 14)))


@dataclass(frozen=True)
class Jpegs:
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


def make(folder: Path, n: int) -> Jpegs:
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
    return Jpegs(folder, n)


def bare(encoder: RandomB16, batches: list[torch.Tensor]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            encoder.encode_image(batch.to(encoder.device)).cls.float().cpu()
    return time.perf_counter() - started


def ours(encoder: RandomB16, images: Jpegs, batch: int, store: Path) -> float:
    planner = Planner(encoder.card, encoder.transform, FeatureStore(store))
    needs = [Need(images, View("square"), tap) for tap in TAPS]
    planner.add(needs)
    extractor = Extractor(encoder, encoder.device, batch, None, silent)
    started = time.perf_counter()
    extractor.run(planner.of(needs[0]))
    return time.perf_counter() - started


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--images", type=int, default=96)
    words.add_argument("--batch", type=int, default=16)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = words.parse_args()
    torch.manual_seed(0)
    encoder = RandomB16(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = make(folder, args.images)
        view = Planner(encoder.card, encoder.transform, FeatureStore(folder / "s"))
        view.add([Need(images, View("square"), TAPS[0])])
        lay = next(iter(view.passes.values())).view.lay
        pixels = torch.stack([torch.from_numpy(lay(images.load(i))) for i in range(args.images)])
        batches = list(pixels.split(args.batch))
        bare(encoder, batches[:1])
        times: dict[str, list[float]] = {"bare": [], "densebench": []}
        for r in range(args.rounds):
            times["bare"].append(bare(encoder, batches))
            times["densebench"].append(ours(encoder, images, args.batch, folder / f"store{r}"))
    medians = {k: statistics.median(v) for k, v in times.items()}
    for name, seconds in medians.items():
        print(f"{name:12} {seconds:7.2f} s  {args.images / seconds:7.2f} images/s")
    print(f"ratio {medians['densebench'] / medians['bare']:.3f}")


if __name__ == "__main__":
    main()
