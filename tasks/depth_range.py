"""Whether a data set's metres can be metres: a wrong unit or limit is named, with what was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmark.errors import DataError

LOOKED_AT = 16  # maps of each split


def depth_range(data: Mapping[str, Any], near: float, far: float) -> dict[str, dict[str, float]]:
    """split -> median metres of some of its maps, and the share of their pixels with depth that lies in (near, far).

    Raises DataError where no pixel of a whole split does: what is read is then not what the file says it is.
    """
    return {split: _of(split, one, near, far) for split, one in data.items()}


def _of(split: str, data: Any, near: float, far: float) -> dict[str, float]:
    total = len(data.images)
    some = dict.fromkeys(np.linspace(0, total - 1, min(total, LOOKED_AT)).astype(int).tolist())
    kept: list[np.ndarray] = []
    inside = 0
    for index in [*some, *(i for i in range(total) if i not in some)]:
        if len(kept) >= len(some) and inside:
            break
        values = np.asarray(data.target(index))
        values = values[np.isfinite(values) & (values > 0)]
        inside += int(((values > near) & (values < far)).sum())
        kept.append(values)
    read = np.concatenate(kept) if kept else np.zeros(0)
    if not read.size:
        raise DataError(f"no pixel of the {split} pictures has a depth above 0: check the maps, 0 means unknown")
    if not inside:
        raise DataError(
            f"depths of the {split} pictures are read as {read.min():.4g} to {read.max():.4g} m (median "
            f"{np.median(read):.4g}), of which none lies between {near:g} and {far:g} m, as what counts does. Correct "
            "depth_scale (metres of one step) or max_depth of the task file, or --set max_depth"
        )
    return {"median_m": round(float(np.median(read)), 4), "counted": round(inside / read.size, 4)}
