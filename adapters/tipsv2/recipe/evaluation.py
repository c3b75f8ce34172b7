"""The nine tasks of the `scenes` suite through the ordinary engine, on an exported checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MODEL = "tipsv2-mini"  # its builder reads every size from config.json
SUITE = "scenes"
Run = Callable[..., Any]  # `benchmark.run`; adapters lie below the engine, so who trains hands it in


def evaluate(
    run: Run, folder: Path, out: Path, units: Sequence[str] = (), **options: Any
) -> dict[str, dict[str, float]]:
    """{"evaluation": {"depth/scenes": main metric, …}} of the exported `folder`; rows lie under `out`/results.

    `units` are words of --task; empty: the `scenes` suite.

    Tasks that fail are left out and listed under "failures"; the run that asked goes on.
    """
    results = out / "results" / folder.name
    suite = None if units else SUITE
    report = run([MODEL], units, suite=suite, weights=str(folder), results=results, force=True, **options)
    values = {row.unit: float(row.main.value) for row in report.rows}
    failed = {f"{note.unit}": note.text for note in report.failures}
    return {"evaluation": values} | ({"failures": failed} if failed else {})
