"""A task of real photographs that every installation has: places in scikit-learn's two pictures (CC BY), seen twice.

    python examples/real_vit/places.py data/places
    bench run --model random-vit --model pixels --task data/places/places.toml

The second view is shifted, mirrored, darker and warmer: colour and position do not find it, what is seen does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

SHIFT, BETWEEN = 16, 6  # pixels
TASK = 'task = "instance_retrieval"\nname = "places"\nimages = "pictures"\nlabels = "labels.csv"\n'


def write(folder: Path, side: int = 120) -> Path:
    """Pictures of places of `side` pixels, 30 at 120, and their task; returns the task's file."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = ["image,label"]
    for number, photo in enumerate(load_sample_images().images):
        for top in range(0, photo.shape[0] - side, side + BETWEEN):
            for left in range(0, photo.shape[1] - side, side + BETWEEN):
                place = photo[top : top + side, left : left + side]
                again = 255 * (place[SHIFT:, SHIFT:][:, ::-1] / 255) ** 1.3 * [1.0, 0.9, 0.8]
                for view, picture in (("a", place[:-SHIFT, :-SHIFT]), ("b", again.astype(np.uint8))):
                    name = f"{number}-{top}-{left}"
                    Image.fromarray(picture).save(folder / "pictures" / f"{name}-{view}.png")
                    lines.append(f"{name}-{view}.png,{name}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "places.toml").write_text(TASK)
    return folder / "places.toml"


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
