"""Zero-shot segmentation by sliding windows against the loop of the TIPS notebook, the encoder's forward left out.

python perf/sliding.py [--classes 150] [--rounds 5] [--device cpu]

A 512 × 683 picture of 150 classes by the preset `notebook`: windows of 448 px, stride 336. Both sides are given the
same patches; processor seconds of neighbouring rounds, medians, and how many pixels get another class.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from benchmark.contracts import ImageFeatures, ImageRequest, ImageTransform
from benchmark.images.windows import window_boxes
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from tasks.sliding import best_class, class_scores

HEIGHT, WIDTH, PATCH, DIM = 512, 683, 14, 768


class Given:
    """An encoder whose patches cost nothing."""

    def __init__(self, device: str) -> None:
        self.grid = torch.randn(1, 64, 64, DIM, device=device)
        self.transform = ImageTransform("square", 448)
        self.card = SimpleNamespace(name="given", patch_size=PATCH)

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        h, w = images.shape[2] // PATCH, images.shape[3] // PATCH
        patches = self.grid[:, :h, :w].expand(len(images), -1, -1, -1)
        return ImageFeatures(patches[:, :1, 0], patches, (), patches)


def notebook(encoder: Given, image: np.ndarray, texts: torch.Tensor, how: Any) -> torch.Tensor:
    """One window after the other, as `predict_slide` goes: [H, W] classes."""
    size = (int(how.short_side * WIDTH / HEIGHT), how.short_side)
    pixels = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    picture = torch.from_numpy(pixels).to(texts.device).permute(2, 0, 1).float()[None] / 255
    height, width = picture.shape[2:]
    total, count = picture.new_zeros(1, len(texts), height, width), picture.new_zeros(1, 1, height, width)
    for y0, x0, y1, x1 in window_boxes(height, width, how.window, how.stride):
        crop = picture[:, :, y0:y1, x0:x1]
        patches = normalize(encoder.encode_image(crop).patches, dim=-1)
        cosines = torch.einsum("cd,bhwd->bchw", texts, patches)
        scores = interpolate(cosines, crop.shape[2:], mode="bilinear", align_corners=False)
        total[:, :, y0:y1, x0:x1] += scores.softmax(1)
        count[:, :, y0:y1, x0:x1] += 1
    whole = interpolate(total / count, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return whole.argmax(1)[0]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--classes", type=int, default=150)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--device", default="cpu")
    args = words.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    task = load_task("zero_shot_segmentation")
    how: Any = load_protocol(task.name, task.schemas, protocol_file(task.name), "notebook").values
    encoder = Given(args.device)
    context: Any = SimpleNamespace(encoder=lambda: encoder, card=encoder.card, device=args.device)
    texts = normalize(torch.randn(args.classes, DIM, device=args.device), dim=-1)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    sides = {
        "notebook": lambda: notebook(encoder, image, texts, how),
        "densebench": lambda: best_class(class_scores(context, image, texts, how), HEIGHT, WIDTH)[0],
    }
    other = float((sides["notebook"]() != sides["densebench"]()).float().mean())
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, call in sides.items():
            started = time.process_time()
            call().cpu()
            spent[name].append(time.process_time() - started)
    ours, theirs = (np.median(spent[name]) for name in ("densebench", "notebook"))
    print(f"notebook {theirs:.2f} s, densebench {ours:.2f} s a picture: {ours / theirs:.2f} ×; "
          f"{100 * other:.4f} % of pixels get another class")  # fmt: skip


if __name__ == "__main__":
    main()
