"""A training source as pictures that an encoder can be shown."""

from __future__ import annotations

import dataclasses
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adapters.tipsv2.recipe.config import DataConfig
from adapters.tipsv2.recipe.samples import Renderer, Source, ids_digest, open_source
from benchmark.contracts import ImageSet
from benchmark.system.digest import fingerprint


class TrainingPictures(ImageSet):
    """The pictures of a source, in its order."""

    def __init__(self, source: Source, config: DataConfig) -> None:
        self.source, self.config = source, config

    @cached_property
    def digest(self) -> str:
        """Over what tells one content from another without reading it all: names, sizes and times of files."""
        source: Any = self.source
        if self.config.source == "tar":
            content: object = [[s.name, s.length, s.version] for s in source.reader.shards]
        elif self.config.source == "folder":
            files = [source.root / str(row.get(self.config.image)) for row in source.rows]
            content = [[str(f), *_size_and_time(f)] for f in files]
        else:
            rows = getattr(source, "rows", None)  # of the datasets library, which knows the content by a fingerprint
            content = getattr(rows, "_fingerprint", None) or dataclasses.asdict(self.config)
        return fingerprint({"training": content, "count": len(self)})

    @property
    def ids_digest(self) -> str:
        return ids_digest(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def image_id(self, index: int) -> str:
        if self.config.source == "folder":
            return str(self.source.rows[index].get(self.config.image))  # type: ignore[attr-defined]
        return f"sample {index}"

    def load(self, index: int) -> np.ndarray:
        return np.asarray(self.source.load(index).image)


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return 0, 0  # its reader names it
    return found.st_size, found.st_mtime_ns


def training_pictures(config: DataConfig, render: Renderer | None = None) -> TrainingPictures:
    """All pictures of the source that `config` names, `data.leave_out` aside: what is to be left out is asked anew."""
    whole = dataclasses.replace(config, leave_out="")
    return TrainingPictures(open_source(whole, render), whole)
