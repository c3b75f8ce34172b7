"""`bench sensitivity`: each unit by its preset and by every alternative of its unconfirmed fields, in one run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.contracts.progress import silent
from benchmark.engine.jobs import JobMaker, refuse_unread
from benchmark.engine.options import RunOptions
from benchmark.engine.report import Hooks, Report
from benchmark.engine.run import Variants, run
from benchmark.engine.suites import choose
from benchmark.errors import UsageError, unknown
from benchmark.protocol import Change, EvalProtocol
from benchmark.registry import load_task, protocol_file
from benchmark.rows.published import published_numbers
from benchmark.sensitivity.effects import RESAMPLES, Effect, Order, effects, is_variant, orders
from benchmark.sensitivity.kept import keep


@dataclass(frozen=True)
class Sensitivity:
    """What a run of variants found; `report` holds its rows, failures and forwards."""

    report: Report
    effects: tuple[Effect, ...]
    orders: tuple[Order, ...]

    @property
    def main_orders(self) -> tuple[Order, ...]:
        """Those by the main metric of each unit, which is the first of its effects."""
        main = {e.unit: e.metric for e in reversed(self.effects)}
        return tuple(order for order in self.orders if order.metric == main[order.unit])

    @property
    def held(self) -> int:
        """In how many variants the order of the models by the main metric holds."""
        return sum(order.holds for order in self.main_orders)


def variants(fields: Collection[str] = (), pairs: bool = False) -> Variants:
    """The changes of a preset to run: of `fields` alone where some are named, `task.field` or `field`."""

    def chosen(protocol: EvalProtocol) -> Sequence[Change]:
        own = [name.rpartition(".")[2] for name in fields if name.rpartition(".")[0] in ("", protocol.task)]
        return protocol.changes(own, pairs) if own or not fields else []

    return chosen


def refuse_unvaried(fields: Collection[str], words: Sequence[str], suite: str | None, options: RunOptions) -> None:
    """Raises UsageError for a field that no unit has an alternative of, or where there is none at all."""
    chosen = choose(words, suite)
    refuse_unread(options.overrides, chosen.units)
    maker = JobMaker(options, chosen.preset, silent)
    known: set[str] = set()
    for unit in chosen.units:
        if (protocol := maker.check_protocol(unit)) is None:
            protocol = maker.protocol(unit, load_task(unit.task))
        own = {one.field for one in protocol.alternatives}
        known |= own | {f"{unit.task}.{name}" for name in own}
    plain = sorted(name for name in known if "." not in name)
    for name in fields:
        if name not in known:
            raise unknown("field with alternatives", name, known, ", ".join(plain) or "none")
    if not known:
        files = ", ".join(sorted({protocol_file(unit.task).name for unit in chosen.units}))
        raise UsageError(
            f"no field of {options.protocol or chosen.preset} has an alternative in {files}: it is as its source has it"
        )


def sensitivity(
    models: Sequence[str],
    tasks: Sequence[str] = (),
    *,
    suite: str | None = None,
    fields: Collection[str] = (),
    pairs: bool = False,
    options: RunOptions | None = None,
    hooks: Hooks | None = None,
    resamples: int = RESAMPLES,
    **more: Any,
) -> Sensitivity:
    """Runs `tasks` and `suite` for `models` by the preset and by its alternatives, one at a time (`pairs`: and two).

    Rows of variants are written below `<results>/sensitivity` and equal those of `bench run --set`; what was found
    stands beside them in effects.json, which the leaderboard draws. Raises UsageError as `run` does, and where no field
    has an alternative.
    """
    options = options or RunOptions(**more)
    refuse_unvaried(fields, tasks, suite, options)
    report = run(models, tasks, suite=suite, options=options, hooks=hooks, variants=variants(fields, pairs))
    varied = {id(row) for row in report.rows if is_variant(row, options.results)}
    bases, others = ([row for row in report.rows if (id(row) in varied) is told] for told in (False, True))
    found = effects(bases, others, published_numbers(options.results), resamples)
    keep(options.results, found)
    return Sensitivity(report, tuple(found), tuple(orders(found)))
