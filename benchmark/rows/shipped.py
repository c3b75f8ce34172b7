"""The rows that come with densebench: embedded models and floors on scenes, measured before and not by the user.

They lie under `results/reference/<model>/…` and nowhere else (pyproject.toml ships that folder in wheels too), so that
`bench run` never finds them as its own rows and always makes the user's. They are shown where nobody measured better:
a user's row of the same model, unit, protocol hash and data takes the place of the shipped one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark.rows.row import Row, read_all

FOLDER = "reference"  # below the results folder of a checkout
BESIDE = ("clip-mini", "random-vit", "pixels")  # what bench run shows beside the models it ran


def key_of(row: Row) -> tuple[str, ...]:
    """What makes two rows the same measurement: model, unit, folder (protocol, hash, seed, dtype …) and data."""
    return (row.model, row.unit, row.folder.name, str(row.data.task.dataset_digest))


def beside(mine: Iterable[Row], reference: Path | None) -> tuple[list[Row], list[str]]:
    """The shipped rows that `mine` does not hold, and one line for each shipped file that is damaged."""
    if reference is None or not reference.is_dir():
        return [], []
    rows, problems = read_all(reference)
    taken = {key_of(row) for row in mine}
    return [row for row in rows if key_of(row) not in taken], problems


def columns(mine: Sequence[Row], reference: Path, models: Sequence[str] = BESIDE) -> list[Row]:
    """Shipped rows of `models` on the units, protocol hashes and data of `mine`, for models that `mine` lacks."""
    wanted = {(row.unit, row.folder.name, str(row.data.task.dataset_digest)) for row in mine}
    measured = {row.model for row in mine}
    rows, _ = beside(mine, reference)
    found = [r for r in rows if r.model in models and r.model not in measured and key_of(r)[1:] in wanted]
    return sorted(found, key=lambda row: models.index(row.model))


def origin(rows: Sequence[Row]) -> str:
    """`densebench 0.1.0 (1a2b3c4)` of each version that made `rows`."""
    made = [row.data.environment.densebench for row in rows]
    words = [d.version + (f" ({d.commit[:7]})" if d.commit else "") for d in made]
    return "densebench " + ", ".join(dict.fromkeys(words))
