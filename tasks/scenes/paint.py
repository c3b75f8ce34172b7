"""Surface patterns of objects: where the second colour shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tasks.scenes.waves import fract, wave

OWN_TEXTURES = ("plain", "stripes", "checks", "dots")

Point = tuple[Any, Any, Any]


def _stripes(p: Point, n: float) -> Any:
    return wave(p[1] * n) > 0.25


def _checks(p: Point, n: float) -> Any:
    cells = np.floor(p[0] * n + 0.01) + np.floor(p[1] * n + 0.01) + np.floor(p[2] * n + 0.01)
    return fract(cells * 0.5) > 0.25


def _dots(p: Point, n: float) -> Any:
    x, y, z = (fract(c * n + 0.31) - 0.5 for c in p)
    return x * x + y * y + z * z < 0.14


def _leaves(p: Point, n: float) -> Any:
    return wave(p[0] * 3.1 + 0.3 * wave(p[2] * 4.3)) * wave(p[1] * 3.7 + 0.3 * wave(p[0] * 2.9)) > 0.12


_MASKS: dict[str, Callable[[Point, float], Any]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "leaves": _leaves,
    "wedges": lambda p, n: (p[0] > 0) ^ (p[2] > 0) ^ (p[1] > 0),
    "band": lambda p, n: ((p[1] > 0.30) & (p[1] < 0.47)) | ((p[1] > 0.62) & (p[1] < 0.72)),
    "hoops": lambda p, n: wave(p[1] * 4.0) < -0.8,
    "tiles": lambda p, n: fract(p[1] * 9.0) < 0.22,
    "waterline": lambda p, n: p[1] > 0.26,
    "spots": lambda p, n: _dots(p, 4.1),
    "sill": lambda p, n: p[1] < 0.20,
    "hub": lambda p, n: p[0] * p[0] + p[1] * p[1] < 0.0064,
}
# The second colour is the object's accent unless the pattern has one of its own.
_SECOND = {"band": (0.95, 0.95, 0.95), "waterline": (0.93, 0.90, 0.84), "spots": (0.96, 0.94, 0.88),
           "sill": (0.16, 0.16, 0.18), "hub": (0.70, 0.71, 0.73), "hoops": (0.20, 0.20, 0.22)}  # fmt: skip


def pattern(
    texture: str, p: Point, main: tuple[float, float, float], accent: tuple[float, float, float], frequency: float
) -> list[Any]:
    """RGB as three arrays [n] (or floats for a plain surface) at points `p` of a part's own frame."""
    if texture == "plain":
        return list(main)
    mask = _MASKS[texture](p, frequency)
    second = tuple(0.8 * c for c in main) if texture == "leaves" else _SECOND.get(texture, accent)
    return [np.where(mask, b, a) for a, b in zip(main, second)]
