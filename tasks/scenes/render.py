"""From (seed, index) to a picture with its exact ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.errors import UsageError, unknown
from tasks.scenes.canvas import Canvas
from tasks.scenes.captions import Captions, SeenObject, write_captions
from tasks.scenes.layout import NOISE, Item, Layout, compose, scene_stream
from tasks.scenes.objects import PARTS, Part
from tasks.scenes.paint import pattern
from tasks.scenes.shapes import Axes, dot
from tasks.scenes.splits import SPLITS
from tasks.scenes.surroundings import hazy, paint_surroundings
from tasks.scenes.tables import CLASS_INDEX, PAINTS, SKIES

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
        for number, item in enumerate(layout.items, 1):
            for part in PARTS[item.look.category]:
                _draw(canvas, layout, item, part, number)
    seen = _seen(canvas, layout)
    words = write_captions(seed, index, split, layout, seen, canvas.semantic)
    return _develop(canvas, words, seen, scene_stream(seed, index, split, NOISE).field(size * size))


def scene_captions(seed: int, index: int, size: int, split: str, variant: int) -> Captions:
    """Another wording of a scene's captions (variant 0 is the one in `render`)."""
    layout = compose(seed, index, split)
    scene = render(seed, index, size, split=split)
    return write_captions(seed, index, split, layout, scene.objects, scene.semantic, variant)


def _draw(canvas: Canvas, layout: Layout, item: Item, part: Part, number: int) -> None:
    """Draw one part where it is the nearest surface."""
    look, c, s = item.look, item.cos, item.sin
    sx, sy, sz = (look.size * k for k in look.scale)
    bx, by, bz = part.centre[0] * sx, part.centre[1] * sy, part.centre[2] * sz
    centre = (item.x + c * bx + s * bz, by - canvas.camera.height, item.z - s * bx + c * bz)
    window = canvas.window(centre, part.radius * max(sx, sy, sz))
    if window is None:
        return
    rows, columns = window
    u, dy, dz = canvas.u[:, columns], canvas.dy[rows], canvas.dz[rows]
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    d = (
        ((c * u - s * dz) / sx).ravel(),
        np.broadcast_to(dy / sy, shape).ravel(),
        ((s * u + c * dz) / sz).ravel(),
    )
    ox, oy, oz = -item.x, canvas.camera.height, -item.z
    o = (
        (c * ox - s * oz) / sx - part.at[0],
        oy / sy - part.at[1],
        (s * ox + c * oz) / sz - part.at[2],
    )
    t, n = part.intersect(o, d)
    hit = np.flatnonzero(t < canvas.depth[window].ravel())
    if len(hit) == 0:
        return
    t = t[hit]
    p = (o[0] + t * d[0][hit], o[1] + t * d[1][hit], o[2] + t * d[2][hit])
    nx, ny, nz = n[0][hit] / sx, n[1][hit] / sy, n[2][hit] / sz
    length = np.sqrt(dot((nx, ny, nz), (nx, ny, nz)))
    normal = ((c * nx + s * nz) / length, ny / length, (c * nz - s * nx) / length)
    where = (rows.start + hit // shape[1], columns.start + hit % shape[1])
    canvas.depth[where] = t
    canvas.semantic[where] = CLASS_INDEX[look.category]
    canvas.instance[where] = number
    canvas.grain[where] = 0.012
    for k, colour in enumerate(_shaded(layout, item, part, p, normal, t)):
        canvas.rgb[k][where] = colour
        canvas.normal[k][where] = normal[k]


def _shaded(layout: Layout, item: Item, part: Part, p: Axes, normal: Axes, t: np.ndarray) -> list[np.ndarray]:
    """Colours of points: paint, light from the sun and the sky, haze."""
    look = item.look
    main = {"main": look.rgb, "accent": look.accent}.get(part.paint) or PAINTS[part.paint]
    texture = look.texture if part.texture == "own" else part.texture
    colours = pattern(texture, p, main, look.accent, look.frequency)
    direct = SKIES[layout.surroundings.sky]["sun"]
    lit = np.maximum(dot(normal, layout.sun), 0.0) * direct + (1.04 - direct) * (0.86 + 0.14 * normal[1])
    return hazy([c * lit for c in colours], t, layout)


def _seen(canvas: Canvas, layout: Layout) -> tuple[SeenObject, ...]:
    areas = np.bincount(canvas.instance.ravel(), minlength=len(layout.items) + 1)
    seen = []
    for number, item in enumerate(layout.items, 1):
        pixels = int(areas[number])
        if pixels < MIN_SHARE * canvas.size * canvas.size:
            continue
        total = int(np.nonzero(canvas.instance == number)[1].sum())
        column = (total / pixels + 0.5) / canvas.size
        look = item.look
        seen.append(SeenObject(number, look.category, look.colour, look.size, item.z, pixels, column))
    return tuple(seen)


def _develop(canvas: Canvas, words: Captions, seen: tuple[SeenObject, ...], bits: np.ndarray) -> Scene:
    """Add sensor noise, quantise, and turn the normals to camera axes."""
    size, camera = canvas.size, canvas.camera
    octets = bits.astype("<u8").view(np.uint8).reshape(size, size, 8).astype(np.int16)
    shared = octets[..., 6] + octets[..., 7]
    rgb = np.empty((size, size, 3), np.uint8)
    for k in range(3):
        noise = (octets[..., 2 * k] + octets[..., 2 * k + 1] + shared - 510) * (1 / 148.0)  # unit variance
        value = (canvas.rgb[k] + noise * canvas.grain) * 255.0 + 0.5
        rgb[..., k] = np.minimum(np.maximum(value, 0.0), 255.0)
    x, y, z = canvas.normal
    normals = np.empty((size, size, 3), np.float32)
    normals[..., 0] = x
    normals[..., 1] = -(y * camera.cos + z * camera.sin)
    normals[..., 2] = z * camera.cos - y * camera.sin
    return Scene(
        rgb, canvas.semantic, canvas.instance, canvas.depth.astype(np.float32), normals,
        words.alt, words.short, words.long, seen,
    )  # fmt: skip
