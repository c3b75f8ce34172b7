"""Rows that today's code would not give again: of an older adapter, task, preset or embedded data set.

A row says what it was made with; rows of before they did are judged by what they say. Nothing here opens data, loads a
model or imports a task.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any

from benchmark.errors import BenchError
from benchmark.protocol import preset_table, presets
from benchmark.registry import code_versions, datasets, open_dataset, protocol_file, tasks
from benchmark.rows.schema import ProtocolFacts, RowData, TaskFacts
from benchmark.system.digest import fingerprint
from benchmark.system.escaping import printable

MARK = "‡"
AGAIN = "bench run makes such a row again"
LEGEND = f"{MARK} stale: not what this densebench would measure. {AGAIN[0].upper()}{AGAIN[1:]}."
FIELDS_NAMED = 2


def reason(row: RowData) -> str:
    """Why a row is out of date, in one line; empty for one that is not, and for what cannot be
    told."""
    found = (*_code(row.model.code), _task(row.task), _protocol(row.task, row.protocol), _data(row))
    return " ".join(printable("; ".join(filter(None, found))).split())  # a foreign row's words are among them


def _code(made_with: Mapping[str, str]) -> list[str]:
    known = code_versions()
    return [
        f"{module} is version {known[module]}, the row was made by {version}"
        for module, version in made_with.items()
        if module in known and str(version) != known[module]
    ]


def _task(task: TaskFacts) -> str:
    now = tasks().get(task.name, {}).get("version", 1)
    if task.version is None or task.name not in tasks() or task.version == now:
        return ""
    return f"task {task.name} is version {now}, the row was made by {task.version}"


def _protocol(task: TaskFacts, protocol: ProtocolFacts) -> str:
    """Whether the preset of that name has other values now. `--set` rows name no preset of ours."""
    name = protocol.name
    if name.endswith("+set") or task.name not in tasks() or not protocol.fields:
        return ""
    try:
        there, schema, today = _today(task.name, name, None if task.place else task.dataset)
    except Exception:  # of another package, whose file is not to be read here
        return ""
    if name not in there:
        return f"there is no preset {name} any more"
    made = {key: entry.value for key, entry in protocol.fields.items()}
    changed = [
        key for key in (*today, *made) if key not in today or key not in made or not _equal(made[key], today[key])
    ]
    if not changed and fingerprint({"task": task.name, "schema": schema, "fields": made}) == protocol.hash:
        return ""
    named = list(dict.fromkeys(changed))
    more = f" and {len(named) - FIELDS_NAMED} more" if len(named) > FIELDS_NAMED else ""
    return f"preset {name} has changed" + (f": {', '.join(named[:FIELDS_NAMED])}{more}" if named else "")


@cache
def _today(task: str, name: str, dataset: str | None) -> tuple[frozenset[str], str, Mapping[str, Any]]:
    """Presets of the task, and the schema and values of `name` on `dataset`."""
    path = protocol_file(task)
    known = frozenset(presets(path))
    if name not in known:
        return known, "", {}
    table, _ = preset_table(task, path, name, dataset)
    values = {key: entry["value"] for key, entry in table.items() if isinstance(entry, dict)}
    return known, str(table["schema"]), values


def _equal(made: Any, today: Any) -> bool:
    """Whether a row's value is that of the preset; a file is its digest in one and a path in the other."""
    of_file = isinstance(today, str) and today and isinstance(made, str) and made.startswith("sha256:")
    return bool(made == today or of_file)


def _data(row: RowData) -> str:
    """Whether an embedded data set has changed since. Options of `run()` give other data rightly: rows name them; older
    rows did not, and have no command where they came from `run()`."""
    task = row.task
    silent = task.version is None and not row.command
    if task.place or task.dataset_options or silent or row.n_bad:
        return ""
    known = _embedded(task.dataset, task.limit)
    return f"the data of {task.dataset} have changed" if known and task.dataset_digest not in known else ""


@cache
def _embedded(name: str, most: int | None) -> frozenset[str]:
    """Every digest that rows of an embedded data set may have today; empty for a data set that lies on a disk."""
    if not datasets().get(name, {}).get("embedded"):
        return frozenset()
    found: Any = open_dataset(name, None)
    digests: dict[tuple[str, str], str] = {}
    for kind, split in itertools.product(datasets()[name]["kinds"], ("train", "test")):
        try:
            whole = found.samples(kind, split)
            digests[kind, split] = whole.digest if most is None else whole.limited(most).digest
        except BenchError:  # has no such split
            continue
    out = set()
    for kind in datasets()[name]["kinds"]:
        both = {split: digests[kind, split] for split in ("train", "test") if (kind, split) in digests}
        out |= {fingerprint(both), fingerprint({"test": both["test"]})}
    return frozenset(out)
