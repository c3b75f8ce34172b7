"""A view: how a picture is laid before an encoder, and where the picture then lies in the input."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmark import images
from benchmark.contracts import EncoderCard, ImageSet, ImageTransform, Interpolation, View
from benchmark.digest import fingerprint, plain


@dataclass(frozen=True)
class Placement:
    """The rectangle of the map of patches that the whole picture covers, in fractions of the map's height and width."""

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
    map_side: int = 0  # pixels that the map of a square input covers, where they are not the input's own

    def fingerprint(self) -> str:
        """64 hex digits; mean and std count, as they are part of what the encoder sees."""
        facts = plain(self)
        if not self.map_side:
            del facts["map_side"]  # as views were named before there was such a thing
        return fingerprint(facts)

    def lay(self, image: np.ndarray) -> np.ndarray:
        """[3, h, w] float32 in [0, 1] of an [H, W, 3] uint8 picture."""
        if self.transform is not None:
            return images.apply_transform(image, self.transform)
        height, width = self._inner(*image.shape[:2])
        if (height, width) != image.shape[:2]:
            image = images.resize(image, height, width, self.interpolation, True)
        out = np.zeros((3, _up(height, self.patch), _up(width, self.patch)), np.float32)
        top, left = (out.shape[1] - height) // 2, (out.shape[2] - width) // 2  # the smaller half first
        out[:, top : top + height, left : left + width] = image.transpose(2, 0, 1).astype(np.float32) / 255
        return out

    def placement(self, height: int, width: int) -> Placement:
        """Where a picture of this size lies on its map; larger than the map where a part is cropped or unseen."""
        if self.transform is None:
            h, w = self._inner(height, width)
            H, W = _up(h, self.patch), _up(w, self.patch)
            return Placement((H - h) // 2 / H, (W - w) // 2 / W, h / H, w / W)
        if self.transform.resize == "short-side" and self.transform.crop:
            h, w = images.short_side_size(height, width, self.transform.size)
            c = self.transform.crop
            return self._on_map(Placement(-((h - c) // 2) / c, -((w - c) // 2) / c, h / c, w / c), c)
        return self._on_map(Placement(), self.transform.size)

    def _on_map(self, place: Placement, side: int) -> Placement:
        """A rectangle of the input, `side` pixels square, in fractions of the map."""
        if not self.map_side:
            return place
        border, scale = max(self.map_side - side, 0) // 2, side / self.map_side
        start = border / self.map_side
        return Placement(
            start + place.top * scale, start + place.left * scale, place.height * scale, place.width * scale
        )

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        if not self.scale_to:
            return height, width
        return images.short_side_size(height, width, self.scale_to)


def resolve_view(view: View, transform: ImageTransform, card: EncoderCard, pictures: ImageSet) -> ResolvedView:
    """`view` for one encoder and one set of pictures.

    Where every picture has the same square shape, a resize of the short side with a full-size crop is the same as a
    stretch to a square; both become one view so that nothing is encoded twice.
    """
    interpolation = view.interpolation or transform.interpolation
    if view.rule == "pad-to-patch":
        return ResolvedView(None, view.size, card.patch_size, interpolation)
    if view.rule == "square":
        size = view.size or card.image_size
        return _squared(replace(transform, resize="square", size=size, crop=None, interpolation=interpolation), card)
    if view.rule == "short-side":
        size = view.size or card.image_size
        crop = view.crop or size
        transform = replace(transform, resize="short-side", size=size, crop=crop, interpolation=interpolation)
    shape = getattr(pictures, "uniform_shape", None)
    if transform.resize == "short-side" and shape and shape[0] == shape[1] and transform.crop == transform.size:
        return _squared(replace(transform, resize="square", crop=None), card)
    return _squared(transform, card)


def _squared(transform: ImageTransform, card: EncoderCard) -> ResolvedView:
    """The view of a transform. Where its square is no whole number of patches, encoders pad it around the middle, but
    leave the rest of their own size unseen at the bottom and right (SigLIP so400m: 6 of 384 pixels)."""
    side = transform.size if transform.resize == "square" else transform.crop
    if not side or side % card.patch_size == 0:
        return ResolvedView(transform)
    whole = side - side % card.patch_size if side == card.image_size else _up(side, card.patch_size)
    return ResolvedView(transform, map_side=whole)


def _up(size: int, patch: int) -> int:
    return -(-size // patch) * patch
