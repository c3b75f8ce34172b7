"""Which rows of two sides are compared, where --task or --suite say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmark.compare.next_step import missing
from benchmark.compare.sides import Side
from benchmark.engine.slots import NOT_APPLICABLE
from benchmark.engine.suites import Choice, choose
from benchmark.errors import UsageError
from benchmark.rows.row import Row, slug


@dataclass(frozen=True)
class Wanted:
    """Units, each with the preset and the limit that its rows should be of (None: any)."""

    units: Mapping[str, tuple[str | None, int | None]]
    tolerances: Mapping[str, float] = field(default_factory=dict)  # unit -> smallest drop that counts

    def rows(self, side: Side) -> Side:
        """`side` with the rows that are wanted. Where it has rows of the preset and limit asked for, only those: any
        other is shown to be another one by the comparison."""
        found = [row for row in side.rows if row.unit in self.units]
        fit = {row.unit for row in found if self._fits(row)}
        return replace(side, rows=tuple(row for row in found if row.unit not in fit or self._fits(row)))

    def _fits(self, row: Row) -> bool:
        preset, limit = self.units[row.unit]
        alike = preset is None or row.data.protocol.name.removesuffix("+set") == preset
        return alike and (preset is None or row.data.task.limit == limit)

    def lost(self, a: Side, b: Side) -> list[str]:
        """One line for each unit that is wanted and of which A has no row, though the model can do it: a comparison
        without it would pass for one of the whole. Units of A that B lacks are named where rows are paired."""
        there = {row.unit for row in a.rows}
        of_b = {row.unit: row for row in b.rows}
        return [
            missing(unit, a, of_b.get(unit))
            for unit in self.units
            if unit not in there and not _not_applicable(unit, a) and not _not_applicable(unit, b)
        ]


def _not_applicable(unit: str, side: Side) -> bool:
    task, _, dataset = unit.partition("/")
    notes = side.root.rglob(NOT_APPLICABLE) if side.root.is_dir() else ()
    return any(note.parts[-4:-2] == (slug(task), slug(dataset)) for note in notes)


def of_rows(words: Sequence[str], suite: str | None, sides: Sequence[Side]) -> Wanted | None:
    """What `--task` words and a suite mean for rows that are there; None without either.

    A word may be what a table shows of a row: its unit, task or data set, those of one's own too.
    Raises UsageError for other words, as `bench run` does.
    """
    if not words and suite is None:
        return None
    shown: dict[str, tuple[str | None, int | None]] = {}
    others = []
    for word in words:
        mine = [r.unit for s in sides for r in s.rows if word in (r.unit, r.data.task.name, r.data.task.dataset)]
        shown.update(dict.fromkeys(mine, (None, None)))
        others += [] if mine else [word]
    asked = wanted(choose(others, suite)) if others or suite else Wanted({})
    units = {unit: how if suite else (None, None) for unit, how in asked.units.items()}
    found = Wanted({**units, **shown}, asked.tolerances)
    if not any(row.unit in found.units for side in sides for row in side.rows):
        there = ", ".join(sorted({row.unit for side in sides for row in side.rows}))
        named = ", ".join([*words, *([suite] if suite else [])])
        raise UsageError(
            f"no row of {named} on either side. There: {there or 'nothing'}. Both rows are made by bench run with the "
            "same --task or --suite"
        )
    return found


def wanted(asked: Choice, protocol: str | None = None, limit: int | None = None) -> Wanted:
    """The rows that a run of `asked` makes, with --protocol and --limit where they are given."""
    how = {str(u): (protocol or u.protocol or asked.preset, u.limit if limit is None else limit) for u in asked.units}
    return Wanted(how, asked.tolerances)
