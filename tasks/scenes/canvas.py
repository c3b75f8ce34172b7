"""The arrays a scene is drawn on, and the rays through its pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tasks.scenes.layout import Camera
from tasks.scenes.shapes import Axes

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
        self.part = np.zeros((size, size), np.uint8)

    def windows(self, points: Axes, starts: np.ndarray) -> dict[int, tuple[slice, slice]]:
        """Part -> the rows and columns that can see it, without those that none can.

        A part lies between its points, given in world axes from the camera; those of the next begin at its `starts`.
        """
        x, y, z = points
        cam = self.camera
        up, ahead = y * cam.cos + z * cam.sin, z * cam.cos - y * cam.sin
        if ahead.min() < 0.3:
            return {k: (slice(0, self.size), slice(0, self.size)) for k in range(len(starts))}
        scale, half = self.size / (2 * TAN_HALF_VIEW), self.size / 2
        places = np.stack([half - up / ahead * scale, half + x / ahead * scale])
        low, high = (f.reduceat(places, starts, axis=1).tolist() for f in (np.minimum, np.maximum))
        found = {}
        for k, edges in enumerate(zip(*low, *high)):
            top, left = (max(int(edge) - 1, 0) for edge in edges[:2])
            bottom, right = (min(int(edge) + 2, self.size) for edge in edges[2:])
            if top < bottom and left < right:
                found[k] = slice(top, bottom), slice(left, right)
        return found
