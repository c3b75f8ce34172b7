"""One model's rows beside what papers publish of it and what others measured: shown, never tested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.compare.sides import Side, label
from benchmark.rows.published import MeasuredElsewhere, measured_elsewhere, published_numbers
from benchmark.rows.row import Row

STATUSES = ("unknown", "inferred")


@dataclass(frozen=True)
class PublishedGap:
    """A measured metric beside a published one, what others measured of it, or both: neither gives samples."""

    unit: str
    metric: str
    metric_unit: str
    measured: float
    ci95: tuple[float, float]
    published: float | None  # None where others alone have a number
    source: str
    protocol: str
    n: int  # samples that were measured
    partial: bool  # measured on a part of the data (--limit, or a split that was not whole)
    stale: str = ""  # why the measured row is out of date, where it is
    elsewhere: tuple[MeasuredElsewhere, ...] = ()
    unconfirmed: str = ""  # fields of the row's protocol that nobody has confirmed, by status

    @property
    def inside(self) -> bool:
        """Whether the published number lies in the measured interval; never for a part of the data or a stale row."""
        if self.published is None or self.partial or self.stale:
            return False
        return self.ci95[0] <= self.published <= self.ci95[1]


def gaps(side: Side, results: Path) -> tuple[list[PublishedGap], list[str]]:
    """A line for each number that a paper or others have of a metric of `side`'s rows; and units without any."""
    numbers = [p for p in published_numbers(results) if p.model_id == side.name]
    others = [e for e in measured_elsewhere(results) if e.model == side.name]
    found: list[PublishedGap] = []
    missing = []
    for row in side.rows:
        before = len(found)
        for metric in row.data.metrics:
            theirs = tuple(e for e in others if (e.unit, e.metric) == (row.unit, metric))
            matching = [p for p in numbers if (p.unit, p.metric) == (row.unit, metric)]
            found += [_gap(row, metric, p.value, p.source, theirs) for p in matching]
            if theirs and not matching:
                found.append(_gap(row, metric, None, "", theirs))
        if len(found) == before:
            missing.append(f"{row.unit}: no published number of {side.name}")
    return found, missing


def _gap(
    row: Row, metric: str, value: float | None, source: str, elsewhere: tuple[MeasuredElsewhere, ...]
) -> PublishedGap:
    facts = row.data.metrics[metric]
    sure = [(name, entry.status) for name, entry in row.data.protocol.fields.items()]
    return PublishedGap(
        unit=row.unit, metric=metric, metric_unit=facts.unit, measured=facts.value, ci95=facts.ci95, published=value,
        source=source, protocol=label(row), n=row.data.task.n, partial=row.part, stale=row.stale, elsewhere=elsewhere,
        unconfirmed=unconfirmed_words(sure),
    )  # fmt: skip


def unconfirmed_words(fields: Iterable[tuple[str, str]]) -> str:
    """ "cls, view inferred; steps unknown" of (field, status); empty where all are confirmed."""
    by_status = {status: [name for name, found in fields if found == status] for status in STATUSES}
    return "; ".join(f"{', '.join(names)} {status}" for status, names in by_status.items() if names)


def protocol_lines(found: Sequence[PublishedGap]) -> list[str]:
    """By what protocol others measured, and which fields of the rows' own nobody has confirmed: one line each."""
    lines = [elsewhere_line(e) for gap in found for e in gap.elsewhere]
    lines += [f"{g.unit}: not confirmed in {g.protocol}: {g.unconfirmed}" for g in found if g.unconfirmed]
    return list(dict.fromkeys(lines))


def elsewhere_line(e: MeasuredElsewhere) -> str:
    """What is said of a number that others measured: by what protocol, and which fields of the preset differ."""
    differs = f"differs in: {e.differs}" if e.differs else "nothing is said that differs"
    return f"{e.model} on {e.unit}, {e.metric}: {e.value:g} by {e.tool} ({e.protocol}); {differs}; {e.source}"


def tools(elsewhere: Sequence[MeasuredElsewhere]) -> str:
    """ "92 (mteb)" of each."""
    return ", ".join(f"{e.value:g} ({e.tool})" for e in elsewhere)
