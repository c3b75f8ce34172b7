"""Reads a recipe config: TOML in, `RecipeConfig` out, and a one-line error for anything that does not fit.

A file may name a parent with `extends = "other.toml"`. An unknown key or a wrong type is an error, never ignored.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from adapters.tipsv2.recipe.config import RecipeConfig
from adapters.tipsv2.recipe.config_rules import validate
from benchmark.errors import UsageError, unknown

CONFIGS = Path(__file__).with_name("configs")


def read_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> RecipeConfig:
    """The config in file `source`, or the packaged one of that name; `overrides` are dotted keys, {"train.steps": 10}.

    Raises UsageError naming file and key.
    """
    path = _locate(source)
    table = _read_table(path, seen=())
    for dotted, value in (overrides or {}).items():
        node = table
        *parents, last = dotted.split(".")
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UsageError(f"{dotted}: {part} = {node!r} is no table of {path.name}. Give SECTION.KEY=VALUE")
        node[last] = value
    table.setdefault("name", path.stem)
    return from_table(table, path.name)


def from_table(table: Mapping[str, Any], where: str) -> RecipeConfig:
    """A checked RecipeConfig from nested tables; `where` names their origin in errors."""
    config: RecipeConfig = _build(RecipeConfig, table, where, "")
    validate(config, where)
    return config


def parse_override(text: str) -> tuple[str, Any]:
    """`train.steps=10` → ("train.steps", 10); the value is read as TOML, or as a string when it is not TOML."""
    key, sep, value = text.partition("=")
    if not sep or not key:
        raise UsageError(f"override {text!r} is not KEY=VALUE, for example train.steps=100")
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value


def _locate(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    packaged = CONFIGS / f"{source}.toml"
    if packaged.is_file():
        return packaged
    if path.suffix == ".toml":
        raise UsageError(f"config {path} does not exist")
    known = sorted(p.stem for p in CONFIGS.glob("*.toml"))
    raise unknown("training config", str(source), known, ", ".join(known))


def _read_table(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UsageError(f"{path}: extends itself through {' → '.join(p.name for p in seen)}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not a readable TOML file ({error})") from None
    parent = table.pop("extends", None)
    if parent is None:
        return table
    parent_path = path.parent / parent
    if not parent_path.is_file():
        raise UsageError(f"{path}: extends {parent!r}, but {parent_path} does not exist")
    base = _read_table(parent_path, (*seen, path.resolve()))
    base.pop("name", None)
    return _merge(base, table)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _build(cls: Any, table: Any, where: str, prefix: str) -> Any:
    if not isinstance(table, Mapping):
        raise UsageError(f"{where}: [{prefix.rstrip('.')}] must be a table, it is {table!r}")
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in hints:
            raise unknown(
                "key", prefix + key, [prefix + k for k in hints], f"adapters/tipsv2/recipe/config.py (read in {where})"
            )
    values = {}
    for key, value in table.items():
        hint = hints[key]
        nested = dataclasses.is_dataclass(hint)
        values[key] = (
            _build(hint, value, where, f"{prefix}{key}.") if nested else _value(hint, value, where, prefix + key)
        )
    return cls(**values)


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise UsageError(
                f"{where}: {key} = {value!r}; it must be one of {', '.join(map(repr, typing.get_args(hint)))}"
            )
        return value
    if origin is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, (list, tuple)) or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
            raise UsageError(f"{where}: {key} = {value!r}; it must be a list like {list(_example(kinds))}")
        return tuple(_value(kinds[0], v, where, key) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise UsageError(f"{where}: {key} = {value!r} is {type(value).__name__}; it must be {hint.__name__}")
    return value


def _example(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(k() for k in kinds if not isinstance(k, types.EllipsisType))
