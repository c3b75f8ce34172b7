"""Sources of training samples: anything that yields (image, alt text, synthetic captions) by index."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from adapters.tipsv2.recipe.config import DataConfig
from benchmark.errors import UsageError
from benchmark.system import sealed


@dataclass(frozen=True)
class Sample:
    """A picture and its captions at two granularities."""

    image: Image.Image  # RGB
    alt: str  # "": none
    synthetic: tuple[str | tuple[str, ...], ...]  # kinds of them: one caption, several or none of each


class Source(Protocol):
    """Random access by index. `load` raises DataError naming what cannot be read. Must be picklable for workers."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Sample: ...

    def held_out(self, count: int) -> list[Sample]:
        """`count` samples that training never sees; empty when the source has none."""
        ...


class Scene(Protocol):
    """What a source takes of a drawn scene: rgb [S, S, 3] uint8 and its captions at three granularities."""

    @property
    def rgb(self) -> np.ndarray: ...
    @property
    def alt(self) -> str: ...
    @property
    def short(self) -> str: ...
    @property
    def long(self) -> str: ...


class Renderer(Protocol):
    """Draws scene `index` of a split, `size` pixels wide; a function of a module, so that workers can take it along."""

    def __call__(self, seed: int, index: int, size: int, *, split: str) -> Scene: ...


SOURCES = {
    "scenes": "adapters.tipsv2.recipe.source_scenes:open_scenes",
    "folder": "adapters.tipsv2.recipe.source_files:open_folder",
    "tar": "adapters.tipsv2.recipe.source_tar:open_tar",
    "parquet": "adapters.tipsv2.recipe.source_tables:open_parquet",
    "hub": "adapters.tipsv2.recipe.source_tables:open_hub",
}


def open_source(config: DataConfig, render: Renderer | None = None) -> Source:
    """The source that `data.source` names: one of SOURCES, or `module:function` taking the DataConfig.

    `render` draws the samples of "scenes": adapters lie beside tasks, so who calls hands it in.
    """
    target = SOURCES.get(config.source, config.source)
    module, sep, function = target.partition(":")
    if not sep:
        raise UsageError(f"data.source = {config.source!r}; it must be {', '.join(SOURCES)} or module:function")
    try:
        opener: Callable[..., Source] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"data.source = {config.source!r} cannot be loaded: {error}") from None
    source = opener(config, render) if config.source == "scenes" else opener(config)
    return Without(source, left_out(config, len(source))) if config.leave_out else source


class Without:
    """A source without the samples `gone` [G], rising: each index is that of the samples that are left."""

    def __init__(self, source: Source, gone: np.ndarray) -> None:
        self.source, self.gone = source, gone
        self.before = gone - np.arange(len(gone))  # samples that are left before each that is gone

    def __len__(self) -> int:
        return len(self.source) - len(self.gone)

    def __getattr__(self, name: str) -> Any:
        if name != "starts":
            raise AttributeError(name)
        starts = self.source.starts  # type: ignore[attr-defined]
        return starts - np.searchsorted(self.gone, starts)

    def load(self, index: int) -> Sample:
        return self.source.load(index + int(np.searchsorted(self.before, index, "right")))

    def held_out(self, count: int) -> list[Sample]:
        return self.source.held_out(count)


def left_out(config: DataConfig, samples: int) -> np.ndarray:
    """[G] int64, rising: the samples that the list `data.leave_out` of `bench dedup` names. Raises UsageError for one
    that is not there, or was made of another number of samples, sealed.Damaged."""
    path = Path(config.leave_out)
    try:
        facts = sealed.read_json(path, since=1)
    except FileNotFoundError:
        raise UsageError(f"data.leave_out = {config.leave_out!r}: no such file. Make it with bench dedup") from None
    if facts.get("samples") != samples or not isinstance(facts.get("indices"), list):
        raise UsageError(
            f"data.leave_out = {config.leave_out!r} is of {facts.get('samples')} samples, the data hold {samples}. Make"
            " it again with bench dedup"
        )
    return np.array(facts["indices"], np.int64)
