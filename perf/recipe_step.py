"""What a training step costs beside the encoder, and beside open_clip's: ratios of processor time, one thread, in turn.

    python perf/recipe_step.py [--config tipsv2-mini-64] [--batch N] [--rounds N] [--processes N]

The full objective over forward and backward of the bare encoder on the same pictures and captions (every pass of the
student: clean view, local crops, masked view, both captions). The contrastive step over that of open_clip, where it is
installed, with towers of the same sizes: both captions of a picture, padded to the same length, its ClipLoss for each,
backward, the norm of the gradient clipped, AdamW, the temperature kept in its bounds, as open_clip_train has it.

With `--processes` a batch is shared by that many under DDP on gloo, each side's gradients exchanged by it, and the
seconds are those of all of them together; waiting takes none.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.loader import Positions, steps_from
from adapters.tipsv2.recipe.model import Pretrainer, vision_tokens
from adapters.tipsv2.recipe.parallel import Place, joined, mean_over_processes
from adapters.tipsv2.recipe.trainer import Trainer
from tasks.scenes.render import render

Step = Callable[[], object]


class Bare(nn.Module):
    """The mean of all that every pass of the encoder gives."""

    def __init__(self, config: RecipeConfig) -> None:
        super().__init__()
        self.student = Pretrainer(config)
        self.student.initialise(0)
        self.student.heads = nn.ModuleDict()
        self.student.log_temperature.requires_grad_(False)

    def forward(self, batch: Batch) -> torch.Tensor:
        vision, rows = self.student.encoder.vision_model, batch.ssl_rows
        seen = [*vision_tokens(vision, batch.images)]
        seen += vision_tokens(vision, batch.local.flatten(0, 1))
        seen += vision_tokens(vision, batch.images[rows], batch.mask)
        seen += [self.student.encode_text(ids) for ids in batch.texts]
        return torch.stack([each.mean() for each in seen]).sum()


def bare_step(config: RecipeConfig, batch: Batch, place: Place) -> Step:
    """Forward and backward of every pass of the encoder, and nothing else."""
    model = shared(Bare(config), place)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(batch).backward()

    return step


class Clip(nn.Module):
    """open_clip's model on pictures and several captions of each."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        read = self.clip.encode_text(texts, normalize=True)
        return self.clip.encode_image(images, normalize=True), read, self.clip.logit_scale.exp()


def open_clip_step(config: RecipeConfig, batch: Batch, place: Place) -> Step:
    """open_clip's training step, of two captions for each picture."""
    import open_clip
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    model = config.model
    vision = CLIPVisionCfg(
        layers=model.depth, width=model.width, head_width=model.width // model.heads, mlp_ratio=model.mlp_ratio,
        patch_size=model.patch_size, image_size=config.views.global_size, ls_init_value=model.layerscale,
    )  # fmt: skip
    most = torch.tensor(max(ids.shape[1] for ids in batch.texts))
    if place.world > 1:
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    longest = int(most)
    text = CLIPTextCfg(
        context_length=longest, vocab_size=model.vocab_size, width=model.width, heads=model.text_heads,
        layers=model.text_depth, no_causal_mask=True, pool_type="last",
    )  # fmt: skip
    clip = open_clip.CLIP(model.width, vision, text)
    clip.train()
    loss = open_clip.ClipLoss(local_loss=True, gather_with_grad=True, rank=place.rank, world_size=place.world)
    named = list(clip.named_parameters())
    gains = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    rest = [p for n, p in named if all(p is not other for other in gains)]
    groups = [{"params": gains, "weight_decay": 0.0}, {"params": rest, "weight_decay": config.optim.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=config.optim.betas)
    texts = torch.cat([torch.nn.functional.pad(ids, (0, longest - ids.shape[1])) for ids in batch.texts])
    trained = shared(Clip(clip), place)

    def step() -> float:
        optimizer.zero_grad()
        images, read, scale = trained(batch.images, texts)
        total = torch.stack([loss(images, each, scale) for each in read.chunk(len(batch.texts))]).mean()
        total.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), config.optim.clip, norm_type=2.0)
        optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, 4.6052)
        return float(total)

    return step


def shared(module: nn.Module, place: Place) -> nn.Module:
    """The module, its gradients exchanged where there are several processes."""
    return nn.parallel.DistributedDataParallel(module) if place.world > 1 else module


def our_step(config: RecipeConfig, batch: Batch, out: Path, place: Place) -> Step:
    """The trainer's own step."""
    trainer = Trainer(config, out, place, quiet=True, render=render)
    return lambda: trainer._one_step(batch)


def processor_seconds(step: Step, times: int, place: Place) -> float:
    """Of one call, the mean of `times`, in all processes together."""
    begun = time.process_time()
    for _ in range(times):
        step()
    seconds = torch.tensor((time.process_time() - begun) / times, dtype=torch.float64)
    return float(mean_over_processes(seconds, place)) * place.world


def compare(words: argparse.Namespace, scratch: Path) -> None:
    """The two ratios: the median over rounds of seconds measured one after the other; the first process prints."""
    torch.set_num_threads(1)
    changes = {"data.samples": 200, "train.steps": 10**6, "train.threads": 1, "train.batch_size": words.batch}
    config = read_config(words.config, {**changes, "train.device": "cpu", "train.dtype": "float32"})
    alone = dataclasses.replace(config, loss=dataclasses.replace(config.loss, dino=0.0, patch_loss="none"))
    with joined(config.train, config.loss.ssl_every) as place:
        trainer = Trainer(config, scratch / "data", place, quiet=True, render=render)
        samples = Positions(trainer.source, trainer.config)
        batch = next(steps_from(0, samples, trainer.tokenizer, place.rank, place.world))[0]
        assert batch is not None
        batch = batch.to(torch.device("cpu"))
        sides = {
            "full objective": our_step(config, batch, scratch / "full", place),
            "bare encoder": bare_step(config, batch, place),
        }
        sides["contrastive step"] = our_step(alone, batch, scratch / "alone", place)
        if importlib.util.find_spec("open_clip"):
            sides["open_clip's step"] = open_clip_step(config, batch, place)
        for step in sides.values():
            step()
        found = [
            {name: processor_seconds(step, words.times, place) for name, step in sides.items()}
            for _ in range(words.rounds)
        ]
        names = list(sides)
        for name, over in zip(names[::2], names[1::2]):
            ratios = [row[name] / row[over] for row in found]
            least = [1e3 * min(row[side] for row in found) for side in (name, over)]
            if place.first:
                print(f"{name} {least[0]:.0f} ms, {over} {least[1]:.0f} ms: {statistics.median(ratios):.3f} ×")


def in_processes(count: int, scratch: Path) -> None:
    """This script in `count` processes that share the folder `scratch`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [sys.executable, *sys.argv, "--in", str(scratch)]
    group = [
        subprocess.Popen(words, env={**world, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)
    ]
    ended = [process.wait() for process in group]
    assert not any(ended), "a process ended; it says why above"


def main() -> None:
    """Print the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="tipsv2-mini-64")
    parser.add_argument("--batch", type=int, default=64, help="pictures, of all processes together")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=2, help="steps of each side in a round")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--in", dest="scratch", type=Path, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.scratch:
        compare(words, words.scratch)
        return
    with tempfile.TemporaryDirectory() as scratch:
        if words.processes > 1:
            in_processes(words.processes, Path(scratch))
        else:
            compare(words, Path(scratch))


if __name__ == "__main__":
    main()
