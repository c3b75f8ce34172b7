"""Two checkpoints on the same samples: paired differences with intervals, adjusted p-values and verdicts.

Only rows of one protocol hash, one dataset digest and one set of sample ids are paired; any other pair is refused by
name. Δ is B − A in the metric's own unit, so its sign is the metric's, and the verdict says which way is good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np

from benchmark.compare.classes import ClassChange, class_changes
from benchmark.compare.next_step import missing
from benchmark.compare.noise_floor import key_of
from benchmark.compare.published import PublishedGap, gaps, protocol_lines
from benchmark.compare.sides import PUBLISHED, Side, label, open_side
from benchmark.compare.wanted import Wanted, of_rows
from benchmark.errors import BenchError, UsageError
from benchmark.rows.row import Row
from benchmark.rows.schema import Environment
from benchmark.rows.shipped import origin
from benchmark.rows.tables import CEILING, stale_lines
from benchmark.statistics.multiple import holm, minimum_detectable_effect
from benchmark.statistics.paired import paired
from benchmark.system.paths import reference_dir
from benchmark.system.plurals import number_of

Verdict = Literal["better", "worse", "no difference", "undecided", "too little data"]
ALPHA = 0.05
RELEVANT_POINTS = 2.0  # a difference of so many percentage points is worth knowing
RELEVANT_SHARE = 0.05  # the same for metrics in metres or degrees, as a share of A's value
FEWEST_SAMPLES = 10  # samples, or clusters where the metric has them
ID_COLUMNS = ("id", "image_id", "sample_id", "sample")


@dataclass(frozen=True)
class UnitComparison:
    """One metric of one unit, A against B."""

    unit: str
    protocol: str  # name-hash8
    metric: str
    metric_unit: str
    higher_is_better: bool
    n: int  # samples
    independent: int  # clusters where the metric has them, else samples
    a: float
    b: float
    delta: float  # b - a
    ci95: tuple[float, float]
    p: float
    p_adjusted: float
    method: str
    error: float  # standard error of delta
    mde: float  # the true |delta| that this table's test finds four times out of five
    tolerance: float
    verdict: Verdict
    classes: tuple[ClassChange, ...] = ()
    stale: tuple[str, str] = ("", "")  # why A's and B's row are out of date, where they are


@dataclass(frozen=True)
class Comparison:
    """Everything `bench compare` says."""

    a: str
    b: str
    units: tuple[UnitComparison, ...] = ()
    refused: tuple[str, ...] = ()  # one line for each pair that must not be compared
    problems: tuple[str, ...] = ()  # rows of either side that are damaged or half-written
    unpaired: tuple[str, ...] = ()  # units that only B has
    published: tuple[PublishedGap, ...] = field(default=())
    conditions: tuple[str, ...] = ()  # one line for each way in which the sides were measured unlike or are stale

    @property
    def regressions(self) -> tuple[UnitComparison, ...]:
        return tuple(u for u in self.units if u.verdict == "worse")


def compare(
    a: str | Path,
    b: str | Path,
    *,
    results: Path = Path("results"),
    tasks: Sequence[str] = (),
    suite: str | None = None,
    only: Wanted | None = None,
    tolerance: float | None = None,
    floors: Mapping[str, float] | None = None,
    all_metrics: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """A (the baseline) against B (the candidate): paths, model names in `results`, or `published`.

    Of the units that `tasks` and `suite` name, as the command line has them, or of `only`; else of all that A has.
    `tolerance` is in each metric's unit; None takes, for main metrics, what the suite says, else the unit's measured
    noise floor (`floors`: "unit@hash8" -> value), else 0. Raises UsageError when a side does not exist or no pair of
    rows could be compared.
    """
    if PUBLISHED in (str(a), str(b)):
        return _against_published(str(a), str(b), results, tasks, suite)
    side_a, side_b = open_side(str(a), results), open_side(str(b), results)
    only = only or of_rows(tasks, suite, (side_a, side_b))
    lost = []
    if only:
        side_a, side_b = only.rows(side_a), only.rows(side_b)
        lost = only.lost(side_a, side_b)
    pairs, refused = pair_rows(side_a, side_b)
    refused += lost
    found = [
        _compare_metric(
            ra, rb, name, _tolerance(ra, name, tolerance, only, floors or {}), resamples=resamples, seed=seed
        )
        for ra, rb in pairs
        for name in (_judged_metrics(ra, rb) if all_metrics else [ra.data.main_metric])
    ]
    if not found:
        raise UsageError(f"{side_a.name} and {side_b.name} share no comparable row. " + "; ".join(refused[:3]))
    return Comparison(
        a=side_a.name,
        b=side_b.name,
        units=_judge(found),
        refused=tuple(refused),
        problems=(*side_a.problems, *side_b.problems),
        unpaired=() if only else _only_in_b(side_a, side_b),
        conditions=(*shipped_lines(side_a, side_b), *unlike(pairs)),
    )


def shipped_lines(*sides: Side) -> tuple[str, ...]:
    """One line for sides whose rows come with densebench: they were not measured here."""
    place, found = reference_dir().resolve(), dict[str, list[str]]()
    for side in sides:
        if side.rows and side.root.resolve().is_relative_to(place):
            found.setdefault(origin(side.rows), []).append(side.name)
    return tuple(
        f"{', '.join(dict.fromkeys(names))}: shipped rows, measured earlier with {made}, not here"
        for made, names in found.items()
    )


def unlike(pairs: Sequence[tuple[Row, Row]]) -> tuple[str, ...]:
    """One line for each condition, not the model's weights or the protocol, that differs within pairs of rows, and for
    each reason for which some are out of date."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for a, b in pairs:
        for what, of in CONDITIONS.items():
            one, other = of(a), of(b)
            if one and other and one != other:
                found.setdefault((what, one, other), []).append(a.unit)
    lines = [
        f"{', '.join(units)}: {what} {one} in A and {other} in B: that too may make Δ"
        for (what, one, other), units in found.items()
    ]
    return (*lines, *stale_lines(row for pair in pairs for row in pair))


