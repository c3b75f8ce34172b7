"""Protocols as versioned data: a TOML preset becomes a frozen, hashed dataclass whose every field has a status.

A preset file holds one task; each of its tables is a preset:

    [fast]
    schema = "pixel_segmentation"
    description = "…"
    pixels_per_image = { value = 64, status = "confirmed", source = "…" }

`base = "other"` starts from another preset of the same file. A preset may hold a table for a dataset, `[paper.navi]`:
what the preset means there. It changes single fields, or names a `base` or `schema` of its own and starts from that.

A field may say what else it could well have been, for `bench sensitivity`; hashes and rows do not know of it:

    cls = { value = "first", status = "unknown", source = "…", alternatives = [{ value = "last", reason = "…" }] }

An alternative that needs other fields changed says so (`also = { view_size = 256 }`); `only = "…"` in place of a list
says why there is none.
Unknown, missing and mistyped fields are errors.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
import tomllib
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from benchmark.contracts import FieldStatus
from benchmark.errors import UsageError, unknown
from benchmark.system.digest import fingerprint, plain, sha256_file

STATUSES: tuple[FieldStatus, ...] = typing.get_args(FieldStatus)
FLOATS = sys.float_info.max
RESERVED = ("schema", "description", "base")
ENTRY = ("value", "status", "source")  # of a field
DOUBT = ("alternatives", "only")  # one of them may stand beside


class FileDigest(str):
    """A field that names a file: its value is "sha256:…" of the content ("" for none), so equal files hash equally
    wherever they lie; `path` is where this one is."""

    path: Path | None = None

    @classmethod
    def of(cls, path: str) -> FileDigest:
        """The digest of the file at `path`. Raises OSError when it cannot be read."""
        found = cls(f"sha256:{sha256_file(path)}") if path else cls()
        found.path = Path(path).resolve() if path else None
        return found


@dataclass(frozen=True)
class FieldOrigin:
    """How sure a protocol field is, and who says so."""

    status: FieldStatus
    source: str


@dataclass(frozen=True)
class Alternative:
    """Another value that a field may well have had, the fields that change with it, and why it is plausible."""

    field: str
    values: Mapping[str, Any]  # of `field` first
    reason: str

    def __str__(self) -> str:
        return ", ".join(f"{name} = {_text(value)}" for name, value in self.values.items())


@dataclass(frozen=True)
class Change:
    """What a variant of a preset changes: one alternative, or one of each of two fields."""

    alternatives: tuple[Alternative, ...]

    @property
    def values(self) -> dict[str, Any]:
        """Field -> value."""
        return {name: value for one in self.alternatives for name, value in one.values.items()}

    @property
    def settings(self) -> dict[str, str]:
        """Field -> text, as `--set` takes it."""
        return {name: _text(value) for name, value in self.values.items()}

    def __str__(self) -> str:
        return ", ".join(map(str, self.alternatives))


@dataclass(frozen=True)
class EvalProtocol:
    """One preset, resolved: `values` is an instance of the task's schema dataclass."""

    task: str
    name: str
    schema: str
    description: str
    values: Any
    origins: Mapping[str, FieldOrigin] = field(compare=False, default_factory=dict)
    alternatives: tuple[Alternative, ...] = field(
        compare=False, default=()
    )  # of fields that are as the preset has them

    @property
    def hash(self) -> str:
        """64 hex digits over task, schema and field values; names and remarks do not count."""
        return fingerprint({"task": self.task, "schema": self.schema, "fields": self.values})

    def fields(self) -> dict[str, Any]:
        """Field name -> {value, status, source}, as rows store it."""
        values = plain(self.values)
        return {
            name: {"value": value, "status": self.origins[name].status, "source": self.origins[name].source}
            for name, value in values.items()
        }

    def not_confirmed(self) -> list[str]:
        """Names of the fields that are inferred or unknown."""
        return [name for name, origin in self.origins.items() if origin.status != "confirmed"]

    def changes(self, fields: Collection[str] = (), pairs: bool = False) -> list[Change]:
        """Every alternative of `fields` (none: of all), and with `pairs` every two of different fields."""
        chosen = [a for a in self.alternatives if not fields or a.field in fields]
        found = [Change((one,)) for one in chosen]
        for one, other in itertools.combinations(chosen, 2) if pairs else ():
            two = Change((one, other))
            if not one.values.keys() & other.values.keys() and self.takes(two.values):
                found.append(two)
        return found

    def takes(self, values: Mapping[str, Any]) -> bool:
        """Whether the schema allows these values beside the others."""
        try:
            dataclasses.replace(self.values, **values)
        except ValueError:
            return False
        return True


