"""Rows of a preset and of its variants become effects: what each change moves, and what it leaves in order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.compare.compare import sample_ids
from benchmark.protocol import Change, load_protocol, presets
from benchmark.registry import load_task, protocol_file
from benchmark.rows.published import PublishedNumber
from benchmark.rows.row import VARIANTS, Row
from benchmark.statistics.paired import paired
from benchmark.system.digest import canonical_json

RESAMPLES = 10_000  # as bench compare
LISTS = {"voc_train"}  # fields that choose other training pictures


@dataclass(frozen=True)
class Effect:
    """One metric of one model on one unit: the preset's row, and that of a variant."""

    model: str
    unit: str
    fields: tuple[str, ...]  # those that the change is about: one, or two of a pair
    change: str
    status: str  # of the least sure of `fields`
    reason: str
    metric: str
    metric_unit: str
    higher_is_better: bool
    base: float
    value: float
    base_ci95: tuple[float, float]
    value_ci95: tuple[float, float]
    delta_ci95: tuple[float, float] | None  # of value - base on the same samples; None where they cannot be paired
    published: tuple[PublishedNumber, ...]
    folder: Path  # of the variant's row
    base_folder: Path

    @property
    def delta(self) -> float:
        """The paired change, variant − preset, in the metric's unit."""
        return self.value - self.base

    @property
    def brings_inside(self) -> tuple[PublishedNumber, ...]:
        """Published numbers outside the preset's 95 % interval that lie in the variant's."""
        return tuple(p for p in self.published if not _in(p.value, self.base_ci95) and _in(p.value, self.value_ci95))

    @property
    def takes_outside(self) -> tuple[PublishedNumber, ...]:
        """Published numbers in the preset's interval that the variant's leaves out."""
        return tuple(p for p in self.published if _in(p.value, self.base_ci95) and not _in(p.value, self.value_ci95))


@dataclass(frozen=True)
class Order:
    """The models of one unit by one metric, best first, by the preset and by a variant."""

    unit: str
    change: str
    metric: str
    base: tuple[str, ...]
    found: tuple[str, ...]
    holds: bool  # no two models have changed places; a tie is no change


def is_variant(row: Row, results: Path) -> bool:
    """Whether the row lies where variants do: `<results>/sensitivity/<model>/<task>/<dataset>/<protocol>`."""
    return row.folder.absolute().is_relative_to((results / VARIANTS).absolute())


def effects(
    bases: Iterable[Row],
    variants: Collection[Row],
    published: Sequence[PublishedNumber],
    resamples: int = RESAMPLES,
) -> list[Effect]:
    """What the change of each variant moves: its main metric, and every metric that has a published number.

    A variant is set beside the row of the same model, unit, data, seed, dtype and backend, unless it alone is stale.
    """
    found = []
    for base in bases:
        known = {canonical_json(c.values): c for c in changes_of(base)}
        for row in variants:
            if _same_but_protocol(base, row):
                values = changed(base, row)
                same_data = base.data.task.dataset_digest == row.data.task.dataset_digest or LISTS & values.keys()
                if not same_data or (row.stale and not base.stale):
                    continue
                change = known.get(canonical_json(values))
                metrics = _metrics(base, row, published)
                found += [_effect(base, row, m, values, change, published, resamples) for m in metrics]
    return found


def changes_of(row: Row) -> list[Change]:
    """The changes, one or two alternatives each, that today's preset of `row` knows; none of a preset that has gone."""
    task, dataset, preset = row.data.task.name, row.data.task.dataset, row.data.protocol.name.removesuffix("+set")
    path = protocol_file(task)
    if preset not in presets(path):
        return []
    name = None if row.data.task.place else dataset
    return load_protocol(task, load_task(task).schemas, path, preset, None, name).changes(pairs=True)


def changed(base: Row, row: Row) -> dict[str, object]:
    """Field -> value in `row`, of the fields in which its protocol differs from `base`'s."""
    before = {name: entry.value for name, entry in base.data.protocol.fields.items()}
    after = {name: entry.value for name, entry in row.data.protocol.fields.items()}
    return {name: after[name] for name in after if name not in before or after[name] != before[name]}