CONDITIONS: Mapping[str, Callable[[Row], str | None]] = {
    "features were kept (--store) as": lambda row: row.store,
    "the number type is": lambda row: row.data.model.dtype,
    "the backend is": lambda row: row.data.model.backend,
    "the machine is": lambda row: machine(row.data.environment),
    "the seed is": lambda row: str(row.data.seed),
}


def machine(environment: Environment) -> str | None:
    """The GPU, or the CPU's vector instructions as torch uses them; None for a row that does not say."""
    vectors = environment.instruction_set
    return environment.gpu or (f"a CPU with {vectors}" if vectors else None)


def pair_rows(a: Side, b: Side) -> tuple[list[tuple[Row, Row]], list[str]]:
    """Rows of one unit, hash, digest and sample set; and one line for each pair that was refused or is missing."""
    pairs, refused = [], []
    for row in sorted(a.rows, key=lambda r: (r.unit, r.folder.name)):
        other = _partner(row, a, b)
        reason = other if isinstance(other, str) else refusal(row, other)
        if reason:
            refused.append(reason)
        else:
            pairs.append((row, cast(Row, other)))
    return pairs, refused


def _only_in_b(a: Side, b: Side) -> tuple[str, ...]:
    """One line for each unit of B of which A has no row: new in B, or lost from A."""
    lost = sorted({row.unit for row in b.rows} - {row.unit for row in a.rows})
    return tuple(f"{unit}: not compared: only B ({b.name}) has a row of it" for unit in lost)


def _partner(row: Row, a: Side, b: Side) -> Row | str:
    """B's row for A's `row`, or why there is none. Rows that differ only in seed, dtype … go by their folder's name."""
    same_unit = [r for r in b.rows if r.unit == row.unit]
    found = [r for r in same_unit if r.protocol_hash == row.protocol_hash]
    if not same_unit:
        return missing(row.unit, b, row)
    if not found:
        names = ", ".join(sorted({label(r) for r in same_unit}))
        return f"{row.unit}: not compared: the protocols differ (A {label(row)}, B {names})"
    found = [r for r in found if r.data.task.dataset_digest == row.data.task.dataset_digest] or found
    named = [r for r in found if r.folder.name == row.folder.name]
    taken = {r.folder.name for r in a.rows if r.unit == row.unit}
    free = named or [r for r in found if r.folder.name not in taken]
    if len(free) != 1:
        there = number_of(len(free), "row")
        return f"{row.unit}: not compared: B has {there} for A's {row.folder.name}. Name the folders of two rows"
    return free[0]


def refusal(a: Row, b: Row) -> str | None:
    """Why two rows of one unit and hash must not be paired, or None."""
    da, db = a.data.task.dataset_digest, b.data.task.dataset_digest
    if da != db:
        return f"{a.unit}: not compared: the dataset digests differ ({str(da)[:12]} and {str(db)[:12]})"
    if other := next((m for m in _shared_metrics(a, b) if a.statistic(m) != b.statistic(m)), None):
        return (
            f"{a.unit}: not compared: {other} is computed or resampled in two ways, by two versions of densebench. "
            "Make the older row again with --force"
        )
    try:
        ids_a, ids_b = sample_ids(a), sample_ids(b)
    except BenchError as e:
        return f"{a.unit}: not compared: {e}"
    if len(ids_a) != len(ids_b) or not np.array_equal(ids_a, ids_b):
        shared = len(np.intersect1d(ids_a, ids_b))
        return f"{a.unit}: not compared: the samples differ ({len(ids_a)} and {len(ids_b)}, {shared} in common)"
    return None


