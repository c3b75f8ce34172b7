"""What the learning rate decides in `paper` linear segmentation on scenes: the whole training at several rates at once.

    python perf/paper_rates.py [--model tipsv2-mini] [--rates 1e-3 3e-3 1e-2 3e-2 1e-1] [--steps 40000] [--seeds 3]
                               [--train 4000] [--test 500] [--workers 0] [--device cpu]

The rates have a head each on the same batches, so every crop is cut and encoded once and a GPU trains them all in
minutes. Order, cuts, batches, first weights, loss, optimiser and schedule are the preset's; pictures are encoded eight
batches at a time. Printed per rate are the training loss over the last tenth of the steps, by which a rate can be
chosen without the test split, and the mIoU of the last step's head by the preset's windows.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from paper_optimum import score
from torch import nn
from torch.utils.data import DataLoader

from benchmark.contracts import ModelSpec
from benchmark.engine.load_task import load_task
from benchmark.registry import build_encoder
from tasks.mm.data import Positions, SegmentationSource, Steps, number, training_pipeline
from tasks.mm.model import ignored, segmentor
from tasks.mm.protocol import MmProbe
from tasks.mm.schedule import factor

CHUNK = 8  # batches encoded at a time
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Padded:
    """Collates crops: [B, 3, S, S] BGR bytes, [B, 2] their true sizes, [B, S, S] labels with `ignore` where padded."""

    def __init__(self, side: int, ignore: int) -> None:
        self.side, self.ignore = side, ignore

    def __call__(self, items: Sequence[Any]) -> Batch:
        images = np.zeros((len(items), 3, self.side, self.side), np.uint8)
        labels = np.full((len(items), self.side, self.side), self.ignore, np.int16)
        sizes = np.zeros((len(items), 2), np.int64)
        for i, item in enumerate(items):
            if isinstance(item, Exception):
                raise item
            height, width = item["inputs"].shape[-2:]
            images[i, :, :height, :width] = item["inputs"].numpy()
            labels[i, :height, :width] = item["data_samples"].gt_sem_seg.data[0].numpy()
            sizes[i] = height, width
        return torch.from_numpy(images), torch.from_numpy(sizes), torch.from_numpy(labels)


class Heads(nn.Module):
    """K heads as one: batch norm shares its statistics, a 1 × 1 convolution has K times the outputs."""

    def __init__(self, head: nn.Module, count: int) -> None:
        super().__init__()
        self.count, self.classes = count, head.conv_seg.out_channels
        self.norm = nn.BatchNorm2d(head.conv_seg.in_channels, affine=False)
        first = (head.norm.weight, head.norm.bias, head.conv_seg.weight[:, :, 0, 0], head.conv_seg.bias)
        self.each = nn.ModuleList(
            nn.ParameterList(nn.Parameter(p.detach().clone()) for p in first) for _ in range(count)
        )

    def losses(self, tokens: torch.Tensor, labels: torch.Tensor, ignore: int) -> torch.Tensor:
        """[K] mean cross-entropy over all pixels, ignored ones adding zero."""
        tokens = self.norm(tokens)
        weight = torch.cat([w * gamma for gamma, _, w, _ in self.each])
        bias = torch.cat([w @ beta + b for _, beta, w, b in self.each])
        scores = F.interpolate(F.conv2d(tokens, weight[:, :, None, None], bias), labels.shape[-2:], mode="bilinear")
        scores = scores.unflatten(1, (self.count, self.classes)).transpose(1, 2)  # [B, C, K, H, W]
        labels = labels[:, None].expand(-1, self.count, -1, -1)
        return F.cross_entropy(scores, labels, ignore_index=ignore, reduction="none").mean((0, 2, 3))

    def into(self, k: int, head: nn.Module) -> None:
        """Copies head `k` into the preset's."""
        gamma, beta, weight, bias = self.each[k]
        with torch.no_grad():
            head.norm.weight.copy_(gamma), head.norm.bias.copy_(beta)
            head.conv_seg.weight.copy_(weight[:, :, None, None]), head.conv_seg.bias.copy_(bias)
            head.norm.running_mean.copy_(self.norm.running_mean), head.norm.running_var.copy_(self.norm.running_var)


