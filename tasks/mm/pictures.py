"""Pictures changed as DINOv3's segmentation code changes them, where mmsegmentation's transforms differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.mm.library import PhotoMetricDistortion, Resize, imrescale

GREY = np.array([0.114, 0.587, 0.2989])  # torchvision's weights, of blue, green, red


class GreyDistortion(PhotoMetricDistortion):  # type: ignore[misc]
    """PhotoMetricDistortion whose saturation blends the picture with its grey one, or goes past it."""

    def saturation(self, img: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 of a BGR picture; changed with probability ½, as every change of this class."""
        if not np.random.randint(2):
            return img
        share = np.random.uniform(self.saturation_lower, self.saturation_upper)
        grey = (img @ GREY).astype(np.uint8)[..., None]
        blended: np.ndarray = self.convert(img, alpha=share, beta=(1 - share) * grey)
        return blended


class AntialiasedResize(Resize):  # type: ignore[misc]
    """Resize whose pictures go through Pillow's bilinear filter, which widens when it shrinks.

    OpenCV's does not: what lies between the four pixels it looks at is lost. Masks take the nearest label, as before.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(backend="pillow", **more)

    def _resize_seg(self, results: dict[str, Any]) -> None:
        if "gt_seg_map" in results:  # Pillow's backend takes bytes alone, and classes past 255 are more
            results["gt_seg_map"] = imrescale(results["gt_seg_map"], results["scale"], interpolation="nearest")