def presets(path: Path | Traversable) -> dict[str, dict[str, Any]]:
    """The raw tables of a preset file. Raises UsageError when it is no TOML."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise UsageError(f"{path}: cannot be read as TOML: {e}") from None


_parsed = lru_cache(tomllib.loads)  # a run reads each file three times; nobody changes what is read


def load_protocol(
    task: str,
    schemas: Mapping[str, type],
    path: Path | Traversable,
    name: str,
    overrides: Mapping[str, str] | None = None,
    dataset: str | None = None,
) -> EvalProtocol:
    """The preset `name` of `task` as it is on `dataset`, with `overrides` (field -> text, from the command line).

    An overridden field is marked confirmed with the source "set by the user"; the hash changes with it.
    Raises UsageError naming the file, the preset and the field.
    """
    raw, where = preset_table(task, path, name, dataset)
    schema_name = str(raw.get("schema"))
    if schema_name not in schemas:
        raise UsageError(f"{where}: schema {schema_name!r} is not one of {', '.join(schemas)}. Correct the preset")
    schema = schemas[schema_name]
    entries = {k: v for k, v in raw.items() if k not in RESERVED}
    declared = {f.name: f for f in dataclasses.fields(schema)}
    for key in entries:
        if key not in declared:
            raise unknown(f"field in {where}", key, declared, ", ".join(declared))
    hints = typing.get_type_hints(schema, include_extras=True)
    values, origins, others = {}, {}, []
    for key in declared:
        if key not in entries:
            raise UsageError(f"{where}: field {key!r} is missing. Add {key} = {{ value = …, status = …, source = … }}")
        values[key], origins[key] = _entry(entries[key], hints[key], f"{where} {key}")
        others += _alternatives(key, entries[key], hints, f"{where} {key}")
    preset = dict(values)
    for key, text in (overrides or {}).items():
        if key not in declared:
            if of := ", ".join(f"[{one}]" for one in presets(path) if key in preset_table(task, path, one)[0]):
                raise UsageError(f"{key!r} is a field of {task} {of}, not of [{name}]. Leave it out")
            raise unknown(f"protocol field of {task} [{name}]", key, declared, f"bench show {task}")
        values[key] = _coerce(_parse(text), hints[key], f"--set {key}")
        if values[key] != preset[key]:
            origins[key] = FieldOrigin("confirmed", "set by the user")
    try:
        instance = schema(**values)
    except ValueError as e:
        raise UsageError(f"{where}: {e}") from None
    label = name + ("+set" if values != preset else "")  # a field set to what it is leaves the preset what it is
    found = EvalProtocol(task, label, schema_name, raw.get("description", ""), instance, origins)
    for one in others if values == preset else ():
        if not found.takes(one.values) or all(values[key] == value for key, value in one.values.items()):
            raise UsageError(
                f"{where}: the alternative {one} is no other protocol. Correct it, or the fields beside it"
            )
    free = [one for one in others if values[one.field] == preset[one.field] and found.takes(one.values)]
    return dataclasses.replace(found, alternatives=tuple(free))


def preset_table(
    task: str, path: Path | Traversable, name: str, dataset: str | None = None
) -> tuple[dict[str, Any], str]:
    """The preset `name` of `task` on `dataset` as its file has it, bases resolved, and where that is, for messages.

    Raises UsageError for a preset that is not there."""
    tables = presets(path)
    if name not in tables:
        raise unknown(f"protocol of {task}", name, tables, f"{', '.join(tables) or 'none'} (bench show {task})")
    where = f"{'/'.join(Path(str(path)).parts[-2:])} [{name}]"  # its folder tells it from a task file of one's own
    raw = _with_base(tables, name, where)
    special = raw[dataset] if dataset in datasets_of(raw) else None
    raw = {k: v for k, v in raw.items() if k not in datasets_of(raw)}
    if special is not None:
        where = where.replace(f"[{name}]", f"[{name}.{dataset}]")
        raw = _on_dataset(tables, raw, special, where)
    return raw, where


def _with_base(tables: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    table = tables[name]
    base = table.get("base")
    if base is None:
        return dict(table)
    if base not in tables or base == name:
        raise UsageError(f"{where}: base {base!r} is no other preset of this file")
    return {**_with_base(tables, base, where), **table}


def datasets_of(table: Mapping[str, Any]) -> list[str]:
    """The datasets a preset has a table for: tables of tables, where a field is a table of plain values."""
    return [
        key
        for key, value in table.items()
        if isinstance(value, dict) and all(isinstance(v, dict) or k in RESERVED for k, v in value.items())
    ]


def variants(path: Path | Traversable, name: str) -> list[str]:
    """The datasets on which the preset `name` differs from itself elsewhere."""
    tables = presets(path)
    return datasets_of(_with_base(tables, name, f"{path.name} [{name}]")) if name in tables else []


def _on_dataset(
    tables: Mapping[str, Any], raw: dict[str, Any], special: Mapping[str, Any], where: str
) -> dict[str, Any]:
    if "base" in special:
        base = special["base"]
        if base not in tables:
            raise UsageError(f"{where}: base {base!r} is no preset of this file")
        raw = _with_base(tables, base, where)
        raw = {k: v for k, v in raw.items() if k not in datasets_of(raw)}
    elif "schema" in special:
        raw = {}
    return {**raw, **special}


def _entry(entry: Any, hint: Any, where: str) -> tuple[Any, FieldOrigin]:
    if not isinstance(entry, dict) or set(entry) - set(DOUBT) != set(ENTRY):
        raise UsageError(f"{where}: must be {{ value = …, status = …, source = … }}, alternatives or only beside it")
    if entry["status"] not in STATUSES:
        raise UsageError(f"{where}: status {entry['status']!r} is not one of {', '.join(STATUSES)}")
    return _coerce(entry["value"], hint, where), FieldOrigin(entry["status"], entry["source"])


def _alternatives(key: str, entry: Mapping[str, Any], hints: Mapping[str, Any], where: str) -> list[Alternative]:
    listed = entry.get("alternatives", [])
    if set(DOUBT) <= entry.keys() or not isinstance(listed, list) or not isinstance(entry.get("only", ""), str):
        raise UsageError(f"{where}: alternatives is a list, or only says in words why there is none")
    found = []
    for one in listed:
        if not isinstance(one, dict) or set(one) - {"also"} != {"value", "reason"} or not one["reason"]:
            raise UsageError(f"{where}: an alternative must be {{ value = …, reason = … }}, also = {{ … }} beside it")
        values = {key: one["value"], **one.get("also", {})}
        if alien := values.keys() - hints.keys():
            raise UsageError(f"{where}: also changes {sorted(alien)[0]}, which is no field")
        read = {name: _coerce(value, hints[name], f"{where}, alternative {name}") for name, value in values.items()}
        found.append(Alternative(key, read, one["reason"]))
    return found


def _text(value: Any) -> str:
    """A field's value as `--set` takes it; the inverse of `_parse`."""
    bare = isinstance(value, str) and _parse(value) == value and value == value.strip()
    return value if bare else json.dumps(plain(value), ensure_ascii=False)


