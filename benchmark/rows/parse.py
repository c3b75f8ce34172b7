"""JSON into frozen dataclasses by their type hints: other people's files are data, never trusted.

A field of another type, a number that is none, or a name that a terminal would obey is refused in one line that names
it. What a dataclass does not know is kept, so that whoever writes a record again loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from benchmark.statistics.statistic import Statistic, parse_statistic
from benchmark.system.digest import plain
from benchmark.system.escaping import CONTROL

LARGEST = 2**63  # of whole numbers
Count = Annotated[int, "at least one"]
Name = Annotated[str, "without control characters: it is shown as it is"]
R = TypeVar("R", bound="Record")


class Misfit(ValueError):
    """Why a JSON value is not the record it should be, in one line."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object. A field without a default is in every one; another that is left out, or null where its type knows
    no null, has its default."""

    further: Mapping[str, Any] = field(default_factory=dict)  # fields of other writers, as they came
    absent: frozenset[str] = field(default=frozenset(), compare=False, repr=False)  # left out when it was read

    def json(self) -> dict[str, Any]:
        """The object as it is written: in the order of the fields, what was left out left out again."""
        said = {}
        for f, _ in own_fields(type(self)):
            value = vars(self)[f.name]
            if (f.name in self.absent or f.metadata == SPARSE) and value == _default(f):
                continue
            said[f.name] = as_json(value)
        return {**said, **self.further}

    # Scripts on `run()` may go on reading its rows as the JSON they were: row.data["task"]["n"], {**row.data}. Not we.

    def __getitem__(self, name: str) -> Any:
        return self.json()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.json())

    def keys(self) -> Iterable[str]:
        """The names of the fields that stand in the JSON."""
        return self.json().keys()


SPARSE = {"sparse": True}  # metadata of a field that is written only where it is not its default


def own_fields(kind: type[Record]) -> tuple[tuple[Field[Any], Any], ...]:
    """The fields that stand in the JSON, each with its type."""
    if kind not in _OWN:
        hints = get_type_hints(kind, include_extras=True)
        _OWN[kind] = tuple((f, hints[f.name]) for f in fields(kind) if f.name not in ("further", "absent"))
    return _OWN[kind]


_OWN: dict[type[Record], tuple[tuple[Field[Any], Any], ...]] = {}


def as_json(value: Any) -> Any:
    """`value`, records within it included, as JSON types."""
    if isinstance(value, Record):
        return value.json()
    if isinstance(value, Statistic):
        return {k: v for k, v in plain(value).items() if v is not None}
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    return plain(value)


def parse(kind: type[R], data: Any, before: str = "", behind: str = "") -> R:
    """The record that `data` holds; `before` and `behind` its fields' names say where it stands.

    Raises Misfit naming every field that is lost, else the first that does not fit.
    """
    if not before and (lost := list(_lost(kind, data))):
        raise Misfit(f"not a densebench result: no {', '.join(lost)}{behind}")
    known: dict[str, Any] = {}
    for f, hint in own_fields(kind):
        value = data.get(f.name)
        if value is not None or (_null(hint) and f.name in data) or _needed(f):
            known[f.name] = _value(hint, value, f"{before}{f.name}{behind}")
    names = {f.name for f, _ in own_fields(kind)}
    further = {name: value for name, value in data.items() if name not in names}
    return kind(**known, further=further, absent=frozenset(names - known.keys()))


def _default(f: Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def _needed(f: Field[Any]) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _null(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Record)


def _lost(kind: type[Record], data: Any, before: str = "") -> Iterator[str]:
    """The fields that every record of this kind has and `data` lacks: "a.b" is field b of the object a."""
    there = data if isinstance(data, dict) else {}
    for f, hint in own_fields(kind):
        if _is_record(hint):
            yield from _lost(hint, there.get(f.name), f"{before}{f.name}.")
        elif _needed(f) and f.name not in there:
            yield before + f.name


def _value(hint: Any, value: Any, key: str) -> Any:
    if _null(hint):
        if value is None:
            return None
        (hint,) = (h for h in get_args(hint) if h is not type(None))
    if hint is Statistic:
        try:
            return parse_statistic(value)
        except (TypeError, ValueError, AttributeError) as e:
            raise Misfit(f"the {key} is not one this densebench knows ({e})") from None
    kind = get_origin(hint) if get_origin(hint) is Mapping else Mapping if _is_record(hint) else hint
    fits, words = FITS[kind]
    if not fits(value):
        raise Misfit(f"not a densebench result: {key} is {repr(value)[:80]}, which is {words}")
    if _is_record(hint):
        return parse(hint, value, f"{key}.")
    if kind is Mapping and _is_record(of := get_args(hint)[1]):
        return {
            _value(Name, name, f"a name in {key}"): parse(of, one, behind=f" of {name}") for name, one in value.items()
        }
    return tuple(value) if get_origin(hint) is tuple else value


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value)


FITS: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
    Any: (lambda value: True, ""),
    Name: (lambda value: isinstance(value, str) and not CONTROL.search(value), "no name"),
    str: (lambda value: isinstance(value, str), "no text"),
    bool: (lambda value: isinstance(value, bool), "neither true nor false"),
    int: (lambda value: isinstance(value, int) and _number(value), "no whole number"),
    Count: (lambda value: isinstance(value, int) and _number(value) and value > 0, "no number of samples"),
    float: (_number, "no finite number"),
    Mapping: (lambda value: isinstance(value, dict), "no object"),
    tuple[str, ...]: (
        lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
        "no list of lines",
    ),
    tuple[float, float]: (
        lambda value: isinstance(value, list) and len(value) == 2 and all(map(_number, value)),
        "no [low, high]",
    ),
}
