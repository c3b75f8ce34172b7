"""Writes small stand-in data for the nine TOML files beside this one: python examples/my_task/make_data.py"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 64
COLOURS = np.array([[120, 90, 60], [50, 140, 50], [200, 40, 40]])  # ground, leaf, apple


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(picture [64, 64, 3], classes [64, 64]): noisy ground, a leaf band, an apple."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    classes = np.where(y < rng.integers(15, 35), 1, 0)
    classes[(y - rng.integers(20, 44)) ** 2 + (x - rng.integers(12, 52)) ** 2 < rng.integers(6, 12) ** 2] = 2
    picture = COLOURS[classes] + rng.normal(0, 12, (SIZE, SIZE, 3))
    return picture.clip(0, 255).astype(np.uint8), classes.astype(np.uint8)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def main(folder: Path, train: int = 24, test: int = 8) -> None:
    """Makes `folder`/{segmentation,geometry,classification,captions,retrieval,pairs}."""
    for split, seeds in (("train", range(train)), ("test", range(1000, 1000 + test))):
        for i in seeds:
            picture, classes = scene(i)
            save(folder / f"segmentation/{split}/images/{i}.jpg", picture)
            save(folder / f"segmentation/{split}/masks/{i}.png", classes)
            name = ("leaf", "apple")[i % 2]
            plain = np.clip(COLOURS[1 + i % 2] + np.random.default_rng(i).normal(0, 20, (SIZE, SIZE, 3)), 0, 255)
            save(folder / f"classification/{split}/{name}/{i}.jpg", plain.astype(np.uint8))
    tests = range(1000, 1000 + test)
    table = [f"{('leaf', 'apple')[i % 2]}/{i}.jpg,{('leaf', 'apple')[i % 2]}" for i in tests]
    (folder / "classification/test.csv").write_text("image,label\n" + "\n".join(table) + "\n")
    geometry(folder / "geometry", train)
    captions_and_instances(folder, test)
    pairs(folder / "pairs", test)


def geometry(folder: Path, count: int) -> None:
    """Tilted planes: depth in millimetres, normals as RGB, and the two lists."""
    for i in range(count):
        tilt = (i % 5 - 2) * 0.1
        depth = 2000 + 400 * tilt * np.linspace(-1, 1, SIZE)[None] * np.ones((SIZE, 1))
        normal = np.array([tilt, 0, -1]) / np.hypot(tilt, 1)
        save(folder / f"images/{i}.jpg", scene(i)[0])
        save(folder / f"depth/{i}.png", depth.astype(np.uint16))
        save(folder / f"normals/{i}.png", np.full((SIZE, SIZE, 3), (normal + 1) * 127.5).round().astype(np.uint8))
    (folder / "train.txt").write_text("".join(f"{i}.jpg\n" for i in range(count) if i % 4))
    (folder / "test.txt").write_text("".join(f"{i}.jpg\n" for i in range(0, count, 4)))


def captions_and_instances(folder: Path, count: int) -> None:
    """Two captions a picture; two pictures an instance."""
    rows, labels = [], ["image,label,domain"]
    for i in range(count):
        save(folder / f"captions/images/{i}.jpg", scene(i)[0])
        rows.append({"image": f"{i}.jpg", "captions": [f"orchard number {i}", f"an apple before leaf band {i}"]})
        for view in range(2):
            picture = np.roll(scene(i)[0], 5 * view, axis=1)
            save(folder / f"retrieval/images/{i}_{view}.jpg", picture)
            labels.append(f"{i}_{view}.jpg,{i},{'orchard' if i % 2 else 'garden'}")
    (folder / "captions/captions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "retrieval/labels.csv").write_text("\n".join(labels) + "\n")


def pairs(folder: Path, count: int) -> None:
    """The same apple before other leaves, shifted: its middle and its top are marked in both."""
    rows = ["source,target,source_x,source_y,target_x,target_y,category,extent"]
    for i in range(count):
        picture, classes = scene(i)
        save(folder / f"images/{i}_a.jpg", picture)
        save(folder / f"images/{i}_b.jpg", np.roll(picture, 6, axis=1))
        y, x = np.nonzero(classes == 2)
        for row in (y.mean(), y.min()):
            place = f"{x.mean():.1f},{row:.1f},{(x.mean() + 6) % SIZE:.1f},{row:.1f}"
            rows.append(f"{i}_a.jpg,{i}_b.jpg,{place},apple,{y.max() - y.min() + 1}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / "data")
    print(f"written to {Path(__file__).parent / 'data'}")
