"""`--model tests/small_model.py:build`: the small encoder of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from small import SmallEncoder

from benchmark.contracts import ModelSpec


def build(spec: ModelSpec) -> SmallEncoder:
    """Always the same weights."""
    return SmallEncoder("small")
