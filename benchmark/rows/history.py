"""What a row said before it was made again: its predecessors, and what had changed."""

from __future__ import annotations

from benchmark.errors import BenchError
from benchmark.rows.row import HISTORY, Row, read_row
from benchmark.rows.schema import RowData


def predecessors(row: Row) -> list[tuple[Row, str]]:
    """The rows that lay in the place of `row`, newest first, each with what then changed; a damaged one is left out."""
    found: list[Row] = []
    for file in (row.folder / HISTORY).glob("*.json"):
        try:
            found.append(read_row(file))
        except BenchError:
            continue
    found.sort(key=lambda one: one.data.created, reverse=True)
    return [(old, changed(old.data, new.data)) for old, new in zip(found, [row, *found])]


def changed(old: RowData, new: RowData) -> str:
    """Why `new` is not `old`, in words."""
    facts = {
        "the weights": (old.model.weights.sha256, new.model.weights.sha256),
        "the data": (old.task.dataset_digest, new.task.dataset_digest),
        "the adapter's code": (old.model.code, new.model.code),
        "what is asked of the task": (old.task.limit, new.task.limit),
    }
    said = [what for what, (before, after) in facts.items() if before != after]
    if old.task.version != new.task.version:
        said.append(f"the version of the task, {old.task.version} to {new.task.version}")
    return ", ".join(said) or "nothing that rows name"
