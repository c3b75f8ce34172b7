"""A published number that was missed: which unconfirmed fields can explain how much of the gap."""

from __future__ import annotations

from pathlib import Path

from benchmark.compare.papers import Reproduction
from benchmark.compare.report import number
from benchmark.rows.row import VARIANTS, read_all
from benchmark.sensitivity.effects import changes_of, effects

RESAMPLES = 2000


def explanations(found: Reproduction, results: Path) -> list[str]:
    """For each published number outside the measured interval, a line for each change that was run (`bench
    sensitivity`), the one that closes most of the gap first, and one that names what was not run."""
    variants, _ = read_all(results / VARIANTS)
    out = []
    for line in found.lines:
        p, row = line.published, line.row
        if row is None or not line.state.startswith("outside"):
            continue
        metric = row.data.metrics[p.metric]
        gap = p.value - metric.value
        out.append(f"{p.model_id} on {p.unit}, {p.metric}: {number(gap, metric.unit, signed=True)} to the published")
        tried = [e for e in effects([row], variants, [p], RESAMPLES) if e.metric == p.metric]
        for e in sorted(tried, key=lambda e: -e.delta / gap):
            inside = ", brings it inside the interval" if e.brings_inside else ""
            moved = number(e.delta, metric.unit, signed=True)
            out.append(f"  {e.change} ({e.status}): {moved}, {100 * e.delta / gap:.0f} % of the gap{inside}")
        known, run = {str(c) for c in changes_of(row) if len(c.alternatives) == 1}, {e.change for e in tried}
        left = [str(c) for c in changes_of(row) if str(c) in known - run]
        if left:
            preset = row.data.protocol.name.removesuffix("+set")
            again = f"bench sensitivity --model {p.model_id} --task {p.unit} --protocol {preset}"
            out.append(f"  not run: {', '.join(left)}. {again}")
    return out
