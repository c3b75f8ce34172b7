"""A JPEG of 640 × 427 pixels on its way to a 224 px encoder: milliseconds of processor time, one core.

    python perf/decode.py [--against FOLDER] [--size 640x427]

Ours is what a decoding worker does (to [3, 224, 224] in 8 bits), here and in another checkout; timm's
is `timm.data.create_transform` with Pillow, which ends in normalised floats. In turn, each in a process of its own.
Printed too: how many pixels differ from Pillow's own resize and crop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

OURS = """
import sys, time
from dataclasses import replace
import numpy as np
from pathlib import Path
from benchmark.contracts import ImageTransform
try:
    from benchmark.images.views import ResolvedView
except ImportError:
    from benchmark.views import ResolvedView
from benchmark.features.extract import _Decoder
from tasks.datasets.blobs import FileBlobs
from tasks.datasets.kinds import Pictures

transform = ImageTransform("short-side", 224, 224, interpolation="bicubic")
if hasattr(transform, "rounding"):
    transform = replace(transform, rounding="even")
path = Path(sys.argv[1])
worker = _Decoder(Pictures(FileBlobs(str(path.parent), (path.name,))), ResolvedView(transform), [[0]])
def make(): return worker[0].pixels[0]
def pixels(): return make().transpose(1, 2, 0)
"""

TIMM = """
import sys, time
import numpy as np
from PIL import Image
from timm.data.transforms_factory import create_transform
whole = create_transform((3, 224, 224), interpolation="bicubic", crop_pct=1.0, crop_mode="center")
def make(): return whole(Image.open(sys.argv[1]).convert("RGB"))
def pixels():
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return np.rint((make().permute(1, 2, 0).numpy() * std + mean) * 255).astype(np.uint8)
"""

SERVE = """
np.save(sys.argv[2], pixels())
for line in sys.stdin:
    start = time.process_time()
    for _ in range(int(line)):
        make()
    print((time.process_time() - start) / int(line) * 1e3, flush=True)
"""


def photograph(path: Path, width: int, height: int) -> None:
    """Smooth colours with grain, as large in bytes as a photograph."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (30, 45, 3)).astype(np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    grain = rng.normal(0, 6, smooth.shape)
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def expected(path: Path) -> np.ndarray:
    """Pillow's own resize of the short side, and torchvision's centre crop."""
    with Image.open(path) as image:
        w, h = image.size
        w, h = (224, int(224 * h / w)) if w <= h else (int(224 * w / h), 224)
        left, top = round((w - 224) / 2), round((h - 224) / 2)
        resized = image.convert("RGB").resize((w, h), Image.Resampling.BICUBIC)
        return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def main() -> None:
    """Prints a line for each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="the folder of another checkout")
    parser.add_argument("--size", default="640x427")
    parser.add_argument("--timm", default=sys.executable, help="the Python that timm and torchvision are installed for")
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    here = str(Path(__file__).resolve().parents[1])
    sides = {"densebench": (OURS, here), "timm": (TIMM, here)}
    if words.against:
        sides["the other checkout"] = (OURS, words.against)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.jpg"
        photograph(path, *map(int, words.size.split("x")))
        processes = []
        for number, (code, folder) in enumerate(sides.values()):
            given = [
                words.timm if code == TIMM else sys.executable,
                "-c",
                code + SERVE,
                str(path),
                f"{place}/{number}.npy",
            ]
            environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(given, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE,
                                              stdout=subprocess.PIPE))  # fmt: skip

        def ask(process: subprocess.Popen[str]) -> float:
            print(20, file=process.stdin, flush=True)
            assert process.stdout is not None
            return float(process.stdout.readline())

        found = [[ask(process) for process in processes] for _ in range(words.rounds)]
        for process in processes:
            process.communicate()
        right = expected(path)
        for number, name in enumerate(sides):
            ratio = statistics.median(row[0] / row[number] for row in found)
            wrong = int((np.load(f"{place}/{number}.npy") != right).any(-1).sum())
            least = min(row[number] for row in found)
            print(f"{name}: {least:.2f} ms, ours over it {ratio:.2f} ×, pixels other than Pillow's {wrong}")


if __name__ == "__main__":
    main()
