"""Tiny data sets in the exact layouts their owners ship: directory names, file formats, fields and oddities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

VOC_PALETTE = [v for i in range(256) for v in ((i * 37) % 256, (i * 91) % 256, (i * 151) % 256)]


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """[H, W, 3] uint8: a smooth gradient with a patch, different for every seed."""
    rng = np.random.default_rng(seed)
    ramp = (
        np.linspace(0, 1, height)[:, None, None] * rng.integers(60, 200, 3) + np.linspace(0, 50, width)[None, :, None]
    )
    image = ramp.astype(np.uint8)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    image[top : top + height // 3, left : left + width // 3] = rng.integers(0, 255, 3)
    return image


def save_jpeg(path: Path, seed: int, height: int = 24, width: int = 32, mode: str = "RGB") -> Path:
    """A JPEG in RGB, grey ("L") or "CMYK"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, height, width)).convert(mode).save(path, "JPEG", quality=95)
    return path


def save_png(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """A mask or depth PNG: 8-bit grey or palette, or 16-bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(VOC_PALETTE)
    image.save(path)
    return path


def mask(seed: int, classes: int, height: int = 24, width: int = 32) -> np.ndarray:
    """[H, W] uint8 in blocks of 4 px, values 0 … classes-1."""
    blocks = np.random.default_rng(seed).integers(0, classes, ((height + 3) // 4, (width + 3) // 4))
    return np.kron(blocks, np.ones((4, 4), int))[:height, :width].astype(np.uint8)


def ade20k(data: Path, train: int = 4, test: int = 3) -> Path:
    """`ADEChallengeData2016`: labels 0 (other) … 150 in grey PNGs."""
    root = data / "ade20k" / "ADEChallengeData2016"
    for folder, word, count in (("training", "train", train), ("validation", "val", test)):
        for i in range(count):
            name = f"ADE_{word}_{i + 1:08d}"
            save_jpeg(root / "images" / folder / f"{name}.jpg", i, 24 + 4 * i, 32)
            save_png(root / "annotations" / folder / f"{name}.png", mask(i, 151, 24 + 4 * i, 32))
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    (root / "sceneCategories.txt").write_text("ADE_train_00000001 airport_terminal\n")
    return root


def voc2012(data: Path, train: int = 3, test: int = 2, augmented: int = 2) -> Path:
    """`VOCdevkit/VOC2012` with palette PNGs and their 255 border; SBD's `.mat` masks beside it."""
    from scipy.io import savemat

    root = data / "voc2012" / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = {"train": [f"2007_{i:06d}" for i in range(train)], "val": [f"2008_{i:06d}" for i in range(test)]}
    extra = [f"2009_{i:06d}" for i in range(augmented)]
    for word, group in names.items():
        (lists / f"{word}.txt").write_text("".join(f"{n}\n" for n in group))
        for n in group:
            labels = mask(int(n[-6:]), 21)
            labels[0] = labels[-1] = labels[:, 0] = labels[:, -1] = 255
            save_png(root / "SegmentationClass" / f"{n}.png", labels, palette=True)
    for i, n in enumerate([*names["train"], *names["val"], *extra]):
        save_jpeg(root / "JPEGImages" / f"{n}.jpg", i)
    sbd = data / "voc2012" / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    for n in [*extra, names["val"][0]]:
        record = np.zeros((1, 1), dtype=[("Boundaries", "O"), ("Segmentation", "O"), ("CategoriesPresent", "O")])
        record["Segmentation"][0, 0] = mask(int(n[-6:]) + 50, 21)
        savemat(sbd / "cls" / f"{n}.mat", {"GTcls": record})
    (sbd / "train.txt").write_text("".join(f"{n}\n" for n in extra))
    (sbd / "val.txt").write_text(f"{names['val'][0]}\n")
    return root


def pascal_context(data: Path, count: int = 3, raw: bool = False) -> Path:
    """`VOCdevkit/VOC2010` with mmsegmentation's masks, or the authors' 459-label `trainval/*.mat` (`raw`)."""
    from scipy.io import savemat

    root = data / "pascal_context" / "VOCdevkit" / "VOC2010"
    names = [f"2008_{i:06d}" for i in range(count)]
    listing = root / "ImageSets" / ("Main" if raw else "SegmentationContext") / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("".join(f"{n}\n" for n in names))
    for i, n in enumerate(names):
        save_jpeg(root / "JPEGImages" / f"{n}.jpg", i)
        if raw:
            labels = np.kron(np.array([[2, 9], [1, 458]]), np.ones((12, 16))).astype(np.uint16)
            (data / "pascal_context" / "trainval").mkdir(exist_ok=True)
            savemat(data / "pascal_context" / "trainval" / f"{n}.mat", {"LabelMap": labels})
        else:
            save_png(root / "SegmentationClassContext" / f"{n}.png", mask(i, 60))
    return root
