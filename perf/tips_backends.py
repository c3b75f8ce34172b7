"""Speed of the TIPS encoders over transformers' own forward: random weights of a published size, one process.

    python perf/tips_backends.py [--size s|b] [--pixels N] [--batch N] [--rounds N]

Rounds are interleaved and the best of each contender is compared, so that a busy machine slows them alike. "all taps"
is one call for CLS, patches, four layers and patches in text space: what a dense suite asks for at once.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import Tipsv2Model

from adapters.tipsv2 import build
from adapters.tipsv2.variants import Architecture
from benchmark.contracts import Encoder, ImageRequest, ModelSpec
from benchmark.registry import models


def write_random(folder: Path, size: str) -> ModelSpec:
    """A transformers folder with untrained weights of `tips-SIZE`."""
    row = models()[f"tips-{size}"]
    arch = Architecture.from_row(row)
    assert arch is not None
    Tipsv2Model(arch.to_config(32)).save_pretrained(folder)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat", "a dog beside the tree"]), model_writer=model, vocab_size=64, minloglevel=2,
        hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return ModelSpec(f"tips-{size}", row=row, weights=str(folder))


def contenders(spec: ModelSpec, images: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Name -> one forward of the batch; the first is what the others are divided by."""
    depth = int(spec.row["depth"])
    everything = ImageRequest(layers=tuple(range(depth // 4 - 1, depth, depth // 4)), text_patches=True)
    eager: Any = Tipsv2Model.from_pretrained(spec.weights, attn_implementation="eager")
    eager.eval().requires_grad_(False)
    ours: dict[str, Encoder] = {b: build(ModelSpec(**{**vars(spec), "backend": b})) for b in ("torch", "jax")}
    named: dict[str, Callable[[], object]] = {"transformers, eager": lambda: eager.vision_model(images)}
    for backend, encoder in ours.items():
        named[f"ours, {backend}"] = lambda e=encoder: e.encode_image(images).patches.sum()  # type: ignore[misc]
        named[f"ours, {backend}, all taps"] = lambda e=encoder: e.encode_image(images, everything).patches.sum()  # type: ignore[misc]
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("s", "b"), default="s")
    parser.add_argument("--pixels", type=int, default=448)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    images = torch.rand(words.batch, 3, words.pixels, words.pixels)
    with tempfile.TemporaryDirectory() as folder:
        named = contenders(write_random(Path(folder), words.size), images)
        for forward in named.values():
            forward()  # compiles, allocates
        best = dict.fromkeys(named, float("inf"))
        for _ in range(words.rounds):
            for name, forward in named.items():
                start = time.perf_counter()
                forward()
                best[name] = min(best[name], time.perf_counter() - start)
    base = next(iter(best.values()))
    print(f"tips-{words.size}, {words.batch} x {words.pixels} px, {torch.get_num_threads()} thread(s), float32")
    for name, seconds in best.items():
        print(f"{name:26} {words.batch / seconds:7.2f} images/s   {base / seconds:5.2f} x")


if __name__ == "__main__":
    main()
