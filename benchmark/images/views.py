"""A view: how a picture is laid before an encoder, and where the picture then lies in the input."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from benchmark.contracts import EncoderCard, ImageSet, ImageTransform, Interpolation, View
from benchmark.images import decode
from benchmark.system.digest import fingerprint


@dataclass(frozen=True)
class Placement:
    """The rectangle of the input that the whole picture covers, in fractions of the input's height and width."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0


@dataclass(frozen=True)
class ResolvedView:
    """A view with the encoder's facts filled in: nothing is left to a default, so equal views are one extraction."""

    transform: ImageTransform | None  # square and short-side views
    scale_to: int = 0  # pad-to-patch: short side in pixels, 0 for original pixels
    patch: int = 1
    interpolation: Interpolation = "bicubic"
    antialias: bool = True

    def fingerprint(self) -> str:
        """64 hex digits; mean and std count, as they are part of what the encoder sees."""
        return fingerprint(self)

    def pixels(self) -> str:
        """64 hex digits, equal for views that lay every picture as the same 8-bit pixels."""
        geometry = self.transform and replace(self.transform, range=(0.0, 1.0), mean=(0.0,) * 3, std=(1.0,) * 3)
        return fingerprint(replace(self, transform=geometry))

    def lay(self, image: np.ndarray) -> np.ndarray:
        """[3, h, w] float32 in [0, 1] of an [H, W, 3] uint8 picture."""
        return decode.to_float(self.laid(image))

    def laid(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """[h, w, 3] uint8 of an [H, W, 3] uint8 picture, or of a Pillow picture in RGB."""
        if self.transform is not None:
            return decode.lay_out(image, self.transform)
        height, width = self._inner(*decode.size_of(image))
        out = np.zeros((_up(height, self.patch), _up(width, self.patch), 3), np.uint8)
        top, left = (out.shape[0] - height) // 2, (out.shape[1] - width) // 2  # the smaller half first
        inner = decode.resize(image, height, width, self.interpolation, self.antialias)
        out[top : top + height, left : left + width] = inner
        return out

    def placement(self, height: int, width: int) -> Placement:
        """Where a picture of this size lies in its input; a centre crop may give a rectangle larger than the input."""
        if self.transform is None:
            h, w = self._inner(height, width)
            H, W = _up(h, self.patch), _up(w, self.patch)
            return Placement((H - h) // 2 / H, (W - w) // 2 / W, h / H, w / W)
        c, rounding = self.transform.crop, self.transform.rounding
        if not c:
            return Placement()
        h, w = decode.laid_size(height, width, self.transform)
        top, left = decode.crop_start(h, c, rounding), decode.crop_start(w, c, rounding)
        return Placement(-top / c, -left / c, h / c, w / c)

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        if not self.scale_to:
            return height, width
        return decode.short_side_size(height, width, self.scale_to)


def resolve_view(view: View, transform: ImageTransform, card: EncoderCard, pictures: ImageSet) -> ResolvedView:
    """`view` for one encoder and one set of pictures.

    Where every picture has the same square shape, a resize of the short side with a full-size crop is the same as a
    stretch to a square; both become one view so that nothing is encoded twice.
    """
    interpolation = view.interpolation or transform.interpolation
    antialias = transform.antialias if view.antialias is None else view.antialias
    if view.rule == "pad-to-patch":
        return ResolvedView(None, view.size, card.patch_size, interpolation, antialias)
    if view.rule != "encoder":
        size = view.size or card.image_size
        crop = (view.crop or size) if view.rule == "short-side" else None
        transform = replace(
            transform, resize=view.rule, size=size, crop=crop, rounding=view.rounding,
            interpolation=interpolation, antialias=antialias,
        )  # fmt: skip
    shape = pictures.uniform_shape
    if transform.resize == "short-side" and shape and shape[0] == shape[1] and transform.crop == transform.size:
        transform = replace(transform, resize="square", crop=None)
    return ResolvedView(transform if transform.crop else replace(transform, rounding="floor"))


def _up(size: int, patch: int) -> int:
    return -(-size // patch) * patch
