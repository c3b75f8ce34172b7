"""Sources of training samples: anything that yields (image, alt text, synthetic captions) by index."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from adapters.tipsv2.recipe.config import DataConfig
from benchmark.errors import UsageError


@dataclass(frozen=True)
class Sample:
    """A picture and its captions at two granularities."""

    image: Image.Image  # RGB
    alt: str
    synthetic: tuple[str, ...]


class Source(Protocol):
    """Random access by index. `load` raises DataError naming what cannot be read. Must be picklable for workers."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample: ...

    def held_out(self, count: int) -> list[Sample]:
        """`count` samples that training never sees; empty when the source has none."""
        ...


SOURCES = {
    "scenes": "adapters.tipsv2.recipe.source_scenes:open_scenes",
    "folder": "adapters.tipsv2.recipe.source_files:open_folder",
    "tar": "adapters.tipsv2.recipe.source_files:open_tar",
    "parquet": "adapters.tipsv2.recipe.source_tables:open_parquet",
    "hub": "adapters.tipsv2.recipe.source_tables:open_hub",
}


def open_source(config: DataConfig) -> Source:
    """The source that `data.source` names: one of SOURCES, or `module:function` taking the DataConfig."""
    target = SOURCES.get(config.source, config.source)
    module, sep, function = target.partition(":")
    if not sep:
        raise UsageError(f"data.source = {config.source!r}; it must be {', '.join(SOURCES)} or module:function")
    try:
        opener: Callable[[DataConfig], Source] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"data.source = {config.source!r} cannot be loaded: {error}") from None
    return opener(config)
