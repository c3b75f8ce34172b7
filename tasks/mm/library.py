"""Every name densebench takes from mm*, imported once, with a stand-in for mmcv's compiled ops.

`mmcv-lite` ships no compiled ops, and `mmseg.models` imports modules that look them up by name. None of them is used
here: the stand-in lets the import pass, and calling one is an error that says so.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from benchmark.errors import BenchError


class CompiledOps(types.ModuleType):
    """Stands in for `mmcv._ext`: has every function, and none of them runs."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise BenchError(
                f"mmcv._ext.{name} is a compiled op and mmcv-lite has none. Use a model without it, or install mmcv"
            )

        return missing


def stand_in() -> None:
    """Puts `CompiledOps` in the place of `mmcv._ext`, unless the compiled module is there."""
    if "mmcv._ext" not in sys.modules and importlib.util.find_spec("mmcv._ext") is None:
        sys.modules["mmcv._ext"] = CompiledOps("mmcv._ext")


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside mm* that nobody here can act on
    stand_in()
    from mmcv import imrescale
    from mmcv.transforms import RandomFlip, RandomResize, Resize
    from mmengine.config import Config
    from mmengine.dataset import ConcatDataset, RepeatDataset, pseudo_collate
    from mmengine.hooks import Hook
    from mmengine.optim import OptimWrapper
    from mmengine.registry import DefaultScope, Registry
    from mmengine.runner import IterBasedTrainLoop, Runner
    from mmengine.structures import PixelData
    from mmengine.visualization import Visualizer
    from mmseg.datasets import BaseSegDataset
    from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop
    from mmseg.evaluation import IoUMetric
    from mmseg.models import EncoderDecoder, SegDataPreProcessor
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import DATASETS, MODELS
    from mmseg.structures import SegDataSample

__all__ = [
    "DATASETS", "MODELS", "BaseDecodeHead", "BaseSegDataset", "ConcatDataset", "Config", "DefaultScope",
    "EncoderDecoder", "Hook", "IoUMetric", "IterBasedTrainLoop", "OptimWrapper", "PackSegInputs",
    "PhotoMetricDistortion", "PixelData", "RandomCrop", "RandomFlip", "RandomResize", "Registry", "RepeatDataset",
    "Resize", "Runner", "SegDataPreProcessor", "SegDataSample", "Visualizer", "imrescale", "pseudo_collate",
]  # fmt: skip
