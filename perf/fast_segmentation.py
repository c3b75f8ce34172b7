"""`fast` linear segmentation with a ViT-S/14 at 112 px: processor seconds and peak memory over another checkout's.

    python perf/fast_segmentation.py --against FOLDER [--weights dinov2-small] [--rounds 3]

300 training and 150 test scenes of 64 patches and 427 sampled pixels; extraction, head and scoring, each side in turn,
each time a process of its own with an empty feature store. Without --weights (a folder of safetensors as the hub has
it) the weights are drawn: the same work, another mIoU. VisBench 0.27 took 82 s and 587 MB for these pictures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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


def drawn(folder: Path) -> Path:
    """A checkpoint of DINOv2-S with drawn weights."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


def side(checkout: str, weights: Path, scenes: Path) -> tuple[float, float, str]:
    """Processor seconds, peak resident MB and what the run printed."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "scenes").symlink_to(scenes)  # rendering is another line of docs/speed.md
        words = [sys.executable, "-c", SIDE, str(weights)]
        environment = {**os.environ, "PYTHONPATH": checkout, "BENCH_CACHE": place, "OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(words, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{checkout}: the run failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, said.strip()


def main() -> None:
    """Prints a line for each run, then medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="the folder of another checkout")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    checkouts = [str(Path(__file__).resolve().parents[1]), *filter(None, [words.against])]
    with tempfile.TemporaryDirectory() as place:
        weights = words.weights or drawn(Path(place) / "weights")
        scenes = Path(place) / "scenes"
        scenes.mkdir()
        for checkout in checkouts:  # renders
            side(checkout, weights, scenes)
        found = [[side(checkout, weights, scenes) for checkout in checkouts] for _ in range(words.rounds)]
    for column, checkout in zip(zip(*found), checkouts):
        seconds, memory, said = zip(*column)
        print(f"{checkout}: {statistics.median(seconds):.1f} s, {max(memory):.0f} MB; mIoU, fit, scoring: {said[-1]}")
    if words.against:
        ratios = [[ours / theirs for ours, theirs in zip(*(pair[:2] for pair in row))] for row in found]
        print("time and memory over it:", *(f"{statistics.median(r):.2f} ×" for r in zip(*ratios)))


if __name__ == "__main__":
    main()
