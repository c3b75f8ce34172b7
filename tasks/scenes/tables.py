"""The data tables of `scenes` (world.toml), read once."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

RGB = tuple[float, float, float]


def read_table(name: str) -> dict[str, Any]:
    """A TOML file of this package as a dict."""
    return tomllib.loads(resources.files("tasks.scenes").joinpath(name).read_text(encoding="utf-8"))


def _triple(values: list[float]) -> RGB:
    return (values[0], values[1], values[2])


_WORLD = read_table("world.toml")

VERSION: int = _WORLD["version"]
TIE: float = _WORLD["tie"]
ROUND: tuple[str, ...] = tuple(_WORLD["round"])
STUFF: tuple[str, ...] = tuple(_WORLD["stuff"])
USUAL: dict[str, str] = _WORLD["usual"]
OBJECTS: tuple[str, ...] = tuple(USUAL)
CLASS_NAMES: tuple[str, ...] = STUFF + OBJECTS
CLASS_INDEX: dict[str, int] = {name: i for i, name in enumerate(CLASS_NAMES)}
COLOURS: dict[str, RGB] = {name: _triple(rgb) for name, rgb in _WORLD["colours"].items()}
PAINTS: dict[str, RGB] = {name: _triple(rgb) for name, rgb in _WORLD["paints"].items()}
SKIES: dict[str, dict[str, Any]] = _WORLD["skies"]
GROUNDS: dict[str, float] = _WORLD["grounds"]
DOMAINS: dict[str, tuple[str, ...]] = {name: tuple(members) for name, members in _WORLD["domains"].items()}
