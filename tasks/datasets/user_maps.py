"""Masks, depth maps and normals as users save them: PNG or numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.errors import DataError
from tasks.datasets.arrays import index_image, numpy_file, rgb_image
from tasks.datasets.blobs import Blobs

MILLIMETRE = 0.001
SHORTEST = 1e-8  # a vector has a direction from here on, as for torch's cosine_similarity


def _is_numpy(blobs: Blobs, index: int) -> bool:
    return blobs.name(index).lower().endswith((".npy", ".npz"))


def read_mask(blobs: Blobs, index: int) -> np.ndarray:
    """[H, W] raw labels of a palette, grey or 16-bit PNG, or of an integer array."""
    if not _is_numpy(blobs, index):
        return index_image(blobs, index)
    values = numpy_file(blobs, index)
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise DataError(f"{blobs.where(index)}: mask is {values.dtype} {list(values.shape)}, must be integers [H, W]")
    return values


@dataclass(frozen=True)
class DepthReader:
    """[H, W] float32 metres: file values × `scale`; 0 means the usual one (PNG millimetres, numpy metres)."""

    scale: float = 0.0

    def __call__(self, blobs: Blobs, index: int) -> np.ndarray:
        array = _is_numpy(blobs, index)
        values = numpy_file(blobs, index) if array else index_image(blobs, index)
        if values.ndim != 2:
            raise DataError(f"{blobs.where(index)}: depth is {list(values.shape)}, must be [H, W]")
        if values.dtype.kind not in "iuf":
            raise DataError(f"{blobs.where(index)}: depth is {values.dtype}, must be numbers")
        if array and values.dtype.kind != "f" and not self.scale:
            raise DataError(
                f"{blobs.where(index)}: depth is {values.dtype}, which does not say metres. Add depth_scale, the "
                "metres of one step (0.001: millimetres)"
            )
        return values.astype(np.float32) * np.float32(self.scale or (1.0 if array else MILLIMETRE))


def read_normals(blobs: Blobs, index: int) -> np.ndarray:
    """[H, W, 3] float32 unit vectors: an array, or an 8-bit RGB PNG with n = 2·v/255 - 1; (0, 0, 0) is invalid."""
    if _is_numpy(blobs, index):
        values = numpy_file(blobs, index)
        if values.dtype.kind != "f":
            raise DataError(f"{blobs.where(index)}: normals are {values.dtype}, must be floating-point unit vectors")
        normals = values.astype(np.float32)
    else:
        normals = normals_from_rgb(blobs, index)
        if normals.any() and (normals == normals[..., :1]).all():
            raise DataError(f"{blobs.where(index)}: is a grey picture; normals are coloured: n = 2·v/255 - 1")
    if normals.ndim != 3 or normals.shape[2] != 3:
        raise DataError(f"{blobs.where(index)}: normals are {list(normals.shape)}, must be [H, W, 3]")
    return unit(normals)


def normals_from_rgb(blobs: Blobs, index: int) -> np.ndarray:
    """[H, W, 3] float32 in [-1, 1] from an RGB picture; black and mid-grey pixels become zero vectors."""
    rgb = rgb_image(blobs, index)
    normals = rgb.astype(np.float32)
    normals *= np.float32(2 / 255)
    normals -= np.float32(1)
    normals[(rgb == 0).all(-1) | ((rgb >= 126) & (rgb <= 129)).all(-1)] = 0
    return normals


def unit(vectors: np.ndarray) -> np.ndarray:
    """`vectors` scaled to length 1, however short; those that are zero or not finite become zero (invalid)."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    valid = np.isfinite(length) & (length > SHORTEST)
    return np.where(valid, vectors / np.where(valid, length, 1), 0).astype(np.float32)
