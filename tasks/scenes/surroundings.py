"""Sky, mountains, walls, ground and sea: exact planes with textures."""

from __future__ import annotations

import numpy as np

from tasks.scenes.canvas import Canvas
from tasks.scenes.layout import Layout, Surroundings
from tasks.scenes.tables import CLASS_INDEX, RGB, SKIES
from tasks.scenes.waves import fract, wave

FAR = 50.0  # metres to the edge of the ground
MOUNTAINS = 30.0  # metres to the plane of the mountains
HAZE = 70.0  # metres at which haze covers half


def paint_surroundings(canvas: Canvas, layout: Layout) -> None:
    """Draw everything but the objects."""
    if layout.surroundings.walls:
        _walls(canvas, layout)
    else:
        _sky(canvas, layout.surroundings)
        if layout.surroundings.mountains:
            _mountains(canvas, layout)
    _ground(canvas, layout)


def light(layout: Layout, normal: RGB, *, contrast: float = 1.0) -> float:
    """Brightness of a plane with a unit normal: ambient and direct light."""
    direct: float = SKIES[layout.surroundings.sky]["sun"] * contrast
    facing = sum(a * b for a, b in zip(normal, layout.sun))
    return 1.0 - 0.6 * direct + direct * max(facing, 0.0)


def hazy(rgb: list[np.ndarray], distance: np.ndarray, layout: Layout) -> list[np.ndarray]:
    """Colours seen through `distance` metres of air (none indoors)."""
    if layout.surroundings.walls:
        return rgb
    share = distance / (distance + HAZE)
    return [c + (h - c) * share for c, h in zip(rgb, SKIES[layout.surroundings.sky]["horizon"])]


def _sky(canvas: Canvas, world: Surroundings) -> None:
    sky, p = SKIES[world.sky], world.phases
    height = np.minimum(np.maximum(canvas.dy * 2.2, 0.0), 1.0)
    bands = wave(canvas.dy * 2.4 + p[1] + 0.35 * canvas.u + 0.12 * wave(canvas.u * 1.3 + p[3]))
    clouds = np.maximum(wave(canvas.u * 0.9 + p[0]) * bands, 0.0) * (0.10 + 0.12 * height)
    for c in range(3):
        canvas.rgb[c] = sky["horizon"][c] + (sky["zenith"][c] - sky["horizon"][c]) * height + clouds


def _mountains(canvas: Canvas, layout: Layout) -> None:
    p = layout.surroundings.phases
    t = MOUNTAINS / canvas.dz  # [S, 1]
    x, y = t * canvas.u, canvas.camera.height + t * canvas.dy
    ridge = 4.6 + 1.7 * wave(x * 0.024 + p[0]) + 1.1 * np.abs(wave(x * 0.051 + p[1])) + 0.35 * wave(x * 0.21 + p[2])
    seen = (y < ridge) & (y > 0)
    cap = y > ridge - 1.5 + 0.5 * wave(x * 0.2 + p[3]) + 0.3 * wave(x * 0.55)
    crag = 0.43 + 0.05 * wave(x * 0.17 + y * 0.25 + p[4]) + 0.04 * wave(x * 0.41 - y * 0.3)
    bright = light(layout, (0.0, 0.0, -1.0), contrast=0.5)
    rock = [np.where(cap, s, crag * k) * bright for s, k in zip((0.90, 0.92, 0.96), (1.0, 0.95, 1.06))]
    depth = np.broadcast_to(t, seen.shape)
    for c, colour in enumerate(hazy(rock, t, layout)):
        canvas.rgb[c] = np.where(seen, colour, canvas.rgb[c])
    canvas.depth = np.where(seen, depth, canvas.depth)
    canvas.normal[2] = np.where(seen, -1.0, canvas.normal[2])
    canvas.semantic[seen] = CLASS_INDEX["mountain"]


def _walls(canvas: Canvas, layout: Layout) -> None:
    world = layout.surroundings
    canvas.semantic[:] = CLASS_INDEX["wall"]
    for a, b, w in world.walls:
        ahead = a * canvas.u + b * canvas.dz
        t = np.where(ahead > 1e-3, w / np.where(ahead > 1e-3, ahead, 1.0), np.inf)
        seen = t < canvas.depth
        t = np.where(seen, t, 0.0)
        y, along = canvas.camera.height + t * canvas.dy, t * (b * canvas.u - a * canvas.dz)
        shade = _bricks(along, y) if world.bricks else 1.0 + 0.03 * wave(along * 0.8 + world.phases[0])
        shade = np.where(y < 0.22, 0.72, shade) * light(layout, (-a, 0.0, -b), contrast=0.8)
        for c in range(3):
            canvas.rgb[c] = np.where(seen, world.wall_rgb[c] * shade, canvas.rgb[c])
        canvas.normal[0] = np.where(seen, -a, canvas.normal[0])
        canvas.normal[2] = np.where(seen, -b, canvas.normal[2])
        canvas.depth = np.where(seen, t, canvas.depth)


def _bricks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    row = np.floor(y * 2.6)
    joint = (fract(y * 2.6) < 0.13) | (fract(x * 1.15 + 0.5 * fract(row * 0.5) * 2.0) < 0.07)
    return np.where(joint, 0.78, 1.0 + 0.05 * wave(np.floor(x * 1.15) * 0.37 + row * 0.61))


