"""Where the metrics of one board put its models in other orders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.rows.row import Row
from benchmark.rows.tables import CEILING


def disagreement(rows: Sequence[tuple[str, Row]]) -> str:
    """ "Ordered by RMSE, which disagrees with δ1 on 1 of 3 pairs of models (first by δ1: a)"; empty where none does.

    `rows`: names and rows of one board. A pair that is equal by either metric is no disagreement.
    """
    if len(rows) < 2:
        return ""
    main = rows[0][1].data.main_metric
    said = []
    for metric in dict.fromkeys(name for _, row in rows for name in row.data.metrics):
        if metric.startswith(CEILING):
            continue
        both = [(name, row) for name, row in rows if metric in row.data.metrics]
        by_main, by_metric = _goodness(both, main), _goodness(both, metric)
        turned = int(np.sum(_order(by_main) * _order(by_metric) < 0)) // 2
        if turned:
            first = both[int(np.argmax(by_metric))][0]
            other = bool(by_metric.max() > by_metric[int(np.argmax(by_main))])
            pairs = len(both) * (len(both) - 1) // 2
            said.append(f"{metric} on {turned} of {pairs} pairs of models" + f" (first by it: {first})" * other)
    return f"Ordered by {main}, which disagrees with {', '.join(said)}" if said else ""


def _goodness(rows: Sequence[tuple[str, Row]], metric: str) -> np.ndarray:
    """[N] values of `metric`, more is better."""
    facts = [row.data.metrics[metric] for _, row in rows]
    return np.array([m.value if m.higher_is_better else -m.value for m in facts])


def _order(good: np.ndarray) -> np.ndarray:
    """[N, N] 1 where the row is better than the column, −1 where it is worse."""
    return np.asarray(np.sign(good[:, None] - good[None, :]), np.int8)