def sample_ids(row: Row) -> np.ndarray:
    """[N] the row's sample ids; their positions where it has no id column (the digest then fixes the order)."""
    for name in ID_COLUMNS:
        if name in row.samples:
            return row.samples[name]
    return np.arange(len(next(iter(row.samples.values()))))


def _shared_metrics(a: Row, b: Row) -> list[str]:
    return [m for m in a.data.metrics if m in b.data.metrics]


def _judged_metrics(a: Row, b: Row) -> list[str]:
    """Those that both have and that are qualities of a model; a ceiling is one of its patch grid."""
    return [m for m in _shared_metrics(a, b) if not m.startswith(CEILING)]


def _tolerance(row: Row, name: str, given: float | None, only: Wanted | None, floors: Mapping[str, float]) -> float:
    if given is None and name != row.data.main_metric:  # suites and floors speak of main metrics, in their unit
        return 0.0
    if given is None and only:
        given = only.tolerances.get(row.unit)
    return floors.get(key_of(row), 0.0) if given is None else given


def _compare_metric(a: Row, b: Row, metric: str, tolerance: float, resamples: int, seed: int) -> UnitComparison:
    """One metric before the p-values of the suite are adjusted; `_judge` fills in what depends on the others."""
    facts = a.data.metrics[metric]
    statistic = facts.statistic
    found = paired(a.samples, b.samples, statistic, resamples=resamples, seed=seed)
    value_a, value_b = statistic.of(a.samples), statistic.of(b.samples)
    return UnitComparison(
        unit=a.unit, protocol=label(a), metric=metric, metric_unit=facts.unit,
        higher_is_better=facts.higher_is_better, n=len(sample_ids(a)), independent=found.units,
        a=value_a, b=value_b, delta=value_b - value_a,
        ci95=found.ci95, p=found.p, p_adjusted=found.p, method=found.method, error=found.error, mde=float("nan"),
        tolerance=tolerance,
        verdict="no difference", classes=class_changes(a, b, metric), stale=(a.stale, b.stale),
    )  # fmt: skip


def _judge(found: Sequence[UnitComparison]) -> tuple[UnitComparison, ...]:
    """The same comparisons with Holm-adjusted p-values, the effects that such a test would find, and verdicts."""
    adjusted = holm([u.p for u in found])
    tests = int(np.isfinite(adjusted).sum())
    return tuple(
        replace(
            u, p_adjusted=float(p), verdict=verdict(u, float(p)),
            mde=minimum_detectable_effect(u.error, ALPHA, tests=tests),
        )
        for u, p in zip(found, adjusted)
    )  # fmt: skip


def verdict(u: UnitComparison, p_adjusted: float) -> Verdict:
    """What can be said of one unit.

    better / worse    significant after adjustment, and larger than the tolerance
    no difference     inside the tolerance; or the interval holds 0 and leaves out every difference worth knowing
                      (2 points; 5 % of A for metres and degrees)
    undecided         neither: there may be a difference worth knowing
    too little data   fewer than 10 samples (clusters where the metric has them), or no test was possible
    """
    if u.independent < FEWEST_SAMPLES or not np.isfinite(p_adjusted):
        return "too little data"
    low, high = u.ci95
    if p_adjusted < ALPHA:
        if abs(u.delta) <= u.tolerance:
            return "no difference"
        return "better" if (u.delta > 0) == u.higher_is_better else "worse"
    furthest = max(abs(low), abs(high))
    relevant = RELEVANT_POINTS if u.metric_unit == "%" else RELEVANT_SHARE * abs(u.a)
    sure = furthest <= u.tolerance or (low <= 0 <= high and furthest <= relevant)
    return "no difference" if sure else "undecided"


def _against_published(a: str, b: str, results: Path, tasks: Sequence[str], suite: str | None) -> Comparison:
    if a == b:
        raise UsageError("published against published: name a measured model on one side")
    side = open_side(b if a == PUBLISHED else a, results)
    if only := of_rows(tasks, suite, (side,)):
        side = only.rows(side)
    found, missing = gaps(side, results)
    return Comparison(
        a=a if a == PUBLISHED else side.name,
        b=b if b == PUBLISHED else side.name,
        refused=tuple(missing),
        problems=side.problems,
        published=tuple(found),
        conditions=(*shipped_lines(side), *protocol_lines(found), *stale_lines(side.rows)),
    )
