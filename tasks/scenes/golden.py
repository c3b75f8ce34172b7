"""Pinned digests of a few scenes (golden.toml): what the renderer of this version must give on every machine."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

from benchmark.system.digest import fingerprint
from tasks.scenes.render import Scene, render
from tasks.scenes.tables import read_table

GOLDEN_SCENES: dict[str, dict[str, str]] = read_table("golden.toml")
GOLDEN: str = fingerprint(GOLDEN_SCENES)  # changes whenever the pictures are meant to change


def scene_digests(scene: Scene) -> dict[str, str]:
    """sha256 of each of a scene's arrays (C order, little endian) and of its captions."""
    arrays: dict[str, Any] = {
        "rgb": scene.rgb,
        "semantic": scene.semantic,
        "instance": scene.instance,
        "depth": scene.depth.astype("<f4"),
        "normals": scene.normals.astype("<f4"),
    }
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    text = "\n".join((scene.alt, scene.short, scene.long))
    return digests | {"captions": hashlib.sha256(text.encode()).hexdigest()}


def measure(names: list[str]) -> dict[str, dict[str, str]]:
    """Digests of scenes named "split/index/size" as this machine renders them."""
    found = {}
    for name in names:
        split, index, size = name.split("/")
        found[name] = scene_digests(render(0, int(index), int(size), split=split))
    return found


def to_toml(digests: dict[str, dict[str, str]]) -> str:
    """The text of golden.toml."""
    lines = ["# sha256 of scenes by split/index/size; written by `python -m tasks.scenes.golden` after a meant change."]
    for name, row in digests.items():
        lines += [f'\n["{name}"]', *(f'{key} = "{value}"' for key, value in row.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = resources.files("tasks.scenes").joinpath("golden.toml")
    with open(str(path), "w", encoding="utf-8") as f:
        f.write(to_toml(measure(list(GOLDEN_SCENES))))
