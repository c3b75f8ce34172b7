"""What a task may wish of each picture: a view and what is taken from the encoder's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmark.contracts.encoder import CropRounding, Interpolation
from benchmark.contracts.images import ImageSet

ViewRule = Literal["encoder", "square", "short-side", "pad-to-patch"]


@dataclass(frozen=True)
class View:
    """How a picture is laid before an encoder.

    `encoder`: the encoder's own transform; `square`: the whole picture stretched to size × size (0: the encoder's
    image_size); `short-side`: short side scaled to `size` (0: the encoder's image_size), then the middle square of
    `crop` pixels (0: `size`), so that all pictures get one shape; `pad-to-patch`: original pixels, short side scaled to
    `size` (0: not scaled), zero-padded at the centre to whole patches.
    """

    rule: ViewRule = "encoder"
    size: int = 0
    interpolation: Interpolation | None = None  # None: the encoder's
    antialias: bool | None = None  # None: the encoder's
    crop: int = 0  # short-side only
    rounding: CropRounding = "even"  # of half a margin of that crop: torchvision's, or floor


Sampling = Literal["stratified", "independent"]
TapName = Literal["cls", "patches", "mean_patches", "text_patches", "pixels"]


@dataclass(frozen=True)
class Tap:
    """One array per image taken from an encoder's output.

    cls [K, D] · patches [h, w, D] · mean_patches [D] · text_patches [h, w, E] ·
    pixels [count, D]: bilinear mixtures of patch tokens at `count` random pixels (`benchmark.features.taps`).
    """

    name: TapName
    layer: int | None = None  # None: the final layer
    count: int = 0  # pixels only
    seed: int = 0  # pixels only
    sampling: Sampling = "stratified"  # pixels only: one in each cell of a grid, or independent of one another


@dataclass(frozen=True)
class Need:
    """A task's wish: `tap` of every image of `images` under `view`."""

    images: ImageSet
    view: View
    tap: Tap
