"""What is asked for: the words of `--task` and a suite, by name or as a file of the user's own.

A suite file names tasks, and where wanted how each is measured and judged:

    title = "What my encoder is for"
    tasks = ["my_task.toml", "depth/nyuv2", { task = "ade20k", protocol = "paper", limit = 500, tolerance = 0.5 }]
    protocol = "fast"

`protocol`, `limit` and `tolerance` of a task go before those of the whole file, and the command line's before both.
Paths start at the file.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from benchmark.engine.options import LEAST
from benchmark.errors import UsageError, unknown
from benchmark.registry import Unit, suites, units
from benchmark.rows.row import slug
from benchmark.system.plurals import number_of

PRESET = "fast"
HOW: dict[str, tuple[type, ...]] = {"protocol": (str,), "limit": (int,), "tolerance": (int, float)}
OF_FILE: dict[str, tuple[type, ...]] = {"title": (str,), "tasks": (list,), **HOW}
OF_TASK: dict[str, tuple[type, ...]] = {"task": (str,), **HOW}


@dataclass(frozen=True)
class Choice:
    """What is to be measured."""

    units: tuple[Unit, ...]
    preset: str = PRESET  # of those that name none
    tolerances: Mapping[str, float] = field(default_factory=dict)  # unit -> smallest drop that counts


def choose(words: Sequence[str], suite: str | None) -> Choice:
    """The units of `--task` words and of a suite, a name or a `.toml` file, without repeats.

    Raises UsageError for unknown names, and for a mistake in a file with its line.
    """
    of_suite = Choice(()) if suite is None else _of_suite(suite)
    found = list(dict.fromkeys([*of_suite.units, *(unit for word in words for unit in units(word))]))
    if not found:
        raise UsageError("nothing to run. Give --task or --suite; see bench ls tasks")
    _refuse_one_name(found)
    return replace(of_suite, units=tuple(found))


def label(words: Sequence[str], suite: str | None) -> str:
    """How people call a choice: the suite's name or its file's, and the words of `--task`, files by their names."""
    return ", ".join(
        Path(word).name if word.endswith(".toml") else word for word in ([suite] if suite else []) + [*words]
    )


def identity(choice: Choice) -> list[str]:
    """The units with what decides their numbers, for those who keep rows of them: a preset, a limit."""
    return [
        str(unit)
        + (f" by {unit.protocol or choice.preset}" if (unit.protocol or choice.preset) != PRESET else "")
        + (f", {number_of(unit.limit, 'sample')}" if unit.limit is not None else "")
        for unit in choice.units
    ]


def _of_suite(suite: str) -> Choice:
    if suite.endswith(".toml"):
        return read_suite_file(Path(suite))
    if suite not in suites():
        raise unknown("suite", suite, suites(), "bench ls suites, or a file SUITE.toml of your own")
    found = dict.fromkeys(unit for word in suites()[suite]["units"] for unit in units(word))
    return Choice(tuple(found), suites()[suite]["protocol"])


def read_suite_file(path: Path) -> Choice:
    """The choice that a suite file makes. Raises UsageError with the line of a mistake."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text)
    except OSError as e:
        raise UsageError(f"--suite {path}: cannot be read ({e.strerror}). See bench ls suites") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text. Save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise UsageError(f"{path}: is not TOML: {e}") from None

    def wrong(message: str, key: str) -> NoReturn:
        assigned = re.compile(rf"(^|[{{,\s\"'])['\"]?{re.escape(key)}['\"]?\s*=")
        lines = text.splitlines()
        raise UsageError(f"{path}:{next((i for i, x in enumerate(lines, 1) if assigned.search(x)), 1)}: {message}")

    if "task" in values and "tasks" not in values:
        wrong(f"this is a task, no suite: --task {path}, or a suite file with tasks = [{path.name!r}]", "task")
    _check(values, OF_FILE, "a suite", wrong)
    if not values.get("tasks"):
        wrong("'tasks' is missing or empty: a list of what --task takes, e.g. tasks = [\"my_task.toml\"]", "tasks")
    found: dict[Unit, Unit] = {}
    tolerances: dict[str, float] = {}
    for entry in values["tasks"]:
        said = {"task": entry} if isinstance(entry, str) else entry
        if not isinstance(said, dict) or "task" not in said:
            wrong(f"{entry!r} in tasks is no task: a word of --task, or a table {{ task = …, protocol = … }}", "tasks")
        _check(said, OF_TASK, "a task of a suite", wrong)
        how = {key: said.get(key, values.get(key)) for key in HOW}
        for unit in units(_from(path.parent, said["task"])):
            if unit in found:
                wrong(f"{unit} is in tasks twice. A suite measures each task once", "tasks")
            found[unit] = replace(unit, protocol=how["protocol"], limit=how["limit"])
            if how["tolerance"] is not None:
                tolerances[str(unit)] = float(how["tolerance"])
    return Choice(tuple(found.values()), PRESET, tolerances)


def _from(folder: Path, word: str) -> str:
    """A word of `--task` whose file, where it names one, lies below the suite's `folder`."""
    prefix, path = ("mmseg:", word.removeprefix("mmseg:")) if word.startswith("mmseg:") else ("", word)
    return f"{prefix}{folder / Path(path).expanduser()}" if prefix or word.endswith(".toml") else word


def _check(values: Mapping[str, Any], known: Mapping[str, tuple[type, ...]], where: str, wrong: Any) -> None:
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            wrong(f"unknown field {key!r} in {where}. {hint}All: {', '.join(known)}", key)
        if not isinstance(value, known[key]) or isinstance(value, bool):
            kinds = " or ".join(kind.__name__ for kind in known[key])
            wrong(f"{key} = {value!r} is {type(value).__name__}, must be {kinds}", key)
        if key == "limit" and value < LEAST["--limit"]:
            wrong(f"limit = {value} is below {LEAST['--limit']}", key)
        if key == "tolerance" and not (math.isfinite(value) and value >= 0):
            wrong(f"tolerance = {value} must be 0 or more, on the metric's own scale", key)


def _refuse_one_name(found: Iterable[Unit]) -> None:
    """Raises UsageError for two files of the same name: tables show their rows by that name alone."""
    first: dict[tuple[str, str], Unit] = {}
    for unit in found:
        other = first.setdefault((unit.task, slug(unit.dataset)), unit)
        if other is not unit:
            raise UsageError(
                f"{other.path} and {unit.path} are both called {unit}: no table could tell them apart. Rename one"
            )
