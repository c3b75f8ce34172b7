"""Real photographs for two tasks of one's own: cut-out animals, fruit, plants and vehicles on photographs of places.

    apt install tuxpaint-stamps-default && python examples/my_task/stamps.py

The stamps (Debian, GPL-2, each with an alpha mask) and scikit-learn's two pictures (CC BY) are read where they are
installed; what is pasted together goes to data/stamps beside this file.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

STAMPS = Path("/usr/share/tuxpaint/stamps")
DRAWN = {"cartoon", "toys", "plastic", "dinosaur"}
FOLDERS = {  # class -> folders of photographs
    "bird": ("animals/birds",),
    "fish": ("animals/fish", "animals/mammals/aquatic", "animals/shellfish"),
    "insect": ("animals/insects",),
    "mammal": ("animals/mammals", "animals/marsupials"),
    "fruit": ("food/fruit", "food/vegetables", "food/nuts"),
    "plant": ("plants",),
    "vehicle": ("vehicles",),
}
SIDE = 224  # pixels


def photographs() -> list[tuple[str, Path]]:
    """(class, file) of every stamp that is a photograph, in a fixed order."""
    found: dict[Path, str] = {}
    for name, folders in FOLDERS.items():
        for folder in folders:
            for path in sorted((STAMPS / folder).rglob("*.png")):
                if not DRAWN & set(path.relative_to(STAMPS).parts):
                    found.setdefault(path, name)
    return [(name, path) for path, name in found.items()]


def paste(picture: Image.Image, path: Path, box: tuple[int, int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Puts the stamp somewhere in `box` (left, top, width, height), at random scale and side; returns its mask."""
    stamp = Image.open(path).convert("RGBA")
    if rng.random() < 0.5:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    left, top, width, height = box
    scale = min(width / stamp.width, height / stamp.height) * rng.uniform(0.6, 1.0)
    stamp = stamp.resize((max(8, int(stamp.width * scale)), max(8, int(stamp.height * scale))))
    at = (left + int(rng.integers(0, width - stamp.width + 1)), top + int(rng.integers(0, height - stamp.height + 1)))
    picture.paste(stamp, at, stamp)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[at[1] : at[1] + stamp.height, at[0] : at[0] + stamp.width] = np.asarray(stamp)[..., 3] > 128
    return mask


def place(rng: np.random.Generator, places: list[np.ndarray]) -> Image.Image:
    """A random square of one of the two photographs."""
    photo = places[int(rng.integers(len(places)))]
    side = int(rng.integers(160, photo.shape[0]))
    top, left = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
    return Image.fromarray(photo[top : top + side, left : left + side]).resize((SIDE, SIDE))


def main(folder: Path = Path(__file__).parent / "data/stamps") -> None:
    stamps, places = photographs(), load_sample_images().images
    if not stamps:
        raise SystemExit(f"no stamps in {STAMPS}: apt install tuxpaint-stamps-default")
    names = ["background", *FOLDERS]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(stamps))
    parts = {"test": order[: len(order) // 4], "train": order[len(order) // 4 :]}  # a stamp is in one part alone
    for part, members in parts.items():
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
        for i, pair in enumerate(np.concatenate([rng.permutation(members) for _ in range(4)])[:-1:2]):
            picture, mask = place(rng, places), np.zeros((SIDE, SIDE), np.uint8)
            for stamp, left in ((pair, 0), (rng.choice(members), SIDE // 2)):
                name, path = stamps[stamp]
                mask[paste(picture, path, (left, 0, SIDE // 2, SIDE), rng)] = names.index(name)
            picture.save(folder / part / "images" / f"{i}.jpg", quality=92)
            Image.fromarray(mask).save(folder / part / "masks" / f"{i}.png")
    (folder / "retrieval").mkdir(exist_ok=True)
    with (folder / "retrieval.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "domain"])
        for number, (name, path) in enumerate(stamps):
            for view in range(2):
                picture = place(rng, places)
                paste(picture, path, (0, 0, SIDE, SIDE), rng)
                picture.save(folder / "retrieval" / f"{number}-{view}.jpg", quality=92)
                table.writerow([f"{number}-{view}.jpg", path.relative_to(STAMPS).with_suffix(""), name])
    print(f"{len(stamps)} stamps: {folder}")


if __name__ == "__main__":
    main()
