"""Sources in files: a folder with captions.jsonl, and tar shards whose members share a stem."""

from __future__ import annotations

import glob
import itertools
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.samples import Sample
from benchmark.data.hidden import is_hidden
from benchmark.errors import DataError
from benchmark.images.decode import decode
from benchmark.system.texts import json_lines

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
CAPTIONS = "captions.jsonl"


def sample_from(image: Any, row: Mapping[str, Any], config: DataConfig, where: str) -> Sample:
    """A Sample from encoded bytes (or a path) and a row of captions. Raises DataError naming `where`.

    A synthetic column may hold one caption or a list of them; empty ones are left out. An alt text
    may be null.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: the captions are {type(row).__name__}. Write a JSON object with {config.alt!r}")
    for column in (config.alt, *config.synthetic):
        if column not in row:
            found = ", ".join(map(repr, row))
            raise DataError(f"{where}: no column {column!r}; there are {found}. Set data.alt, data.synthetic")
    synthetic: list[tuple[str, ...]] = []
    for column in config.synthetic:
        value = row[column]
        several = value if isinstance(value, (list, tuple)) else [value]
        synthetic.append(tuple(text for text in (_caption(v, column, where) for v in several) if text))
    return Sample(picture(image, where), _caption(row[config.alt], config.alt, where), tuple(synthetic))


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
        return Image.fromarray(decode(image))
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

    def held_out(self, count: int) -> list[Sample]:
        return []


def open_folder(config: DataConfig) -> FolderSource:
    """The folder `data.path`. Raises DataError when captions.jsonl is missing or a line is no JSON object."""
    root = Path(config.path)
    file = root / CAPTIONS
    if not file.is_file():
        raise DataError(f"{file}: missing. A folder source holds pictures and {CAPTIONS}, one JSON object a line")
    numbers, rows = [], []
    for number, row in itertools.islice(json_lines(file), config.samples or None):
        numbers.append(number)
        rows.append(row)
    return FolderSource(root, rows, numbers, config)


@dataclass
class TarSource:
    """Members `stem.jpg` and `stem.json` of tar files, read in place by offset: random access without unpacking."""

    shards: list[str]
    entries: list[tuple[int, tuple[int, int], tuple[int, int]]]  # shard, (offset, size) of picture and of JSON
    config: DataConfig
    _open: dict[int, BinaryIO] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def load(self, index: int) -> Sample:
        shard, image, text = self.entries[index]
        where = f"{self.shards[shard]}, sample {index}"
        try:
            row = json.loads(self._read(shard, text))
        except (OSError, ValueError) as error:
            raise DataError(f"{where}: captions cannot be read ({error})") from None
        return sample_from(self._read(shard, image), row, self.config, where)

    def held_out(self, count: int) -> list[Sample]:
        return []

    def _read(self, shard: int, span: tuple[int, int]) -> bytes:
        if shard not in self._open:
            self._open[shard] = open(self.shards[shard], "rb")  # noqa: SIM115 - kept open for the run
        file = self._open[shard]
        file.seek(span[0])
        data = file.read(span[1])
        if len(data) != span[1]:
            raise DataError(f"{self.shards[shard]}: ends inside a member; the shard is truncated")
        return data


def open_tar(config: DataConfig) -> TarSource:
    """The shards that `data.path` (a pattern) names, in sorted order. Raises DataError naming an unreadable shard."""
    shards = sorted(glob.glob(config.path))
    if not shards:
        raise DataError(f"data.path = {config.path!r} matches no file. Give a pattern like shards/*.tar")
    entries = [(number, *spans) for number, shard in enumerate(shards) for spans in tar_pairs(shard)]
    return TarSource(shards, entries[: config.samples or None], config)


def tar_pairs(shard: str) -> Sequence[tuple[tuple[int, int], tuple[int, int]]]:
    """(offset, size) of each picture and of its JSON, in the order of the pictures."""
    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:  # offsets in a compressed one are not those of the file
            for member in tar:
                folder, slash, name = member.name.rpartition("/")  # `tar -c .` names members ./0.jpg
                stem, dot, ending = name.partition(".")
                kind = images if (dot + ending).lower() in PICTURES else texts if ending == "json" else None
                if kind is not None and member.isfile() and not is_hidden(member.name):
                    kind[folder + slash + stem] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{shard}: not a readable tar file ({error}). Fetch the shard again") from None
    return [(span, texts[stem]) for stem, span in images.items() if stem in texts]
