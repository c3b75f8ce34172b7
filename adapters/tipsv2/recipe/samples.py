"""Sources of training samples: anything that yields (image, alt text, synthetic captions) by index."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from adapters.tipsv2.recipe.config import DataConfig
from benchmark.errors import UsageError
from benchmark.system import sealed
from benchmark.system.digest import fingerprint

log = logging.getLogger("densebench.data")


@dataclass(frozen=True)
class Sample:
    """A picture and its captions at two granularities."""

    image: Image.Image  # RGB
    alt: str  # "": none
    synthetic: tuple[str | tuple[str, ...], ...]  # kinds of them: one caption, several or none of each


class Source(Protocol):
    """Random access by index. `load` raises DataError naming what cannot be read. Must be picklable for workers.

    One that has an `ids_digest` (64 hex digits over the ids of its samples, in order) is known again: by a resume, and
    by the list of samples that are left out.
    """

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
    return Without(source, *left_out(config, source)) if config.leave_out else source


def ids_digest(source: Source) -> str:
    """64 hex digits over the ids of all samples in their order; "" of a source that has none."""
    return str(getattr(source, "ids_digest", ""))


class Without:
    """A source without the samples `gone` [G], rising: each index is that of the samples that are left. `why` is what
    the record of a run says of them."""

    def __init__(self, source: Source, gone: np.ndarray, why: dict[str, Any] | None = None) -> None:
        self.source, self.gone, self.why = source, gone, why or {}
        self.before = gone - np.arange(len(gone))  # samples that are left before each that is gone

    def __len__(self) -> int:
        return len(self.source) - len(self.gone)

    def __getattr__(self, name: str) -> Any:
        if name != "starts":
            raise AttributeError(name)
        starts = self.source.starts  # type: ignore[attr-defined]
        return starts - np.searchsorted(self.gone, starts)

    @property
    def ids_digest(self) -> str:
        whole = ids_digest(self.source)
        return fingerprint({"of": whole, "without": self.gone.tolist()}) if len(self.gone) else whole

    def load(self, index: int) -> Sample:
        return self.source.load(index + int(np.searchsorted(self.before, index, "right")))

    def held_out(self, count: int) -> list[Sample]:
        return self.source.held_out(count)


def left_out(config: DataConfig, source: Source) -> tuple[np.ndarray, dict[str, Any]]:
    """([G] int64, rising: the samples that the list `data.leave_out` of `bench dedup` names; how it was made). Raises
    UsageError for one that is not there or was made of other samples, sealed.Damaged."""
    path, name = Path(config.leave_out), f"data.leave_out = {config.leave_out!r}"
    again = "Make it again with bench dedup"
    try:
        facts = sealed.read_json(path, since=1)
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file. Make it with bench dedup") from None
    if facts.get("samples") != len(source) or not isinstance(facts.get("indices"), list):
        raise UsageError(f"{name} is of {facts.get('samples')} samples, the data hold {len(source)}. {again}")
    if "ids" not in facts or "compared" not in facts:
        raise UsageError(f"{name} is older and does not say of which samples it is. {again}")
    if facts["ids"] != ids_digest(source):
        raise UsageError(f"{name} is of other samples, or of these in another order. {again}")
    if not facts["ids"]:
        log.warning("%s is held to data.source = %r by its number of samples alone: it has no ids", name, config.source)
    for unit, (compared, there) in facts["compared"].items():
        if compared < there:
            log.warning("%s was made with --limit: of %s, %d of %d pictures were compared", name, unit, compared, there)
    kept = {key: facts.get(key) for key in ("model", "threshold", "compared")}
    return np.array(facts["indices"], np.int64), {"samples": len(facts["indices"]), **kept}
