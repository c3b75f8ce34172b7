"""Objects on the canvas: rays are cast part by part, inside each part's outline; what is seen is shaded all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.scenes.canvas import Canvas
from tasks.scenes.layout import Item, Layout
from tasks.scenes.objects import HULLS, PARTS, Part
from tasks.scenes.paint import pattern
from tasks.scenes.shapes import Axes, Origin, dot
from tasks.scenes.surroundings import hazy
from tasks.scenes.tables import CLASS_INDEX, PAINTS, SKIES


@dataclass(frozen=True)
class _Drawn:
    """A part in place; `origin` is the camera in the part's own frame."""

    number: int  # of its object, from 1
    item: Item
    part: Part
    scale: Axes
    origin: Origin


def draw_objects(canvas: Canvas, layout: Layout) -> None:
    """Draw every object where it is the nearest surface."""
    drawn: list[_Drawn] = []
    for number, item in enumerate(layout.items, 1):
        _cast(canvas, item, number, drawn)
    if drawn:
        _shade(canvas, layout, drawn)


def _cast(canvas: Canvas, item: Item, number: int, drawn: list[_Drawn]) -> None:
    """Depth, part and normal (in the part's own frame) where a part of `item` is nearest."""
    look, c, s = item.look, item.cos, item.sin
    sx, sy, sz = (look.size * k for k in look.scale)
    (x, y, z), starts = HULLS[look.category]
    x, y, z = x * sx, y * sy, z * sz
    points = (item.x + c * x + s * z, y - canvas.camera.height, item.z - s * x + c * z)
    windows = canvas.windows(points, starts)
    if not windows:
        return
    top, left = (min(w[axis].start for w in windows.values()) for axis in (0, 1))
    bottom, right = (max(w[axis].stop for w in windows.values()) for axis in (0, 1))
    u, dy, dz = canvas.u[:, left:right], canvas.dy[top:bottom], canvas.dz[top:bottom]
    d = ((c * u - s * dz) / sx, dy / sy, (s * u + c * dz) / sz)
    ox, oy, oz = -item.x, canvas.camera.height, -item.z
    o = ((c * ox - s * oz) / sx, oy / sy, (s * ox + c * oz) / sz)
    for k, (rows, columns) in windows.items():
        part = PARTS[look.category][k]
        origin = (o[0] - part.at[0], o[1] - part.at[1], o[2] - part.at[2])
        r, q = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        t, normal = part.intersect(origin, (d[0][r, q], d[1][r], d[2][r, q]))
        depth = canvas.depth[rows, columns]
        hit = t < depth
        if not hit.any():
            continue
        drawn.append(_Drawn(number, item, part, (sx, sy, sz), origin))
        np.copyto(depth, t, where=hit)
        np.copyto(canvas.part[rows, columns], len(drawn), where=hit)
        for axis, n in zip(canvas.normal, normal):
            np.copyto(axis[rows, columns], n, where=hit)


def _shade(canvas: Canvas, layout: Layout, drawn: list[_Drawn]) -> None:
    """Colours, labels and world normals of all that was cast: paint, light from the sun and the sky, haze."""
    where = np.flatnonzero(canvas.part)
    which = canvas.part.take(where) - 1
    mains = [_main(one) for one in drawn]
    rows = [(one.item.cos, one.item.sin, *one.scale, *one.origin, *main) for one, main in zip(drawn, mains)]
    c, s, sx, sy, sz, ox, oy, oz, *colours = np.array(list(zip(*rows))).take(which, axis=1)
    row = where // canvas.size
    u, dy, dz = canvas.u[0].take(where - row * canvas.size), canvas.dy.take(row), canvas.dz.take(row)
    t = canvas.depth.take(where)
    p = (ox + t * ((c * u - s * dz) / sx), oy + t * (dy / sy), oz + t * ((s * u + c * dz) / sz))
    nx, ny, nz = (axis.take(where) / scale for axis, scale in zip(canvas.normal, (sx, sy, sz)))
    length = np.sqrt(dot((nx, ny, nz), (nx, ny, nz)))
    normal = ((c * nx + s * nz) / length, ny / length, (c * nz - s * nx) / length)
    for k, one in enumerate(drawn):
        texture = one.item.look.texture if one.part.texture == "own" else one.part.texture
        if texture == "plain":
            continue
        its = np.flatnonzero(which == k)
        x, y, z = (axis[its] for axis in p)
        look = one.item.look
        for colour, painted in zip(colours, pattern(texture, (x, y, z), mains[k], look.accent, look.frequency)):
            colour[its] = painted
    direct = SKIES[layout.surroundings.sky]["sun"]
    lit = np.maximum(dot(normal, layout.sun), 0.0) * direct + (1.04 - direct) * (0.86 + 0.14 * normal[1])
    for k, colour in enumerate(hazy([colour * lit for colour in colours], t, layout)):
        canvas.rgb[k].reshape(-1)[where] = colour
        canvas.normal[k].reshape(-1)[where] = normal[k]
    canvas.grain.reshape(-1)[where] = 0.012
    canvas.instance.reshape(-1)[where] = np.array([one.number for one in drawn], np.uint8)[which]
    canvas.semantic.reshape(-1)[where] = np.array([CLASS_INDEX[one.item.look.category] for one in drawn], np.uint8)[
        which
    ]


def _main(one: _Drawn) -> Any:
    look = one.item.look
    return {"main": look.rgb, "accent": look.accent}.get(one.part.paint) or PAINTS[one.part.paint]
