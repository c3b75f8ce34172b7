"""Whether a config.json can be that of the weight files beside it, asked before anything is built.

Every layer has at least one tensor in the files, and every width, head and vocabulary entry at least one byte. A file
that asks for more would have a library make room for a model that nobody has, for hours or until memory ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from benchmark.errors import WeightsError

LAYERS = re.compile(r"(^|_)(layers?|depths?|blocks)$")
WIDTHS = re.compile(r"(^|_)(size|dims?|width|heads|channels|experts)$")
SIDES = ("image_size", "crop_size")
# A part of a model may lie alone beside the config of the whole: what libraries build by default passes anyway.
FLOORS = {"layers": 48, "widths": 4096, "vocab": 300_000}
LARGEST_SIDE = 16_384  # pixels: positions grow with its square


def check_config(path: Path, config: dict[str, Any], files: Sequence[Path]) -> None:
    """Raises WeightsError naming the field of `config` (from `path`) that is more than `files` can hold."""
    room = sum(file.stat().st_size for file in files)
    tensors = room  # of a .bin, which is not opened for this
    if all(file.suffix == ".safetensors" for file in files):
        tensors = sum(map(_tensors, files))
    for name, value in _numbers(config, ""):
        key = name.rpartition(".")[2]
        if key in SIDES:
            limit = LARGEST_SIDE
        elif LAYERS.search(key):
            limit = max(tensors, FLOORS["layers"])
        elif WIDTHS.search(key):
            limit = max(room, FLOORS["vocab" if key == "vocab_size" else "widths"])
        else:
            continue
        if value > limit:
            raise WeightsError(
                f"{path}: {name} is {value:.4g}, more than weight files of {room} bytes can hold. "
                "Download config.json again"
            )


def _tensors(file: Path) -> int:
    """How many tensors a file holds; its size for a damaged one, which whoever reads it names."""
    try:
        with safe_open(file, "pt") as handle:
            return len(list(handle.keys()))
    except (OSError, SafetensorError):
        return file.stat().st_size


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """(dotted name, value) of every whole number; those of a list under the list's name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("id2label", "label2id", "task_specific_params"):
                yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, float(min(value, 10**300))
    elif isinstance(value, float) and value > 2**53:
        yield name, value