def _ground(canvas: Canvas, layout: Layout) -> None:
    """The plane y = 0, on the rows that see it before the mountains or the edge."""
    world, h = layout.surroundings, canvas.camera.height
    below = canvas.dy[:, 0] < -1e-6
    t_row = np.where(below, -h / np.where(below, canvas.dy[:, 0], -1.0), np.inf)
    limit = MOUNTAINS if world.mountains else FAR
    rows = np.flatnonzero(below & (np.where(below, t_row, 0.0) * canvas.dz[:, 0] < limit))
    if len(rows) == 0:
        return
    part = slice(int(rows[0]), canvas.size)
    t = t_row[part, None]
    x, z = t * canvas.u, t * canvas.dz[part]
    seen = t < canvas.depth[part]
    rgb, grain = _ground_colour(world.ground, x, z, world.phases, t)
    label = np.full(seen.shape, CLASS_INDEX[world.ground], np.uint8)
    bright = light(layout, (0.0, 1.0, 0.0), contrast=0.6) * _shadows(layout, x, z)
    colours = [c * bright for c in rgb]
    if world.sea is not None:
        sea = z > world.sea + 0.6 * wave(x * 0.07 + world.phases[3])
        water = _sea_colour(x, z, world, layout)
        colours = [np.where(sea, w, c) for w, c in zip(water, colours)]
        label[sea] = CLASS_INDEX["sea"]
    for c, colour in enumerate(hazy(colours, t, layout)):
        canvas.rgb[c, part] = np.where(seen, colour, canvas.rgb[c, part])
    canvas.depth[part] = np.where(seen, t, canvas.depth[part])
    canvas.normal[:, part] = np.where(seen, 0.0, canvas.normal[:, part])
    canvas.normal[1, part] = np.where(seen, 1.0, canvas.normal[1, part])
    canvas.grain[part] = np.where(seen, grain, canvas.grain[part])
    canvas.semantic[part] = np.where(seen, label, canvas.semantic[part])


def _shadows(layout: Layout, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Soft round shadows on the ground, drawn away from the sun."""
    shade = np.ones(x.shape)
    depth = 0.25 + 0.3 * SKIES[layout.surroundings.sky]["sun"]
    for item in layout.items:
        radius = 0.75 * item.look.size
        shift = 0.25 * item.look.size / layout.sun[1]
        dx, dz = (x - (item.x - shift * layout.sun[0])) / radius, (z - (item.z - shift * layout.sun[2])) / radius
        core = np.minimum(np.maximum(1.6 - 1.6 * (dx * dx + dz * dz), 0.0), 1.0)
        shade = shade * (1.0 - depth * core)
    return shade


def _ground_colour(
    name: str, x: np.ndarray, z: np.ndarray, p: tuple[float, ...], t: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray | float]:
    """Albedo and grain of a ground at world points; fine texture fades with distance."""
    near = np.minimum(np.maximum(1.4 - t / 12.0, 0.1), 1.0)
    broad = wave(x * 0.31 + p[0] + 0.3 * wave(z * 0.22 + p[2])) * wave(z * 0.27 + p[1])
    if name == "grass":
        tuft = wave(x * 2.9 + z * 1.3 + p[3]) * wave(z * 2.3 - x * 1.1) * near
        return [0.25 + 0.06 * broad + 0.04 * tuft, 0.53 + 0.09 * broad + 0.08 * tuft, 0.16 + 0.03 * broad], 0.05 * near
    if name == "sand":
        ripple = wave(z * 1.2 + 0.35 * wave(x * 0.23 + p[3])) * near
        tone = 0.04 * broad + 0.05 * ripple
        return [0.84 + tone, 0.73 + tone, 0.49 + 0.8 * tone], 0.03 * near
    if name == "snow":
        drift = 0.045 * broad
        return [0.88 + drift, 0.91 + drift, 0.97 + 0.5 * drift], 0.01
    if name == "road":
        lane = (np.abs(x - 2.0 * (p[4] - 0.5) - 0.12 * z * (p[5] - 0.5)) < 0.11) & (fract(z * 0.31 + p[0]) < 0.6)
        grey = np.where(lane, 0.92, 0.36 + 0.03 * broad)
        return [grey, grey, grey + 0.02], 0.035 * near
    plank = np.floor(x * 1.7 + p[4])
    tone = 0.92 + 0.07 * broad + 0.13 * wave(plank * 0.37 + p[5]) + 0.04 * wave(x * 5.3 + 0.4 * wave(z * 0.4)) * near
    tone = np.where(fract(x * 1.7 + p[4]) < 0.07, tone * (1.0 - 0.4 * near), tone)
    return [0.60 * tone, 0.41 * tone, 0.25 * tone], 0.015


def _sea_colour(x: np.ndarray, z: np.ndarray, world: Surroundings, layout: Layout) -> list[np.ndarray]:
    p, sky = world.phases, SKIES[world.sky]["zenith"]
    swell = wave(z * 0.45 + 0.25 * wave(x * 0.14 + p[1])) * wave(x * 0.11 + p[2])
    crest = 0.10 * np.maximum(wave(z * 1.3 + 0.3 * wave(x * 0.5)) - 0.6, 0.0)
    return [c + 0.12 * s + (0.04 + 0.04 * k) * swell + crest for k, (c, s) in enumerate(zip((0.04, 0.28, 0.50), sky))]
