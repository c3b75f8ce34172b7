"""densebench: dense evaluation of image and image-text encoders.

The public names are imported on first use, so that `import benchmark` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.contracts import Encoder, EncoderCard, ImageFeatures, ImageRequest, ImageTransform, WeightsInfo
    from benchmark.engine.load_task import load_task
    from benchmark.engine.loading import load_encoder
    from benchmark.engine.run import run
    from benchmark.errors import BenchError
    from benchmark.rows.tables import load_results

    __version__: str

_PUBLIC = {
    "run": "benchmark.engine.run:run",
    "load_encoder": "benchmark.engine.loading:load_encoder",
    "load_task": "benchmark.engine.load_task:load_task",
    "load_results": "benchmark.rows.tables:load_results",
    "ImageRequest": "benchmark.contracts:ImageRequest",
    "ImageFeatures": "benchmark.contracts:ImageFeatures",
    "ImageTransform": "benchmark.contracts:ImageTransform",
    "Encoder": "benchmark.contracts:Encoder",
    "EncoderCard": "benchmark.contracts:EncoderCard",
    "WeightsInfo": "benchmark.contracts:WeightsInfo",
    "BenchError": "benchmark.errors:BenchError",
}

__all__ = [
    "BenchError",
    "Encoder",
    "EncoderCard",
    "ImageFeatures",
    "ImageRequest",
    "ImageTransform",
    "WeightsInfo",
    "__version__",
    "load_encoder",
    "load_results",
    "load_task",
    "run",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("densebench")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'benchmark' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
