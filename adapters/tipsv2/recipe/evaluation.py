"""The nine tasks of the `scenes` suite through the ordinary engine, while training."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmark.errors import BenchError

ENGINE = ("benchmark", "run")  # reached by name: adapters lie below the engine


def evaluate(folder: Path, out: Path) -> dict[str, Any]:
    """{"evaluation": {task: value}} of the exported `folder`; an engine that fails is reported, not fatal."""
    module, name = ENGINE
    try:
        run = getattr(importlib.import_module(module), name)
        results = run(models=["tipsv2-mini"], suite="scenes", weights=str(folder), results=out / "results")
    except (ImportError, AttributeError, BenchError, TypeError) as error:
        return {"evaluation_error": str(error)}
    return {"evaluation": {str(getattr(r, "id", i)): getattr(r, "metrics", None) for i, r in enumerate(results or [])}}
