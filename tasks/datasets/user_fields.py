"""What a user's TOML task may say, checked before anything is read; every complaint names the line."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.contracts import KINDS
from benchmark.errors import UsageError
from benchmark.registry import datasets, tasks
from benchmark.system.texts import split_lines

# field of a split (or of the whole file) -> kinds that must have it, kinds that may have it
SPLIT_FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "images": (("segmentation", "depth", "normals", "captions", "labels", "retrieval", "correspondence"), ()),
    "masks": (("segmentation",), ()),
    "depth": (("depth",), ()),
    "normals": (("normals",), ()),
    "captions": (("captions",), ()),
    "labels": (("retrieval",), ("labels",)),
    "queries": ((), ("retrieval",)),
    "query_labels": ((), ("retrieval",)),
    "pairs": (("correspondence",), ()),
}
COMMON: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "name": (str,),
    "title": (str,),
    "licence": (str,),
    "protocol": (dict,),
    "train": (dict,),
    "test": (dict,),
}
EXTRA: dict[str, tuple[tuple[type, ...], tuple[str, ...]]] = {  # field -> types, kinds
    "classes": ((list, str), ("segmentation", "labels")),
    "background": ((str,), ("segmentation",)),
    "ignore": ((int, list), ("segmentation",)),
    "reduce_zero_label": ((bool,), ("segmentation",)),
    "depth_scale": ((int, float), ("depth",)),
    "max_depth": ((int, float), ("depth",)),
    "templates": ((list, str), ("segmentation", "labels")),
    "split": ((dict,), ("segmentation", "depth", "normals", "captions", "labels")),
}


@dataclass(frozen=True)
class TaskFile:
    """A checked TOML task: `values` are its fields, `path` where relative paths start."""

    path: Path
    text: str
    values: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(tasks()[self.values["task"]]["kind"])

    @property
    def trained(self) -> bool:
        """Whether its task learns from a training split."""
        return bool(tasks()[self.values["task"]].get("trained"))

    def wrong(self, message: str, *keys: str) -> UsageError:
        """A UsageError "file:line: message" at the line of the field `keys` (table, …, key)."""
        return UsageError(f"{self.path}:{line_of(self.text, keys)}: {message}")

    def place(self, value: str) -> Path:
        """A path of the file; relative ones start at the file's folder."""
        path = Path(value).expanduser()
        return path if path.is_absolute() else self.path.parent / path


