"""TIPSv2 and TIPS: PyTorch and JAX encoders that read every published layout of their weights."""

from __future__ import annotations

import importlib
import os

from benchmark.contracts import Encoder, ModelSpec
from benchmark.errors import UsageError

BACKENDS = {"torch": "adapters.tipsv2.torch_encoder", "jax": "adapters.tipsv2.jax_encoder"}


def build(spec: ModelSpec) -> Encoder:
    """The encoder of `spec.backend`; the other backend's framework is not imported."""
    if spec.backend not in BACKENDS:
        raise UsageError(f"--backend {spec.backend}: {spec.name} has {' and '.join(BACKENDS)}")
    # JAX would take three quarters of a GPU, and torch fits its heads there.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    encoder: Encoder = importlib.import_module(BACKENDS[spec.backend]).build(spec)
    return encoder