def _same_but_protocol(base: Row, row: Row) -> bool:
    def rest(one: Row) -> tuple[object, ...]:
        d = one.data
        preset = d.protocol.name.removesuffix("+set")
        return one.model, one.unit, preset, d.protocol.schema, one.variant, d.task.limit, d.model.weights

    return rest(base) == rest(row) and base.protocol_hash != row.protocol_hash


def _metrics(base: Row, row: Row, published: Sequence[PublishedNumber]) -> list[str]:
    told = {p.metric for p in published if p.model_id == base.model and p.unit == base.unit}
    wanted = dict.fromkeys((base.data.main_metric, *sorted(told)))
    return [name for name in wanted if name in base.data.metrics and name in row.data.metrics]


def _effect(
    base: Row,
    row: Row,
    metric: str,
    values: dict[str, object],
    change: Change | None,
    published: Sequence[PublishedNumber],
    resamples: int,
) -> Effect:
    facts, other = base.data.metrics[metric], row.data.metrics[metric]
    interval = None
    if facts.statistic == other.statistic and np.array_equal(sample_ids(base), sample_ids(row)):
        interval = paired(base.samples, row.samples, facts.statistic, resamples=resamples, seed=base.data.seed).ci95
    fields = tuple(a.field for a in change.alternatives) if change else tuple(values)
    sure = [base.data.protocol.fields[name].status for name in fields if name in base.data.protocol.fields]
    return Effect(
        model=base.model, unit=base.unit, fields=fields,
        change=str(change) if change else ", ".join(f"{k} = {v}" for k, v in values.items()),
        status=next((s for s in ("unknown", "inferred") if s in sure), "confirmed"),
        reason="; ".join(a.reason for a in change.alternatives) if change else "",
        metric=metric, metric_unit=facts.unit, higher_is_better=facts.higher_is_better,
        base=facts.value, value=other.value, base_ci95=facts.ci95, value_ci95=other.ci95, delta_ci95=interval,
        published=tuple(p for p in published if (p.model_id, p.unit, p.metric) == (base.model, base.unit, metric)),
        folder=row.folder, base_folder=base.folder,
    )  # fmt: skip


def orders(found: Sequence[Effect]) -> list[Order]:
    """For each unit, change and metric that at least two models were scored under: whether their order holds."""
    groups: dict[tuple[str, str, str], list[Effect]] = {}
    for e in found:
        groups.setdefault((e.unit, e.change, e.metric), []).append(e)
    out = []
    for (unit, change, metric), some in groups.items():
        if len(some) > 1:
            base, new = _ranked(some, "base"), _ranked(some, "value")
            turned = [_signs(a, b) for i, a in enumerate(some) for b in some[i + 1 :]]
            out.append(Order(unit, change, metric, base, new, all(sign >= 0 for sign in turned)))
    return out


def _signs(a: Effect, b: Effect) -> float:
    """Below 0 where the two models have changed places."""
    return (
        math.copysign(1, a.base - b.base)
        * math.copysign(1, a.value - b.value)
        * (a.base != b.base and a.value != b.value)
    )


def _ranked(some: Sequence[Effect], of: str) -> tuple[str, ...]:
    best = sorted(some, key=lambda e: getattr(e, of), reverse=some[0].higher_is_better)
    return tuple(e.model for e in best)


def _in(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= value <= interval[1]


def as_json(effect: Effect) -> dict[str, object]:
    """What `--json` prints of an effect."""
    body = {f.name: getattr(effect, f.name) for f in dataclasses.fields(effect)}
    body |= {"delta": effect.delta, "folder": str(effect.folder), "base_folder": str(effect.base_folder)}
    for name in ("published", "brings_inside", "takes_outside"):
        body[name] = [{"value": p.value, "source": p.source} for p in getattr(effect, name)]
    return body
