"""Linear segmentation on scenes: `fast` against `paper` with the same encoders, mIoU and encoder forwards in one run.

    python perf/linear_segmentation.py [--models random-vit tipsv2-mini] [--train 300] [--test 150] [--steps 3000]
                                       [--seeds 3] [--rate 1e-3] [--probes paper distorted plain] [--device cpu]

What is asked of `fast` is the order: with three models or more the last lines say Kendall's tau between its order of
the models and that of each other probe (mean over seeds), with the interval of 2,000 resamples of the test pictures.

`paper` is the preset as it is on scenes, its 40,000 steps shortened to --steps, warm-up in proportion; mean and spread
(max - min) over seeds. `--probes distorted` also changes the colours of the crops, as the preset does on photographs;
`plain` is the same probe without augmentation: AdamW on whole pictures at full resolution.

A shortened `paper` is an undertrained one, the more so at its own rate of 1e-3: give it a higher rate (`--rate 1e-2`),
which the printed line then names, and the steps the machine allows (about 0.1 s each on a free core for the minis).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from benchmark.contracts import Encoder, ImageFeatures, ImageRequest, ModelSpec
from benchmark.engine.load_task import load_task
from benchmark.registry import build_encoder
from benchmark.statistics.statistic import Statistic

DISTORTED = {"photometric": "true"}
PLAIN = {"scale_range": "[1.0, 1.0]", "flip": "0.0", "photometric": "false", "cat_max_ratio": "1.0"}


@dataclass
class Counting:
    """An encoder that counts the pictures it is given."""

    inner: Encoder
    seen: int = 0
    card: Any = field(init=False)
    transform: Any = field(init=False)

    def __post_init__(self) -> None:
        self.card, self.transform = self.inner.card, self.inner.transform
        self.device = getattr(self.inner, "device", "cpu")

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        self.seen += len(images)
        return self.inner.encode_image(images, request)


@dataclass(frozen=True)
class Measured:
    """mIoU of each seed; forwards and seconds of one."""

    name: str
    values: list[float]
    forwards: int
    seconds: float
    sums: list[np.ndarray]  # of each seed [N, F]: what `statistic` makes mIoU of
    statistic: Statistic

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        return max(self.values) - min(self.values)

    def line(self) -> str:
        each = " ".join(f"{v:.2f}" for v in self.values)
        cost = f"forwards {self.forwards:7,}  {self.seconds:6.1f} s"
        return f"  {self.name:9} mIoU {self.mean:6.2f}  spread {self.spread:5.2f} ({each})  {cost}"


def measure(name: str, model: str, preset: str, fields: dict[str, str], seeds: int, args: Any) -> Measured:
    """Each seed with a feature store of its own, so that every forward is counted."""
    values, sums, forwards, seconds = [], [], 0, 0.0
    for seed in range(seeds):
        encoder = Counting(build_encoder(ModelSpec(model, device=args.device, dtype="float32")))
        sizes = {"n_train": str(args.train), "n_test": str(args.test)}
        with tempfile.TemporaryDirectory() as cache:
            task = load_task(
                "linear_segmentation/scenes", protocol=preset, overrides=fields, seed=seed, dataset_options=sizes,
                workers=0, cache=Path(cache),
            )  # fmt: skip
            started = time.perf_counter()
            outcome = task.run(encoder)
        seconds, forwards = time.perf_counter() - started, encoder.seen
        statistic = outcome.measurements[0].statistic
        values.append(statistic.of(outcome.samples))
        sums.append(statistic.matrix(outcome.samples))
    return Measured(name, values, forwards, seconds, sums, statistic)


def order(fast: list[Measured], other: list[Measured], resamples: int = 2000) -> str:
    """Kendall's tau of two probes' orders of the same models, and its percentile interval over test pictures."""
    n = len(fast[0].sums[0])
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), resamples).astype(float)

    def values(of: Measured, weights: np.ndarray) -> np.ndarray:
        return np.mean([of.statistic.value(weights @ sums) for sums in of.sums], 0)

    def taus(weights: np.ndarray) -> list[float]:
        pairs = ([values(m, weights) for m in probe] for probe in (fast, other))
        a, b = (np.stack(pair, 1) for pair in pairs)  # [R, models]
        return [float(kendalltau(x, y).statistic) for x, y in zip(a, b)]

    (value,), drawn = taus(np.ones((1, n))), taus(draws)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"Kendall's tau {value:.2f} [{low:.2f}, {high:.2f}] over {len(fast)} models and {n} test scenes"


def compare(model: str, args: Any) -> dict[str, Measured]:
    warmup = round(args.steps * 1500 / 40000)
    fields = {"steps": str(args.steps), "warmup_steps": str(warmup), "learning_rate": str(args.rate)}
    how = f"{args.steps} steps at {args.rate:g}"
    print(f"{model}, {args.train} training and {args.test} test scenes, {how}", flush=True)
    fast = measure("fast", model, "fast", {}, 1, args)
    print(fast.line(), flush=True)
    found = {"fast": fast}
    probes = {"paper": fields, "distorted": {**fields, **DISTORTED}, "plain": {**fields, **PLAIN}}
    for name in args.probes:
        changed = probes[name]
        trained = measure(name, model, "paper", changed, args.seeds, args)
        print(trained.line(), flush=True)
        gap, share = fast.mean - trained.mean, trained.forwards / fast.forwards
        print(f"  fast - {name}: {gap:+.2f} mIoU at 1/{share:.1f} of the forwards", flush=True)
        found[name] = trained
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--models", nargs="+", default=["random-vit", "tipsv2-mini"])
    words.add_argument("--train", type=int, default=300)
    words.add_argument("--test", type=int, default=150)
    words.add_argument("--steps", type=int, default=3000)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--rate", type=float, default=1e-3)
    words.add_argument("--device", default="cpu")
    words.add_argument("--probes", nargs="+", choices=("paper", "distorted", "plain"), default=["paper"])
    args = words.parse_args()
    found = [compare(model, args) for model in args.models]
    for name in args.probes if len(found) > 2 else ():
        print(f"fast and {name}: {order([m['fast'] for m in found], [m[name] for m in found])}")


if __name__ == "__main__":
    main()