def read_task_file(path: Path) -> TaskFile:
    """The checked fields of `path`. Raises UsageError with the line of the first mistake."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # with the mark that Windows' editors put first
        values = tomllib.loads(text)
    except OSError as e:
        raise UsageError(f"{path}: cannot be read ({e.strerror}). Check --task") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text. Save it as UTF-8") from None
    except tomllib.TOMLDecodeError as e:
        found = re.search(r"line (\d+)", str(e))
        raise UsageError(f"{path}:{found.group(1) if found else '?'}: is not TOML: {e}") from None
    except RecursionError:
        raise UsageError(f"{path}: is nested too deeply for a task file") from None
    file = TaskFile(path, text, {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-"), **values})
    _check_task(file)
    _check_names(file)
    _check_values(file)
    _check_splits(file)
    return file


OTHER_SPLITS = ("val", "valid", "validation", "dev", "eval")  # names that others give to what is scored


def line_of(text: str, keys: tuple[str, ...]) -> int:
    """1-based line where `keys` (nested) is assigned; that of the nearest enclosing table; else 1."""
    table: tuple[str, ...] = ()
    best, depth = 1, 0
    for number, line in enumerate(split_lines(text), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            table = tuple(part.strip().strip("\"'") for part in header.group(1).split("."))
            here = table
        elif assigned := re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line):
            here = (*table, *(part.strip("\"' ") for part in assigned.group(1).split(".")))
        else:
            continue
        shared = next((i for i, (a, b) in enumerate(zip(here, keys)) if a != b), min(len(here), len(keys)))
        if shared == len(here) and shared > depth:
            best, depth = number, shared
    return best


def _check_task(file: TaskFile) -> None:
    if "tasks" in file.values and "task" not in file.values:
        raise file.wrong(f"this is a suite, no task: --suite {file.path}", "tasks")
    for key in ("task", "name"):
        if key not in file.values:
            raise file.wrong(f"{key!r} is missing. Add {key} = …")
        if not isinstance(file.values[key], str):
            raise file.wrong(f"{key} = {file.values[key]!r} must be a string", key)
    task, name = file.values["task"], file.values["name"]
    known = {name: row["kind"] for name, row in tasks().items()}
    if task not in known:
        close = difflib.get_close_matches(task, known, 1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise file.wrong(f"unknown task {task!r}. {hint}All: {', '.join(known)}", "task")
    if known[task] not in KINDS:
        raise file.wrong(
            f"{task} reads {known[task]}, which a file cannot describe. Its package brings data sets", "task"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise file.wrong(f"name = {name!r} becomes a folder: use letters, digits, '.', '_' and '-'", "name")
    if name.lower() in datasets():  # on some file systems Coco and coco are one folder
        raise file.wrong(f"name = {name!r} is one of our datasets, whose rows yours would replace", "name")


def _check_names(file: TaskFile) -> None:
    allowed: dict[str, tuple[type, ...]] = dict(COMMON)
    allowed |= {k: types for k, (types, kinds) in EXTRA.items() if file.kind in kinds}
    allowed |= {k: (str,) for k, (must, may) in SPLIT_FIELDS.items() if file.kind in (*must, *may)}
    for key, value in file.values.items():
        if key not in allowed:
            raise file.wrong(_unknown_field(key, allowed, file.values["task"]), key)
        if not isinstance(value, allowed[key]) or (isinstance(value, bool) and bool not in allowed[key]):
            kinds = " or ".join(t.__name__ for t in allowed[key])
            raise file.wrong(f"{key} = {value!r} is {type(value).__name__}, must be {kinds}", key)
    for split in ("train", "test"):
        for key, value in file.values.get(split, {}).items():
            fields = [k for k in SPLIT_FIELDS if k in allowed]
            if key not in fields:
                raise file.wrong(_unknown_field(key, fields, f"[{split}]"), split, key)
            if not isinstance(value, str):
                raise file.wrong(f"{key} = {value!r} must be a string, a path", split, key)


def _check_values(file: TaskFile) -> None:
    """TOML has nan, inf and dates as well, of which nothing can be measured or hashed."""
    for key in ("depth_scale", "max_depth"):
        value = file.values.get(key, 1)
        if not (math.isfinite(value) and value > 0):
            raise file.wrong(f"{key} = {value!r} must be a number of metres above 0", key)
    for key, value in file.values.get("protocol", {}).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            words = f"protocol.{key} = {value!s} must be a finite number, a string, true, false, or a list of them"
            raise file.wrong(words, "protocol", key) from None


def _unknown_field(key: str, allowed: Any, where: str) -> str:
    close = difflib.get_close_matches(key, list(allowed), 1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    if key in OTHER_SPLITS and "test" in allowed:
        hint = "The split that is scored is called 'test'. "
    return f"unknown field {key!r} in {where}. {hint}All: {', '.join(allowed)}"


def _check_splits(file: TaskFile) -> None:
    must = [k for k, (kinds, _) in SPLIT_FIELDS.items() if file.kind in kinds]
    wanted = ("train", "test") if file.trained else ("test",)
    one_folder = "images" in file.values
    if one_folder and wanted == ("train", "test") and "split" not in file.values:
        raise file.wrong(
            "a trained task needs two splits: add split = { test = 0.2 }, or tables [train] and [test]", "images"
        )
    for split in wanted:
        table = file.values if one_folder else file.values.get(split, {})
        for key in must:
            if key not in table:
                where = "" if one_folder else f" in [{split}]"
                raise file.wrong(f"{key!r} is missing{where}; {file.values['task']} needs {', '.join(must)}", split)
    named = file.kind == "segmentation" or file.values["task"] == "zero_shot_classification"
    if named and "classes" not in file.values:
        raise file.wrong("'classes' is missing: a list of names, or a text file with one name per line")
    _check_split_rule(file)


def check_apart(file: TaskFile) -> None:
    """Raises UsageError where [train] and [test] of a trained task are one folder or file, by whatever path."""
    if not file.trained or "images" in file.values:
        return
    train, test = (os.path.realpath(file.place(file.values[split]["images"])) for split in ("train", "test"))
    if train == test:
        message = f"images are those of [train], {train}: what is trained on cannot be scored. Name others"
        raise file.wrong(message, "test", "images")


def _check_split_rule(file: TaskFile) -> None:
    rule = file.values.get("split")
    if rule is None:
        return
    if set(rule) == {"test"} and isinstance(rule["test"], float) and 0 < rule["test"] < 1:
        return
    if set(rule) <= {"train", "test"} and "test" in rule and all(isinstance(v, str) for v in rule.values()):
        return
    raise file.wrong(
        'split must be { test = 0.2 } (a share, chosen by file name) or { train = "train.txt", test = "test.txt" }',
        "split",
    )
