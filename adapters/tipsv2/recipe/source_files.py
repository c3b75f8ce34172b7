"""A folder of pictures with captions.jsonl as a source, and what every source of files makes of a row."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.samples import Sample
from benchmark.errors import DataError
from benchmark.images.decode import decode_image
from benchmark.system.digest import fingerprint
from benchmark.system.texts import json_lines

CAPTIONS = "captions.jsonl"


def sample_from(image: Any, row: Mapping[str, Any], config: DataConfig, where: str) -> Sample:
    """A Sample from encoded bytes (or a path) and a row of captions. Raises DataError naming `where`.

    A synthetic column may hold one caption or a list of them; empty ones are left out. An alt text
    may be null, or its key missing: JSON objects need not be alike. Tables look for their columns when they are opened.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: the captions are {type(row).__name__}. Write a JSON object with {config.alt!r}")
    for column in config.synthetic:
        if column not in row:
            found = ", ".join(map(repr, row)) or "none"
            only = ' (captions of .txt alone: --set data.alt=txt --set "data.synthetic=[]")' if "txt" in row else ""
            raise DataError(f"{where}: no column {column!r}; there are {found}. Set data.alt, data.synthetic{only}")
    synthetic: list[tuple[str, ...]] = []
    for column in config.synthetic:
        value = row[column]
        several = value if isinstance(value, (list, tuple)) else [value]
        synthetic.append(tuple(text for text in (_caption(v, column, where) for v in several) if text))
    return Sample(picture(image, where), _caption(row.get(config.alt), config.alt, where), tuple(synthetic))


def _caption(value: Any, column: str, where: str) -> str:
    if value is not None and not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: column {column!r} holds {type(value).__name__}, not one caption. Write a text there")
    return "" if value is None else str(value)


def picture(image: Any, where: str) -> Image.Image:
    """An RGB Pillow image from a path, bytes or a decoded image; the error names `where`."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if not isinstance(image, (str, Path, bytes)):
        raise DataError(f"{where}: no picture, but {type(image).__name__}. Give its encoded bytes or its path")
    try:
        return decode_image(image)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


@dataclass
class FolderSource:
    """Pictures named by the lines of `root`/captions.jsonl."""

    root: Path
    rows: list[dict[str, Any]]
    lines: list[int]  # where each row stands in the file
    config: DataConfig

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Sample:
        row = self.rows[index]
        where = f"{self.root / CAPTIONS}:{self.lines[index]}"
        if self.config.image not in row:
            found = ", ".join(map(repr, row))
            raise DataError(f"{where}: no column {self.config.image!r}; there are {found}. Set data.image")
        return sample_from(self.root / str(row[self.config.image]), row, self.config, where)

    @property
    def ids_digest(self) -> str:
        """Over the pictures' names as the lines say them, whole paths below `root` without it: a folder may move."""
        root = f"{self.root.absolute()}{os.sep}"
        names = [str(row.get(self.config.image)).removeprefix(root) for row in self.rows]
        return fingerprint(names)

    def held_out(self, count: int) -> list[Sample]:
        return []


def open_folder(config: DataConfig) -> FolderSource:
    """The folder `data.path`. Raises DataError when captions.jsonl is missing or a line is no JSON object."""
    root = Path(config.path)
    file = root / CAPTIONS
    if not file.is_file():
        raise DataError(
            f"{file}: missing (data.path = {config.path!r}). Set data.path to a folder that holds pictures and"
            f" {CAPTIONS}, one JSON object a line"
        )
    numbers, rows = [], []
    for number, row in itertools.islice(json_lines(file), config.samples or None):
        numbers.append(number)
        rows.append(row)
    return FolderSource(root, rows, numbers, config)
