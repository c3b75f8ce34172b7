"""The arrays a scene is drawn on, and the rays through its pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tasks.scenes.layout import Camera

TAN_HALF_VIEW = 0.6  # half of the field of view: 31 degrees


@lru_cache(maxsize=8)
def _offsets(size: int) -> np.ndarray:
    return (np.arange(size) + (0.5 - size / 2)) * (2 * TAN_HALF_VIEW / size)


class Canvas:
    """Depth, world normals, labels and colours of a size × size picture, nearest surface first.

    The ray through a pixel is (u, v cos - sin, v sin + cos) in world axes (x right, y up, z ahead): its component along
    the optical axis is 1, so the ray parameter is planar depth.
    """

    def __init__(self, size: int, camera: Camera) -> None:
        offsets = _offsets(size)
        self.size, self.camera = size, camera
        self.u = offsets[None, :]  # [1, S]
        v = -offsets[:, None]
        self.dy = v * camera.cos - camera.sin  # [S, 1]
        self.dz = v * camera.sin + camera.cos  # [S, 1]
        self.depth = np.full((size, size), np.inf)
        self.normal = np.zeros((3, size, size))
        self.rgb = np.zeros((3, size, size))
        self.grain = np.full((size, size), 0.012)
        self.semantic = np.zeros((size, size), np.uint8)
        self.instance = np.zeros((size, size), np.uint8)

    def window(self, centre: tuple[float, float, float], radius: float) -> tuple[slice, slice] | None:
        """Rows and columns that can see a sphere given in world axes from the camera; None when it is out of view."""
        x, y, z = centre
        cam = self.camera
        up, ahead = y * cam.cos + z * cam.sin, z * cam.cos - y * cam.sin
        if ahead + radius < 0.3:
            return None
        near, far = max(ahead - radius, 0.3), ahead + radius
        scale, half = self.size / (2 * TAN_HALF_VIEW), self.size / 2

        def span(low: float, high: float) -> slice:
            first = min(low / near, low / far) * scale + half
            last = max(high / near, high / far) * scale + half
            return slice(max(int(first) - 1, 0), min(max(int(last) + 2, 0), self.size))

        rows, columns = span(-up - radius, -up + radius), span(x - radius, x + radius)
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None
