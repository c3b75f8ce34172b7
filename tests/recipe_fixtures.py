"""A recipe small enough to train in a second, and a source of coloured squares for it."""

from __future__ import annotations

import colorsys
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapters.tipsv2.recipe.config import DataConfig, RecipeConfig
from adapters.tipsv2.recipe.config_file import from_table
from adapters.tipsv2.recipe.samples import Sample
from benchmark.errors import DataError
from benchmark.system.digest import fingerprint

COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")
CORNERS = ("top left", "top right", "bottom left", "bottom right")

TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "width": 16, "depth": 2, "heads": 2, "patch_size": 4, "image_size": 16, "text_depth": 1, "text_heads": 2,
        "vocab_size": 90, "max_text": 16, "init_std": 0.05,
    },
    "views": {"global_size": 16, "local_size": 8, "local_crops": 2, "flip": 0.0, "global_scale": [0.5, 1.0]},
    "head": {"prototypes": 12, "hidden": 16, "bottleneck": 8, "layers": 2},
    "optim": {"name": "adamw", "lr": 1e-3},
    "data": {"source": "recipe_fixtures:open_squares", "samples": 96},
    "train": {
        "steps": 6, "batch_size": 8, "threads": 1, "device": "cpu", "log_every": 2, "checkpoint_every": 2,
        "validate_every": 0,
    },
}  # fmt: skip


def tiny(**changes: Any) -> RecipeConfig:
    """The tiny recipe; changes are `section__key=value`."""
    table = {k: dict(v) if isinstance(v, dict) else v for k, v in TINY.items()}
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            table.setdefault(section, {})[key] = value
        else:
            table[section] = value
    return from_table(table, "tiny.toml")


def write_toml(path: Path, table: dict[str, Any]) -> Path:
    """A recipe as a file."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    for section, values in table.items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    path.write_text("\n".join(lines))
    return path


@dataclass
class Squares:
    """A coloured square in one corner; samples listed in `broken` cannot be read."""

    samples: int
    broken: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.samples

    @property
    def ids_digest(self) -> str:
        return fingerprint({"squares": self.samples})

    def load(self, index: int) -> Sample:
        if index in self.broken:
            raise DataError(f"square {index}: cannot be read")
        rng = np.random.default_rng(index)
        colour, corner = int(rng.integers(len(COLOURS))), int(rng.integers(4))
        pixels = rng.integers(0, 60, (24, 24, 3)).astype(np.uint8)
        y, x = 12 * (corner // 2), 12 * (corner % 2)
        pixels[y : y + 12, x : x + 12] = 255 * np.array(colorsys.hsv_to_rgb(colour / len(COLOURS), 1, 1))
        name = COLOURS[colour]
        return Sample(Image.fromarray(pixels), name, (f"a {name} square", f"{name} at the {CORNERS[corner]}"))

    def held_out(self, count: int) -> list[Sample]:
        return [Squares(10**9).load(10**6 + i) for i in range(count)]


@dataclass
class Silent(Squares):
    """Two samples of three lack their alt text: it is blank, or of signs that the tokeniser does not know."""

    def load(self, index: int) -> Sample:
        sample = super().load(index)
        return Sample(sample.image, (sample.alt, " ", "☃☃")[index % 3], sample.synthetic)


def open_silent(config: DataConfig) -> Silent:
    return Silent(config.samples)


def open_squares(config: DataConfig) -> Squares:
    """`data.path` lists broken samples: "3,5"."""
    return Squares(config.samples, tuple(int(i) for i in config.path.split(",") if i))