def encoded(
    model: Any, loader: DataLoader[Any], mean: torch.Tensor, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """([B, D, h, w] tokens, [B, S, S] labels) of every batch."""
    batches = iter(loader)
    while chunk := list(islice(batches, CHUNK)):
        images, sizes, labels = (torch.cat(parts).to(device, non_blocking=True) for parts in zip(*chunk))
        at = torch.arange(images.shape[-1], device=device)
        inside = (at[:, None] < sizes[:, :1, None]) & (at < sizes[:, 1:, None])  # [N, S, S]
        pictures = (images.flip(1).float() - mean) / 255 * inside[:, None]  # zero where padded, as the preset pads
        with torch.inference_mode():
            (tokens,) = model.backbone(pictures)
        yield from zip(tokens.clone().chunk(len(chunk)), labels.long().chunk(len(chunk)))


def train(model: Any, task: Any, protocol: MmProbe, rates: Sequence[float], seed: int, args: Any) -> Heads:
    """The heads after the last step; prints their training losses on the way."""
    data = task.data["train"]
    classes, ignore = len(data.class_names), ignored(len(data.class_names))
    torch.manual_seed(number(seed, "head"))
    model.decode_head.init_weights()
    heads = Heads(model.decode_head, len(rates)).to(args.device).train()
    groups = [{"params": list(each), "lr": rate} for each, rate in zip(heads.each, rates)]
    optimizer = torch.optim.AdamW(groups, betas=protocol.betas, weight_decay=protocol.weight_decay, fused=True)
    loader = DataLoader(
        Positions(SegmentationSource(data, training_pipeline(protocol, classes)), seed),
        batch_sampler=Steps(range(protocol.steps), protocol.batch_size), collate_fn=Padded(protocol.crop, ignore),
        num_workers=args.workers, prefetch_factor=4 * CHUNK // args.workers + 2 if args.workers else None,
    )  # fmt: skip
    mean = model.data_preprocessor.mean.view(3, 1, 1).to(args.device)
    every, started = max(1, protocol.steps // 10), time.perf_counter()
    total = torch.zeros(len(rates), device=args.device)
    for step, (tokens, labels) in enumerate(encoded(model, loader, mean, args.device)):
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * factor(protocol, step)
        losses = heads.losses(tokens, labels, ignore)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        total += losses.detach()
        if (step + 1) % every == 0:
            each = "  ".join(f"{rate:g}: {loss:.4f}" for rate, loss in zip(rates, (total / every).tolist()))
            print(f"  step {step + 1:6,}  loss {each}  {time.perf_counter() - started:.0f} s", flush=True)
            total.zero_()
    return heads


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", default="tipsv2-mini")
    words.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
    words.add_argument("--steps", type=int, default=40000)
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--train", type=int, default=4000)
    words.add_argument("--test", type=int, default=500)
    words.add_argument("--workers", type=int, default=0)
    words.add_argument("--device", default="cpu")
    args = words.parse_args()
    logging.disable(logging.INFO)  # mmengine tells of every parameter it initialises
    encoder = build_encoder(ModelSpec(args.model, device=args.device, dtype="float32"))
    scenes = {"n_train": str(args.train), "n_test": str(args.test)}
    fields = {"steps": str(args.steps), "warmup_steps": str(round(args.steps * 1500 / 40000))}
    print(f"{args.model}, {args.train} training and {args.test} test scenes, {args.steps} steps", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        task = load_task(
            "linear_segmentation/scenes", protocol="paper", overrides=fields, dataset_options=scenes, workers=0,
            cache=Path(cache),
        )  # fmt: skip
        protocol = task.protocol.values.sized(encoder.card.image_size)
        classes = len(task.data["train"].class_names)
        for seed in range(args.seeds):
            model = segmentor(encoder, protocol, classes).to(args.device)
            heads = train(model, task, protocol, args.rates, seed, args)
            model.eval()
            for k, rate in enumerate(args.rates):
                heads.into(k, model.decode_head)
                print(f"  seed {seed}  rate {rate:g}  mIoU {score(task, protocol, model):.2f}", flush=True)


if __name__ == "__main__":
    main()
