"""From (seed, index) to a picture with its exact ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.errors import UsageError, unknown
from tasks.scenes.canvas import Canvas
from tasks.scenes.captions import Captions, SeenObject, write_captions
from tasks.scenes.draw import draw_objects
from tasks.scenes.layout import NOISE, Layout, compose, scene_stream
from tasks.scenes.splits import SPLITS
from tasks.scenes.surroundings import paint_surroundings

_EVEN, _LOWER = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000000100010001)  # octets 0, 2, 4, 6; lanes 0, 1, 2
MIN_SHARE = 0.006  # of the picture: smaller objects are not spoken of


@dataclass(frozen=True)
class Scene:
    """A rendered scene of S × S pixels.

    rgb [S, S, 3] uint8 · semantic [S, S] uint8, index into CLASS_NAMES · instance [S, S] uint8, 0 where no object ·
    depth [S, S] float32 planar depth in metres, inf in the sky · normals [S, S, 3] float32 unit vectors towards the
    camera in camera axes (x right, y down, z ahead), zero in the sky.
    """

    rgb: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    alt: str
    short: str
    long: str
    objects: tuple[SeenObject, ...]


def render(seed: int, index: int, size: int = 96, *, split: str = "train") -> Scene:
    """Scene `index` of a split: a pure function of its arguments and the data tables' version.

    Raises UsageError for an unknown split or a size below 8.
    """
    if split not in SPLITS:
        raise unknown("split of scenes", split, SPLITS, ", ".join(SPLITS))
    if size < 8 or index < 0:
        raise UsageError(f"scenes: size {size}, index {index}: the size must be at least 8 and the index not negative")
    layout = compose(seed, index, split)
    canvas = Canvas(size, layout.camera)
    with np.errstate(all="ignore"):  # misses are infinities, by design
        paint_surroundings(canvas, layout)
        draw_objects(canvas, layout)
    seen = _seen(canvas, layout)
    words = write_captions(seed, index, split, layout, seen, canvas.semantic)
    return _develop(canvas, words, seen, scene_stream(seed, index, split, NOISE).field(size * size))


def scene_captions(seed: int, index: int, size: int, split: str, variant: int) -> Captions:
    """Another wording of a scene's captions (variant 0 is the one in `render`)."""
    layout = compose(seed, index, split)
    scene = render(seed, index, size, split=split)
    return write_captions(seed, index, split, layout, scene.objects, scene.semantic, variant)


def _seen(canvas: Canvas, layout: Layout) -> tuple[SeenObject, ...]:
    numbers = canvas.instance.ravel()
    areas = np.bincount(numbers, minlength=len(layout.items) + 1).tolist()
    columns = np.broadcast_to(np.arange(canvas.size, dtype=float), canvas.instance.shape).ravel()
    totals = np.bincount(numbers, columns, minlength=len(areas)).tolist()  # whole numbers: exact
    seen = []
    for number, item in enumerate(layout.items, 1):
        pixels = areas[number]
        if pixels < MIN_SHARE * canvas.size * canvas.size:
            continue
        column = (totals[number] / pixels + 0.5) / canvas.size
        look = item.look
        seen.append(SeenObject(number, look.category, look.colour, look.size, item.z, pixels, column))
    return tuple(seen)


def _develop(canvas: Canvas, words: Captions, seen: tuple[SeenObject, ...], bits: np.ndarray) -> Scene:
    """Add sensor noise, quantise, and turn the normals to camera axes."""
    size, camera = canvas.size, canvas.camera
    lanes = (bits & _EVEN) + ((bits >> np.uint64(8)) & _EVEN)  # of each word's octets the sums of four pairs
    lanes += (lanes >> np.uint64(48)) * _LOWER  # the last is shared by the three channels
    sums = lanes.astype("<u8", copy=False).view("<u2").reshape(size, size, 4).transpose(2, 0, 1)[:3]
    value = np.subtract(sums, 510.0, out=np.empty((3, size, size)))
    value *= 1 / 148.0  # unit variance
    value *= canvas.grain
    value += canvas.rgb
    value *= 255.0
    value += 0.5
    levels = np.clip(value.astype(np.int32), 0, 255)  # far quicker than in floats
    rgb = np.empty((size, size, 3), np.uint8)
    for k, channel in enumerate(levels):
        rgb[..., k] = channel
    x, y, z = canvas.normal
    normals = np.empty((3, size, size), np.float32)
    normals[0] = x
    np.negative(y * camera.cos + z * camera.sin, out=normals[1], casting="same_kind")
    np.subtract(z * camera.cos, y * camera.sin, out=normals[2], casting="same_kind")
    return Scene(
        rgb, canvas.semantic, canvas.instance, canvas.depth.astype(np.float32), normals.transpose(1, 2, 0),
        words.alt, words.short, words.long, seen,
    )  # fmt: skip
