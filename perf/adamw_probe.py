"""Does `fast` linear segmentation reach what gradient descent reaches? The textbook probe beside it, on one extraction.

    python perf/adamw_probe.py [--model tipsv2-mini] [--train 4000] [--test 500] [--steps 2000 8000] [--seeds 3]
                               [--rate 1e-2] [--norm fixed | batch] [--device cpu]

The textbook probe is a 1 × 1 convolution on standardised patch tokens, logits up-sampled to full resolution,
cross-entropy over every pixel, AdamW with a rate that falls linearly to zero. Pictures are encoded once, so that only
the head is trained and it can be trained for as long as it gains. Tokens are standardised by their mean and deviation
over the training pictures; `--norm batch` is batch norm instead, whose statistics of 16 pictures add noise. Prints mIoU
of `fast` and, for each number of steps, of every seed, with the spread (max - min).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmark.contracts import IGNORE, ModelSpec, View
from benchmark.engine.load_task import load_task
from benchmark.images.views import resolve_view
from benchmark.metrics.segmentation import confusion_areas, miou
from benchmark.registry import build_encoder
from tasks.dense import stack_rows

BATCH = 16


def tokens(encoder: Any, images: Any) -> torch.Tensor:
    """[N, h, w, D] patch tokens of whole pictures, stretched to the encoder's size as in `fast`."""
    view = resolve_view(View("square", 0), encoder.transform, encoder.card, images)
    out = []
    for start in range(0, len(images), BATCH):
        rows = [view.lay(images.load(i)) for i in range(start, min(start + BATCH, len(images)))]
        with torch.inference_mode():
            patches = encoder.encode_image(torch.from_numpy(np.stack(rows)).to(encoder.device)).patches
        out.append(patches.clone())
    return torch.cat(out)


class Head(nn.Module):
    """Logits [B, H, W, C] for patch tokens [B, h, w, D]: a linear map, then bilinear up-sampling of its output.

    Two products with the one-dimensional weights of F.interpolate, classes last: half the time of F.interpolate, which
    wants them first.
    """

    def __init__(self, width: int, classes: int, grid: int, size: int, batch_norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.linear = nn.Linear(width, classes)
        up = F.interpolate(torch.eye(grid)[None], size, mode="linear", align_corners=False)[0].T.contiguous()
        self.register_buffer("up", up)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See the class."""
        (batch, h, w, width), side = tokens.shape, len(self.up)
        logits = self.linear(self.norm(tokens.reshape(-1, width)))
        rows = torch.matmul(self.up, logits.view(batch, h, -1)).reshape(batch * side, w, -1)
        return torch.matmul(self.up, rows).view(batch, side, side, -1)


def train(
    features: torch.Tensor, targets: torch.Tensor, classes: int, steps: int, rate: float, seed: int, batch_norm: bool
) -> Head:
    """The head after `steps` batches of features [N, h, w, D] and labels [N, H, W], both square."""
    torch.manual_seed(seed)
    head = Head(features.shape[-1], classes, features.shape[1], targets.shape[1], batch_norm).to(features.device)
    optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches = len(features) // BATCH
    for step in range(steps):
        if step % batches == 0:
            order = torch.randperm(len(features)).to(features.device)
        pick = order[step % batches * BATCH :][:BATCH]
        logits = head(features[pick])
        loss = F.cross_entropy(logits.flatten(0, 2), targets[pick].flatten().long(), ignore_index=IGNORE)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return head.eval()


def score(head: Head, features: torch.Tensor, targets: torch.Tensor, classes: int) -> float:
    """mIoU at full resolution."""
    rows = []
    with torch.inference_mode():
        for i in range(len(features)):
            prediction = head(features[i : i + 1])[0].argmax(-1)
            rows.append(confusion_areas(prediction, targets[i].long(), classes).columns())
    return float(miou().of(stack_rows(rows)))


def line(values: list[float]) -> str:
    """mIoU of every seed, and their spread."""
    return f"{' '.join(f'{v:.2f}' for v in values)}  spread {max(values) - min(values):.2f}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", default="tipsv2-mini")
    words.add_argument("--train", type=int, default=4000)
    words.add_argument("--test", type=int, default=500)
    words.add_argument("--steps", type=int, nargs="+", default=[2000, 8000])
    words.add_argument("--rate", type=float, default=1e-2)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--norm", choices=("fixed", "batch"), default="fixed")
    words.add_argument("--device", default="cpu")
    args = words.parse_args()
    encoder = build_encoder(ModelSpec(args.model, device=args.device, dtype="float32"))
    sizes = {"n_train": str(args.train), "n_test": str(args.test)}
    fast = []
    with tempfile.TemporaryDirectory() as cache:
        for seed in range(args.seeds):
            task = load_task(
                "linear_segmentation/scenes", seed=seed, dataset_options=sizes, workers=0, cache=Path(cache)
            )
            outcome = task.run(encoder)
            fast.append(float(outcome.measurements[0].statistic.of(outcome.samples)))
    print(f"{args.model}, {args.train} training and {args.test} test scenes", flush=True)
    print(f"fast: {line(fast)}", flush=True)
    sets = dict(task.data.items())
    features = {name: tokens(encoder, data.images) for name, data in sets.items()}
    targets = {
        name: torch.from_numpy(np.stack([data.target(i) for i in range(len(data.images))])).to(args.device, torch.uint8)
        for name, data in sets.items()
    }
    if args.norm == "fixed":
        mean, deviation = features["train"].mean((0, 1, 2)), features["train"].std((0, 1, 2))
        features = {name: (x - mean) / deviation for name, x in features.items()}
    classes = len(sets["test"].class_names)
    for steps in args.steps:
        values, started = [], time.perf_counter()
        for seed in range(args.seeds):
            batch_norm = args.norm == "batch"
            head = train(features["train"], targets["train"], classes, steps, args.rate, seed, batch_norm)
            values.append(score(head, features["test"], targets["test"], classes))
        seconds = (time.perf_counter() - started) / args.seeds
        print(f"AdamW {steps:6} steps: {line(values)}  {seconds:.0f} s each", flush=True)


if __name__ == "__main__":
    main()
