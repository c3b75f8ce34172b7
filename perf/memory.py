"""Peak resident memory: of the nine tasks as pictures grow, and of the main job over another checkout's.

    python perf/memory.py [--task WORD ...]     # each task on scenes at 1 ×, 4 × and 16 × the pictures
    python perf/memory.py --against FOLDER      # `bench run`, nothing cached but the rendered scenes, both in turn

Every run is a process of its own with an empty feature store. The encoder of the first form is a few lines, so that
what grows is what densebench holds; 1 × are 250 training and 31 test scenes, a sixteenth of all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SPLITS = {"n_train": 4000, "n_test": 500, "n_labels_train": 1200, "n_labels_test": 600, "n_retrieval": 720}
TASKS = ("zero_shot_segmentation", "image_to_text_retrieval", "text_to_image_retrieval", "zero_shot_classification",
         "linear_segmentation", "depth", "normals", "classification", "instance_retrieval")  # fmt: skip

ENCODER = """
import json, sys
import torch
from benchmark.contracts import EncoderCard, ImageFeatures, ImageRequest, ImageTransform, LayerFeatures, WeightsInfo
from benchmark.engine.load_task import load_task

class Tiny:
    card = EncoderCard("tiny", "test", "torch", 64, 8, 96, 1, 1, True, WeightsInfo("test", "0" * 64), "Apache-2.0",
                       text_dim=64, has_text_patches=True)
    transform = ImageTransform("square", 96)
    weight = torch.randn(192, 64, generator=torch.Generator().manual_seed(0)) / 14

    def encode_image(self, images, request=ImageRequest()):
        tokens = torch.nn.functional.unfold(images, 8, stride=8).mT @ self.weight
        patches = tokens.view(len(images), 12, 12, 64)
        cls = patches.mean((1, 2))[:, None]
        layers = tuple(LayerFeatures(cls, patches) for _ in request.layers)
        return ImageFeatures(cls, patches, layers, patches if request.text_patches else None)

    def encode_text(self, texts):
        rows = [torch.randn(64, generator=torch.Generator().manual_seed(sum(t.encode()))) for t in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)

load_task(sys.argv[1] + "/scenes", dataset_options=json.loads(sys.argv[2]), workers=0).evaluate(Tiny())
"""


def peak(words: list[str], checkout: str, scenes: Path) -> float:
    """MB of one process that runs `words`."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "scenes").symlink_to(scenes)
        environment = {**os.environ, "PYTHONPATH": checkout, "BENCH_CACHE": place, "OMP_NUM_THREADS": "1"}
        said_where = ["--results", f"{place}/rows"] if words[1] == "-m" else []
        child = subprocess.Popen(
            [*words, *said_where], cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert child.stderr is not None
        said = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        if status:
            sys.exit(said.decode())
    return used.ru_maxrss / 1024


def main() -> None:
    """Prints a line for each task, or one for the main job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", default=TASKS)
    parser.add_argument("--against", help="the folder of another checkout")
    parser.add_argument("--scenes", type=Path, help="rendered scenes of an earlier run: the folder `scenes` of a cache")
    words = parser.parse_args()
    here = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as place:
        scenes = words.scenes or Path(place)
        if words.against:
            job = [sys.executable, "-m", "benchmark.cli", "run"]
            ours, theirs = (peak(job, checkout, scenes) for checkout in (here, words.against))
            print(f"the main job: {ours:.0f} MB and {theirs:.0f} MB: {ours / theirs:.2f} ×")
            return
        for task in words.task:
            found = []
            for times in (1, 4, 16):
                options = {name: str(n * times // 16) for name, n in SPLITS.items()}
                found.append(peak([sys.executable, "-c", ENCODER, task, json.dumps(options)], here, scenes))
            shown = ", ".join(f"{mb:.0f}" for mb in found)
            print(f"{task:24} {shown} MB: {found[-1] / found[0]:.2f} ×", flush=True)


if __name__ == "__main__":
    main()
