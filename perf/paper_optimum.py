"""What endless training of `paper` linear segmentation would reach on scenes, and what each augmentation costs it.

    python perf/paper_optimum.py [--model tipsv2-mini] [--train 300] [--test 150] [--crops 9600]
                                 [--parts preset distorted same-scale flips] [--device cpu]

The head is linear and its loss convex, so what endless steps would reach can be computed: --crops training crops from
the preset's own pipeline are encoded, 64 pixels of each sampled with their bilinear mixture of tokens, and logistic
regression is solved on them. It is scored as the preset is, by windows over unaltered pictures. Printed for the
preset's augmentation on scenes, with changed colours too (as it is on photographs), without scales and crops, and with
neither (flips alone); with the best of three penalties by the test score, which can only flatter `paper`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmark.contracts import IGNORE, ModelSpec, Tap
from benchmark.contracts.progress import silent
from benchmark.engine.load_task import load_task
from benchmark.features.taps import mix_at_pixels, pixel_indices
from benchmark.heads.logistic import LogisticHead, fit_logistic
from benchmark.images.views import Placement
from benchmark.metrics.segmentation import confusion_areas, miou
from benchmark.registry import build_encoder
from tasks.dense import stack_rows
from tasks.mm.data import Positions, SegmentationSource, collate, training_pipeline
from tasks.mm.model import segmentor
from tasks.mm.probe import predictions
from tasks.mm.protocol import MmProbe

COLOURS = {"photometric": "true"}
SAME_SCALE = {"scale_range": "[1.0, 1.0]", "cat_max_ratio": "1.0"}
PARTS = {"preset": {}, "distorted": COLOURS, "same-scale": COLOURS | SAME_SCALE, "flips": SAME_SCALE}
PENALTIES = (1e-3, 1e-4, 1e-5)
BATCH, PIXELS = 16, 64


def pixels(model: Any, source: SegmentationSource, crops: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(features [n, D], labels [n]) of the sampled pixels of each training crop, without padding and ignored ones."""
    positions = Positions(source, seed=0)
    for start in range(0, crops, BATCH):
        batch = model.data_preprocessor(collate([positions[i] for i in range(start, start + BATCH)]), True)
        with torch.inference_mode():
            (maps,) = model.backbone(batch["inputs"])
        targets = [sample.gt_sem_seg.data[0].cpu() for sample in batch["data_samples"]]
        tap = Tap("pixels", None, PIXELS)
        at = [pixel_indices(f"crop/{start + i}", tap, *labels.shape) for i, labels in enumerate(targets)]
        sizes, places = [labels.shape for labels in targets], [Placement()] * len(targets)
        mixed = mix_at_pixels(maps.permute(0, 2, 3, 1), at, sizes, places).cpu()
        for features, labels in zip(mixed, (labels[pixels] for labels, pixels in zip(targets, at))):
            kept = labels != IGNORE
            yield features[kept], labels[kept]


def with_head(model: Any, head: LogisticHead) -> Any:
    """The model with the head's weights."""
    conv = model.decode_head.conv_seg
    conv.weight.data = head.weight[:, :, None, None].to(conv.weight)
    conv.bias.data = head.bias.to(conv.bias)
    return model


def score(task: Any, protocol: MmProbe, model: Any) -> float:
    """mIoU of the model by the preset's windows."""
    test = task.data["test"]
    device = str(next(model.parameters()).device)
    context: Any = SimpleNamespace(data=task.data, device=device, progress=silent)
    rows = [
        confusion_areas(prediction, test.target(i), len(test.class_names)).columns()
        for i, prediction in predictions(context, model, protocol)
    ]
    return float(miou().of(stack_rows(rows)))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", default="tipsv2-mini")
    words.add_argument("--train", type=int, default=300)
    words.add_argument("--test", type=int, default=150)
    words.add_argument("--crops", type=int, default=9600)
    words.add_argument("--device", default="cpu")
    words.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = words.parse_args()
    encoder = build_encoder(ModelSpec(args.model, device=args.device, dtype="float32"))
    side = encoder.card.image_size
    scenes = {"n_train": str(args.train), "n_test": str(args.test)}
    print(
        f"{args.model}, {args.train} training and {args.test} test scenes, {args.crops} crops of {side} px", flush=True
    )
    for name in args.parts:
        started = time.perf_counter()
        fields = {"batch_norm": "false"} | PARTS[name]
        with tempfile.TemporaryDirectory() as cache:
            task = load_task(
                "linear_segmentation/scenes", protocol="paper", overrides=fields, dataset_options=scenes, workers=0,
                cache=Path(cache),
            )  # fmt: skip
            train, protocol = task.data["train"], task.protocol.values.sized(side)
            classes = len(train.class_names)
            model = segmentor(encoder, protocol, classes).eval().to(args.device)
            source = SegmentationSource(train, training_pipeline(protocol, classes))
            x, y = (torch.cat(part) for part in zip(*pixels(model, source, args.crops)))
            scores = {
                p: score(task, protocol, with_head(model, fit_logistic(x, y, classes, (p,), device=args.device)))
                for p in PENALTIES
            }
        each = "  ".join(f"{p:g}: {value:.2f}" for p, value in scores.items())
        seconds = time.perf_counter() - started
        print(f"  {name:12} mIoU {max(scores.values()):.2f}  (penalty {each})  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
