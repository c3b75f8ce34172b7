"""What a `result.json` must be for tables to read it: other people's rows are data, never trusted.

A field of another type, a number that is none, or a name that a terminal would obey is one line that names the file,
and the row is left out; no table meets it later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import BenchError
from benchmark.statistics.statistic import parse_statistic
from benchmark.system.escaping import CONTROL

Check = Callable[[Any], bool]
LARGEST = 2**63  # of whole numbers


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < LARGEST if isinstance(value, int) else math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST


def _name(value: Any) -> bool:
    return isinstance(value, str) and not CONTROL.search(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


REQUIRED: Mapping[str, Check] = {  # what every table reads without asking; "a.b" is key b of the object a
    "schema": _whole, "id": _name, "created": _name, "seed": _whole, "main_metric": _name, "n_bad": _whole,
    "model.name": _name, "model.dtype": _name, "model.weights.sha256": _or_none(_name),
    "task.name": _name, "task.dataset": _name, "task.n": _whole, "task.dataset_digest": _or_none(_name),
    "protocol.name": _name, "protocol.hash": _name, "metrics": _object, "timing.total_s": _number,
    "environment.densebench.version": _name,
}  # fmt: skip
OPTIONAL: Mapping[str, Check] = {
    "command": _text, "request": _name, "details": _or_none(_object), "kept_predictions": _whole,
    "bad": _lines, "partial": _lines, "notes": _lines, "samples_sha256": _name,
    "model.family": _or_none(_name), "model.backend": _or_none(_name), "model.licence": _or_none(_name),
    "model.params": _or_none(_whole), "model.weights.source": _or_none(_name), "model.code": _or_none(_object),
    "task.split": _or_none(_name), "task.limit": _or_none(_whole), "task.version": _whole,
    "task.dataset_options": _or_none(_object),
    "protocol.fields": _object, "protocol.schema": _or_none(_name), "timing.images_per_s": _or_none(_number),
    "timing.extract_s": _number, "timing.fit_s": _number, "timing.score_s": _number,
    "peak_memory_mb": _or_none(_number), "peak_gpu_memory_mb": _or_none(_number),
}  # fmt: skip
METRIC: Mapping[str, Check] = {
    "value": _number,
    "ci95": lambda ends: isinstance(ends, list) and len(ends) == 2 and all(map(_number, ends)),
    "higher_is_better": lambda value: isinstance(value, bool),
    "unit": _name,
    "statistic": _object,
}
OF_SOME_METRICS: Mapping[str, Check] = {"chance": _number}
IS = {
    _number: "a finite number", _whole: "a whole number", _name: "a name", _text: "text", _object: "an object",
    _lines: "a list of lines", METRIC["ci95"]: "[low, high]",
}  # fmt: skip


def check_row(file: Path, data: Any) -> None:
    """Raises BenchError naming `file` and the field for what is no whole row."""
    missing = object()
    lost = [key for key in REQUIRED if _at(data, key, missing) is missing]
    if lost:
        raise BenchError(f"{file}: not a densebench result: no {', '.join(lost)}")
    for key, check in {**REQUIRED, **OPTIONAL}.items():
        value = _at(data, key, missing)
        if value is not missing:
            _require(file, key, value, check)
    if data["main_metric"] not in data["metrics"]:
        raise BenchError(f"{file}: main_metric {data['main_metric']!r} is not among its metrics")
    for name, metric in data["metrics"].items():
        _require(file, "a metric", name, _name)
        lost = [key for key in METRIC if _at(metric, key, missing) is missing]
        if lost:
            raise BenchError(f"{file}: not a densebench result: no {', '.join(lost)} of {name}")
        for key, check in {**METRIC, **OF_SOME_METRICS}.items():
            if key in metric:
                _require(file, f"{key} of {name}", metric[key], check)
        try:
            parse_statistic(metric["statistic"])
        except (TypeError, ValueError, AttributeError) as e:
            raise BenchError(f"{file}: the statistic of {name} is not one this densebench knows ({e})") from None


def _at(data: Any, path: str, missing: object) -> Any:
    for key in path.split("."):
        if not isinstance(data, dict) or key not in data:
            return missing
        data = data[key]
    return data


def _require(file: Path, key: str, value: Any, check: Check) -> None:
    if not check(value):
        wanted = f", which is no{IS[check].removeprefix('a')}" if check in IS else ""
        raise BenchError(f"{file}: not a densebench result: {key} is {repr(value)[:80]}{wanted}")
