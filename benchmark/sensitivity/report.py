"""Effects as tables and lines, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.compare.report import number, table
from benchmark.sensitivity.effects import Effect, Order
from benchmark.sensitivity.measure import Sensitivity
from benchmark.system.plurals import number_of


def units(found: Sensitivity) -> dict[tuple[str, str], list[Effect]]:
    """(unit, metric) -> its effects, in the order they were measured."""
    out: dict[tuple[str, str], list[Effect]] = {}
    for e in found.effects:
        out.setdefault((e.unit, e.metric), []).append(e)
    return out


def header(some: Sequence[Effect]) -> list[str]:
    """The columns of one unit's table: one for each model."""
    several = ["order of models"] if len(models(some)) > 1 else []
    return ["change of the preset", "status", *models(some), *several]


def models(some: Sequence[Effect]) -> list[str]:
    """The models of these effects, in their order."""
    return list(dict.fromkeys(e.model for e in some))


def lines(some: Sequence[Effect], orders: Sequence[Order]) -> list[list[str]]:
    """One line for each change, the largest effect first: for each model Δ and its interval."""
    changes: dict[str, dict[str, Effect]] = {}
    for e in some:
        changes.setdefault(e.change, {})[e.model] = e
    kept = {o.change: o for o in orders if (o.unit, o.metric) == (some[0].unit, some[0].metric)}
    ranked = sorted(changes, key=lambda change: -max(abs(e.delta) for e in changes[change].values()))
    out = []
    for change in ranked:
        first = next(iter(changes[change].values()))
        order = kept.get(change)
        said = "" if order is None else "holds" if order.holds else " > ".join(order.found)
        cells = [_cell(changes[change].get(model)) for model in models(some)]
        out.append([change, first.status, *cells, *([said] if len(cells) > 1 else [])])
    return out


def _cell(e: Effect | None) -> str:
    if e is None:
        return "–"
    delta = number(e.delta, e.metric_unit, signed=True)
    if e.delta_ci95 is None:
        return f"{delta} (not paired: other samples or another statistic)"
    low, high = (number(v, e.metric_unit, signed=True) for v in e.delta_ci95)
    return f"{delta} [{low}, {high}]"


def preset_line(some: Sequence[Effect]) -> str:
    """What the preset itself gives, for each model."""
    first = {e.model: e for e in reversed(some)}
    said = []
    for model in models(some):
        e = first[model]
        low, high = (number(v, e.metric_unit) for v in e.base_ci95)
        said.append(f"{model} {number(e.base, e.metric_unit)} [{low}, {high}]")
    return f"{some[0].unit}, {some[0].metric} {some[0].metric_unit}: by the preset {', '.join(said)}"


def published_lines(found: Sensitivity) -> list[str]:
    """Which changes bring a published number inside the measured interval, or take it out."""
    out = []
    for e in found.effects:
        for what, numbers in (("brings", e.brings_inside), ("takes", e.takes_outside)):
            for p in numbers:
                where = "inside" if what == "brings" else "out of"
                out.append(f"{e.model} on {e.unit}: {e.change} {what} the published {p.value:g} {where} the interval")
    return out


def summary(found: Sensitivity) -> str:
    """One line: how many variants, whose order holds, and the fields that move most."""
    count = len({(e.unit, e.change) for e in found.effects})
    if not count:
        return "no variant was measured"
    several = f"; the order of the models holds in {found.held} of {len(found.main_orders)}" if found.orders else ""
    return f"{number_of(count, 'variant')}{several}. Their rows: sensitivity/ below the results"


def markdown(found: Sensitivity) -> str:
    """Everything, as one document."""
    out = ["# Sensitivity", "", summary(found), ""]
    for some in units(found).values():
        out += [f"## {preset_line(some)}", "", *table(header(some), lines(some, found.orders)), ""]
    if said := published_lines(found):
        out += ["## Published numbers", "", *(f"- {line}" for line in said), ""]
    return "\n".join(out)