def _parse(text: str) -> Any:
    """A command-line value read as TOML, or as a bare string where it is none."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` as the field's type: int, float, bool, str, Literal, tuple[X, ...], numbers within the field's bounds.
    Nothing is converted in silence."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        plain_hint, bounds = typing.get_args(hint)
        found = _coerce(value, plain_hint, where)
        many = isinstance(found, tuple)
        if not bounds.hold(len(found) if many else found):
            raise UsageError(f"{where}: {value!r} must {'have' if many else 'be'} {bounds}{' values' * many}")
        return found
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise UsageError(f"{where}: {value!r} is not one of {', '.join(map(str, typing.get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where}: {value!r} must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_coerce(v, inner, where) for v in value)
    if hint is FileDigest:
        return _file(value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < FLOATS else math.inf
    if type(value) is not hint:
        raise UsageError(f"{where}: {value!r} is {type(value).__name__}, must be {getattr(hint, '__name__', hint)}")
    if hint is float and not math.isfinite(value):
        raise UsageError(f"{where}: {value!r} must be finite")
    return value


def _file(value: Any, where: str) -> FileDigest:
    if not isinstance(value, str):
        raise UsageError(f"{where}: {value!r} must be the path of a file")
    try:
        return FileDigest.of(value)
    except OSError as e:
        raise UsageError(f"{where}: {value}: cannot be read ({e.strerror}). Give the path of a file") from None
