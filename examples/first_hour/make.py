"""What the tutorials are tried on, small and made up: python examples/first_hour/make.py FOLDER

my_task.toml and kinds, rooms, album, pairs: tasks of one's own with their data, and my_suite.toml, two of them;
my_checkpoint/: a ViT of transformers with random weights; my_encoder.py: an encoder as code;
runs/today/step-100 and step-200: a training run's checkpoints of tipsv2-mini, the second with noise on its weights.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import adapters

MINI = Path(adapters.__file__).parent / "weights" / "tipsv2-mini"
NOISE = 3.0  # of a weight's own spread, on step-200
TASKS = {
    "my_task.toml": """task = "linear_segmentation"
name = "my-fruit"
classes = ["ground", "leaf", "apple"]

[train]
images = "data/segmentation/train/images"
masks = "data/segmentation/train/masks"

[test]
images = "data/segmentation/test/images"
masks = "data/segmentation/test/masks"

[protocol]  # the tutorials in seconds; leave it out
pixels_at_most = 64
penalties = [1e-2, 1e-4]
""",
    "rooms.toml": """task = "depth"
name = "my-rooms"
depth_scale = 0.001
split = { test = 0.5 }
images = "data/geometry/images"
depth = "data/geometry/depth"
""",
    "kinds.toml": """task = "classification"
name = "my-kinds"

[train]
images = "data/classification/train"

[test]
images = "data/classification/test"
""",
    "album.toml": """task = "image_to_text_retrieval"
name = "my-album"
images = "data/captions/images"
captions = "data/captions/captions.jsonl"
""",
    "pairs.toml": """task = "correspondence"
name = "my-apples"

[test]
images = "data/pairs/images"
pairs = "data/pairs/pairs.csv"
""",
    "my_suite.toml": """title = "What my encoder is for"
tasks = [
    "my_task.toml",
    { task = "kinds.toml", tolerance = 5 },
]
""",
}
ENCODER = '''"""An encoder as code: the mean colour of every 8 x 8 pixels, brighter and darker than its picture."""

from hashlib import sha256

import torch
from torch.nn.functional import avg_pool2d

from benchmark import EncoderCard, ImageFeatures, ImageTransform, WeightsInfo


class Colours:
    card = EncoderCard(
        name="colours", family="own", backend="torch", embed_dim=6, patch_size=8, image_size=64, depth=0, num_cls=1,
        has_text=False, weights=WeightsInfo("none", sha256(b"colours 1").hexdigest()), licence="MIT",
    )
    transform = ImageTransform("square", 64)

    def encode_image(self, images, request):
        colours = avg_pool2d(images, 8)  # [B, 3, h, w]
        bright = colours - colours.mean((2, 3), keepdim=True)
        patches = torch.cat([colours, bright], 1).permute(0, 2, 3, 1)
        return ImageFeatures(cls=patches.mean((1, 2))[:, None], patches=patches)


def build(spec):
    return Colours()
'''


def checkpoint(folder: Path) -> None:
    """A ViT of transformers with random weights, as `save_pretrained` writes it."""
    import torch
    from safetensors.torch import save_model
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=3, intermediate_size=192, image_size=64, patch_size=8,
        architectures=["ViTModel"],
    )  # fmt: skip
    config.save_pretrained(folder)
    save_model(ViTModel(config, add_pooling_layer=False), str(folder / "model.safetensors"), {"format": "pt"})
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)


def run(folder: Path) -> None:
    """Two checkpoints of tipsv2-mini: its own weights, and those with noise on them."""
    weights, rng = load_file(MINI / "model.safetensors"), np.random.default_rng(0)
    spread = {name: NOISE * w.std() * rng.standard_normal(w.shape) for name, w in weights.items()}
    noisy = {name: np.asarray(w + spread[name], w.dtype) for name, w in weights.items()}
    for step, state in ((100, weights), (200, noisy)):
        place = folder / f"step-{step}"
        place.mkdir(parents=True)
        for file in MINI.iterdir():
            if file.suffix != ".safetensors" and file.is_file():
                shutil.copy(file, place)
        save_file(state, place / "model.safetensors", metadata={"format": "pt"})


def main(folder: Path) -> None:
    """Writes all of it into `folder`."""
    data = runpy.run_path(str(Path(__file__).parents[1] / "my_task" / "make_data.py"))
    data["main"](folder / "data", train=24, test=24)
    for name, text in TASKS.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "my_encoder.py").write_text(ENCODER, encoding="utf-8")
    checkpoint(folder / "my_checkpoint")
    run(folder / "runs" / "today")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
    print(f"cd {sys.argv[1]}")
