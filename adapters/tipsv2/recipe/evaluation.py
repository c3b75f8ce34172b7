"""The nine tasks of the `scenes` suite through the ordinary engine, on an exported checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENGINE = ("benchmark", "run")  # reached by name: adapters lie below the engine
MODEL = "tipsv2-mini"  # its builder reads every size from config.json
SUITE = "scenes"


def evaluate(folder: Path, out: Path, units: Sequence[str] = (), **options: Any) -> dict[str, dict[str, float]]:
    """{"evaluation": {"depth/scenes": main metric, …}} of the exported `folder`; rows lie under `out`/results.

    `units` are words of --task; empty: the `scenes` suite.

    Tasks that fail are left out and listed under "failures"; the run that asked goes on.
    """
    run = getattr(importlib.import_module(ENGINE[0]), ENGINE[1])
    results = out / "results" / folder.name
    suite = None if units else SUITE
    report = run([MODEL], units, suite=suite, weights=str(folder), results=results, force=True, **options)
    values = {row.unit: float(row.main.value) for row in report.rows}
    failed = {f"{note.unit}": note.text for note in report.failures}
    return {"evaluation": values} | ({"failures": failed} if failed else {})
