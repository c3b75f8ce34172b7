"""What both backends say about themselves, and the options they take."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from adapters.tipsv2.checkpoint import Checkpoint
from benchmark.contracts import EncoderCard, ImageTransform, ModelSpec
from benchmark.errors import UsageError
from benchmark.registry import code_versions

CODE_VERSION = code_versions()["adapters.tipsv2"]


def transform_of(image_size: int) -> ImageTransform:
    """The whole picture stretched to a square, bilinear, pixels left in [0, 1] (official demos of both backends)."""
    return ImageTransform("square", image_size, interpolation="bilinear", antialias=True)


def card_of(
    spec: ModelSpec, checkpoint: Checkpoint, backend: Literal["torch", "jax"], dtype: str, gelu: str
) -> EncoderCard:
    """The card of a loaded encoder; the choice of GELU is in it because it moves every image output by 2e-4."""
    arch = checkpoint.arch
    return EncoderCard(
        name=spec.name,
        family=str(spec.row.get("family", "tipsv2")),
        backend=backend,
        embed_dim=arch.width,
        patch_size=arch.patch_size,
        image_size=int(spec.row["image_size"]) if "arch" in spec.row else arch.image_size,
        depth=arch.depth,
        num_cls=2,
        has_text=True,
        weights=checkpoint.info,
        licence=str(spec.row.get("licence", "Apache-2.0")),
        params=checkpoint.params,
        text_dim=arch.width,
        dtype=dtype,
        code_version=CODE_VERSION,
        has_text_patches=True,
        has_raw_layers=True,
        options=(("gelu", gelu),),
    )


def choice(spec: ModelSpec, option: str, allowed: Collection[str], default: str) -> str:
    """An option's value. Raises UsageError with the allowed values."""
    value = spec.options.get(option, default)
    if value not in allowed:
        raise UsageError(f"--{option} {value}: {spec.name} takes {' or '.join(allowed)}")
    return value


def flag(spec: ModelSpec, option: str) -> bool:
    """An option that is on or off; off when absent."""
    return choice(spec, option, ("true", "1", "false", "0"), "false") in ("true", "1")
