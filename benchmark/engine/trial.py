"""An encoder tried on tasks, a few samples of each: what would stop a long run or a watch stops here, in seconds."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmark.check.findings import Finding, attempt, passed
from benchmark.contracts import Encoder
from benchmark.contracts.progress import silent
from benchmark.engine.jobs import JobMaker
from benchmark.engine.load_task import LoadedTask
from benchmark.engine.options import RunOptions
from benchmark.engine.suites import Choice
from benchmark.errors import NotApplicable
from benchmark.registry import Unit
from benchmark.rows.tables import number

FEW = 32  # samples of each split


def trial(encoder: Encoder, choice: Choice, options: RunOptions) -> list[Finding]:
    """One finding for each task of `choice`: it runs to a number on at most FEW samples, or is not applicable.

    Nothing is kept. Whether the number is good is not judged: so few samples cannot tell.
    """
    with tempfile.TemporaryDirectory(prefix="bench-check-") as scratch:
        few = replace(options, limit=FEW, cache=Path(scratch), check=False)
        maker = JobMaker(few, choice.preset, silent)
        return [f for unit in choice.units for f in attempt(str(unit), partial(_one, unit, encoder, maker, few))]


def _one(unit: Unit, encoder: Encoder, maker: JobMaker, options: RunOptions) -> Finding:
    try:
        outcome = LoadedTask(maker.make(unit), options).run(encoder)
    except NotApplicable as e:
        return passed(str(unit), f"n/a: {e}")
    main = next(m for m in outcome.measurements if m.name == outcome.main_metric)
    blind = outcome.chance(main)
    said = f"{main.name} {number(main.statistic.of(outcome.samples), main.unit)} {main.unit}".strip()
    chance = "" if blind is None else f", chance {number(blind, main.unit)}"
    return passed(str(unit), f"{said} on {outcome.n}{chance}")
