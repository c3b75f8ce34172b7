"""What a training step costs beside the encoder, and beside open_clip's: ratios of processor time, one thread, in turn.

    python perf/recipe_step.py [--config tipsv2-mini-64] [--batch N] [--rounds N]

The full objective over forward and backward of the bare encoder on the same pictures and captions (every pass of the
student: clean view, local crops, masked view, both captions). The contrastive step over that of open_clip, where it is
installed, with towers of the same sizes: both captions of a picture, padded to the same length, its ClipLoss for each,
backward, the norm of the gradient clipped, AdamW, the temperature kept in its bounds, as open_clip_train has it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from adapters.tipsv2.recipe.batch import Batch
from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_file import read_config
from adapters.tipsv2.recipe.loader import Positions, steps_from
from adapters.tipsv2.recipe.model import Pretrainer, vision_tokens
from adapters.tipsv2.recipe.parallel import ALONE
from adapters.tipsv2.recipe.trainer import Trainer
from tasks.scenes.render import render

Step = Callable[[], object]


def bare_step(config: RecipeConfig, batch: Batch) -> Step:
    """Forward and backward of every pass of the encoder, and nothing else."""
    student = Pretrainer(config)
    student.initialise(0)
    encoder, rows = student.encoder, batch.ssl_rows

    def step() -> None:
        student.zero_grad(set_to_none=True)
        seen = [*vision_tokens(encoder.vision_model, batch.images)]
        seen += vision_tokens(encoder.vision_model, batch.local.flatten(0, 1))
        seen += vision_tokens(encoder.vision_model, batch.images[rows], batch.mask)
        seen += [student.encode_text(ids) for ids in batch.texts]
        torch.stack([each.mean() for each in seen]).sum().backward()

    return step


def open_clip_step(config: RecipeConfig, batch: Batch) -> Step:
    """open_clip's training step, of two captions for each picture."""
    import open_clip
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    model = config.model
    vision = CLIPVisionCfg(
        layers=model.depth, width=model.width, head_width=model.width // model.heads, mlp_ratio=model.mlp_ratio,
        patch_size=model.patch_size, image_size=config.views.global_size, ls_init_value=model.layerscale,
    )  # fmt: skip
    longest = max(ids.shape[1] for ids in batch.texts)
    text = CLIPTextCfg(
        context_length=longest, vocab_size=model.vocab_size, width=model.width, heads=model.text_heads,
        layers=model.text_depth, no_causal_mask=True, pool_type="last",
    )  # fmt: skip
    clip = open_clip.CLIP(model.width, vision, text)
    clip.train()
    loss = open_clip.ClipLoss()
    named = list(clip.named_parameters())
    gains = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    rest = [p for n, p in named if all(p is not other for other in gains)]
    groups = [{"params": gains, "weight_decay": 0.0}, {"params": rest, "weight_decay": config.optim.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=config.optim.betas)
    texts = torch.cat([torch.nn.functional.pad(ids, (0, longest - ids.shape[1])) for ids in batch.texts])

    def step() -> float:
        optimizer.zero_grad()
        images = clip.encode_image(batch.images, normalize=True)
        read = clip.encode_text(texts, normalize=True).chunk(len(batch.texts))
        total = torch.stack([loss(images, each, clip.logit_scale.exp()) for each in read]).mean()
        total.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), config.optim.clip, norm_type=2.0)
        optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, 4.6052)
        return float(total)

    return step


def our_step(config: RecipeConfig, batch: Batch, out: Path) -> Step:
    """The trainer's own step."""
    trainer = Trainer(config, out, ALONE, quiet=True, render=render)
    return lambda: trainer._one_step(batch)


def processor_seconds(step: Step, times: int) -> float:
    """Of one call, the mean of `times`."""
    begun = time.process_time()
    for _ in range(times):
        step()
    return (time.process_time() - begun) / times


def main() -> None:
    """Print the two ratios: the median over rounds of seconds measured one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="tipsv2-mini-64")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=2, help="steps of each side in a round")
    words = parser.parse_args()
    torch.set_num_threads(1)
    changes = {"data.samples": 200, "train.steps": 10**6, "train.threads": 1, "train.batch_size": words.batch}
    config = read_config(words.config, {**changes, "train.device": "cpu", "train.dtype": "float32"})
    alone = dataclasses.replace(config, loss=dataclasses.replace(config.loss, dino=0.0, patch_loss="none"))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(config, Path(scratch) / "data", ALONE, quiet=True, render=render)
        batch = next(steps_from(0, Positions(trainer.source, trainer.config), trainer.tokenizer))[0]
        assert batch is not None
        batch = batch.to(torch.device("cpu"))
        sides = {
            "full objective": our_step(config, batch, Path(scratch) / "full"),
            "bare encoder": bare_step(config, batch),
        }
        sides["contrastive step"] = our_step(alone, batch, Path(scratch) / "alone")
        if importlib.util.find_spec("open_clip"):
            sides["open_clip's step"] = open_clip_step(config, batch)
        for step in sides.values():
            step()
        found = [
            {name: processor_seconds(step, words.times) for name, step in sides.items()} for _ in range(words.rounds)
        ]
    names = list(sides)
    for name, over in zip(names[::2], names[1::2]):
        ratios = [row[name] / row[over] for row in found]
        least = [1e3 * min(row[side] for row in found) for side in (name, over)]
        print(f"{name} {least[0]:.0f} ms, {over} {least[1]:.0f} ms: {statistics.median(ratios):.3f} ×")


if __name__ == "__main__":
    main()
