"""`fast` linear segmentation with a ViT-S/14 at 112 px: processor seconds and peak memory beside other code's.

    python perf/fast_segmentation.py --against FOLDER [--weights dinov2-small] [--rounds 3]
    python perf/fast_segmentation.py --visbench PYTHON    # an interpreter with visbench and transformers

300 training and 150 test scenes of 64 patches and 427 sampled pixels; extraction, head and scoring, each side in turn,
each time a process of its own with an empty feature store. Without --weights (a folder of safetensors as the hub has
it) the weights are drawn: the same work, another mIoU. VisBench gets the same pictures as files, the same model by
transformers, and runs its `semantic_segmentation` as it comes (ten epochs of every pixel at 112 px).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDE = """
import sys
from pathlib import Path
from benchmark import load_encoder, load_task
encoder = load_encoder("dinov2-s", weights=Path(sys.argv[1]), device="cpu")
task = load_task("linear_segmentation/scenes", overrides={"view_size": "112"}, workers=0,
                 dataset_options={"n_train": "300", "n_test": "150"})
outcome = task.run(encoder)
print(outcome.measurements[0].statistic.of(outcome.samples), outcome.fit_s, outcome.score_s)
"""

VISBENCH = """
import sys
from functools import partial
from pathlib import Path
import numpy as np, torch, visbench
from transformers import Dinov2Model
from visbench.backbones.custom import CustomBackbone
from visbench.cache import FeatureCache
from visbench.data.dense import DenseFolderDataset, load_label_map

weights, pictures, place = map(Path, sys.argv[1:])
mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

def prepare(picture):
    pixels = (np.asarray(picture.convert("RGB").resize((112, 112), 3)) / 255 - mean) / std
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()

def features(model, pixels):
    found = model(pixels).last_hidden_state
    return found[:, 1:], found[:, 0], (8, 8)

model = Dinov2Model.from_pretrained(weights)
backbone = CustomBackbone(model, prepare, "s14", embed_dim=384, has_cls_token=True, patch_size=14,
                          feature_fn=features, image_size=112, device="cpu")
load = partial(load_label_map, ignore_index=255)
train, test = (DenseFolderDataset(pictures / s, target_dir="labels", split=s, image_size=112, target_loader=load)
               for s in ("train", "test"))
found = visbench.run(backbone, "semantic_segmentation", test, train, FeatureCache(place), device="cpu",
                     num_classes=int(sys.stdin.read()))
print(100 * found.metrics["miou"])
"""
FILES = """
import sys
from pathlib import Path
from PIL import Image
from benchmark import load_task
task = load_task("linear_segmentation/scenes", dataset_options={"n_train": "300", "n_test": "150"})
for split, data in task.data.items():
    for kind in ("images", "labels"):
        (Path(sys.argv[1]) / split / kind).mkdir(parents=True)
    for i in range(len(data)):
        name = f"{i:04}.png"
        Image.fromarray(data.images.load(i)).save(Path(sys.argv[1]) / split / "images" / name)
        Image.fromarray(data.target(i)).save(Path(sys.argv[1]) / split / "labels" / name)
print(len(data.class_names))
"""


def drawn(folder: Path) -> Path:
    """A checkpoint of DINOv2-S with drawn weights."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


def run(words: list[str], environment: dict[str, str], said: str = "") -> tuple[float, float, str]:
    """Processor seconds and peak resident MB of a command on one thread, and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    child = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(said)
    child.stdin.close()
    printed = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{words[0]}: the run failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, printed.strip()


class Sides:
    """Whose code runs, and what it runs on: weights and pictures, made once below `place`."""

    def __init__(self, place: Path, weights: Path | None) -> None:
        self.weights = weights or drawn(place / "weights")
        self.scenes, self.files = place / "scenes", place / "files"
        self.scenes.mkdir()
        self.classes = ""

    def checkout(self, folder: str) -> tuple[float, float, str]:
        """Of densebench as it is in `folder`."""
        with tempfile.TemporaryDirectory() as cache:
            (Path(cache) / "scenes").symlink_to(self.scenes)  # rendering is another line of docs/speed.md
            words = [sys.executable, "-P", "-c", SIDE, str(self.weights)]
            return run(words, {"PYTHONPATH": folder, "BENCH_CACHE": cache})

    def visbench(self, python: str) -> tuple[float, float, str]:
        """Of VisBench, by the interpreter `python`."""
        if not self.classes:
            words = [sys.executable, "-P", "-c", FILES, str(self.files)]
            self.classes = run(words, {"PYTHONPATH": str(ROOT), "BENCH_CACHE": str(self.scenes.parent)})[2]
        with tempfile.TemporaryDirectory() as cache:
            return run([python, "-P", "-c", VISBENCH, str(self.weights), str(self.files), cache], {}, self.classes)


def main() -> None:
    """Prints a line for each side, then medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="the folder of another checkout")
    parser.add_argument("--visbench", metavar="PYTHON", help="an interpreter that has VisBench and transformers")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        of = Sides(Path(place), words.weights)
        asked = {str(ROOT): partial(of.checkout, str(ROOT))}
        if words.against:
            asked[words.against] = partial(of.checkout, words.against)
        if words.visbench:
            asked["VisBench"] = partial(of.visbench, words.visbench)
        for one in asked.values():  # renders, and warms the disk
            one()
        found = [[one() for one in asked.values()] for _ in range(words.rounds)]
    sides = dict(zip(asked, zip(*found), strict=True))
    for name, column in sides.items():
        seconds, memory, said = zip(*column)
        print(f"{name}: {statistics.median(seconds):.1f} s, {max(memory):.0f} MB; mIoU, fit, scoring: {said[-1]}")
        if name != str(ROOT):
            ratios = ([a / b for a, b in zip(ours[:2], theirs[:2])] for ours, theirs in zip(sides[str(ROOT)], column))
            print("  time and memory over it:", *(f"{statistics.median(r):.2f} ×" for r in zip(*ratios)))


if __name__ == "__main__":
    main()
