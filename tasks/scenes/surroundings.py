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
    world, h = layout.surroundings, canvas.camera.height
    below = canvas.dy[:, 0] < -1e-6
    ground = np.where(below, -h / np.where(below, canvas.dy[:, 0], -1.0), np.inf)  # [S] depth of the plane y = 0
    limit = MOUNTAINS if world.mountains else FAR
    first = int(np.argmax(below & (ground * canvas.dz[:, 0] < limit)))  # the camera looks down: there is one
    if world.walls:
        _walls(canvas, layout, ground)
    else:
        above = slice(0, first)
        _sky(canvas, world, above)
        if world.mountains:
            _mountains(canvas, layout, above)
    _ground(canvas, layout, slice(first, canvas.size), ground[first:, None])


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


def _sky(canvas: Canvas, world: Surroundings, rows: slice) -> None:
    sky, p, dy = SKIES[world.sky], world.phases, canvas.dy[rows]
    height = np.minimum(np.maximum(dy * 2.2, 0.0), 1.0)
    bands = wave(dy * 2.4 + p[1] + 0.35 * canvas.u + 0.12 * wave(canvas.u * 1.3 + p[3]))
    bands *= wave(canvas.u * 0.9 + p[0])
    clouds = np.maximum(bands, 0.0, out=bands)
    clouds *= 0.10 + 0.12 * height
    for c in range(3):
        np.add(sky["horizon"][c] + (sky["zenith"][c] - sky["horizon"][c]) * height, clouds, out=canvas.rgb[c, rows])


def _mountains(canvas: Canvas, layout: Layout, rows: slice) -> None:
    """The plane z = MOUNTAINS on the rows that do not see the ground before it."""
    p = layout.surroundings.phases
    t = MOUNTAINS / canvas.dz[rows]  # [R, 1]
    x, y = t * canvas.u, canvas.camera.height + t * canvas.dy[rows]
    ridge = 4.6 + 1.7 * wave(x * 0.024 + p[0]) + 1.1 * np.abs(wave(x * 0.051 + p[1])) + 0.35 * wave(x * 0.21 + p[2])
    seen = (y < ridge) & (y > 0)
    cap = y > ridge - 1.5 + 0.5 * wave(x * 0.2 + p[3]) + 0.3 * wave(x * 0.55)
    crag = 0.43 + 0.05 * wave(x * 0.17 + y * 0.25 + p[4]) + 0.04 * wave(x * 0.41 - y * 0.3)
    bright = light(layout, (0.0, 0.0, -1.0), contrast=0.5)
    rock = [np.where(cap, s, crag * k) * bright for s, k in zip((0.90, 0.92, 0.96), (1.0, 0.95, 1.06))]
    for c, colour in enumerate(hazy(rock, t, layout)):
        np.copyto(canvas.rgb[c, rows], colour, where=seen)
    np.copyto(canvas.depth[rows], t, where=seen)
    np.copyto(canvas.normal[2, rows], -1.0, where=seen)
    np.copyto(canvas.semantic[rows], CLASS_INDEX["mountain"], where=seen)


def _walls(canvas: Canvas, layout: Layout, ground: np.ndarray) -> None:
    """Two planes at most, on the rows that see any of them before the `ground` ([S], its depth)."""
    world = layout.surroundings
    for a, b, w in world.walls:
        ahead = a * canvas.u + b * canvas.dz
        t = np.where(ahead > 1e-3, w / np.where(ahead > 1e-3, ahead, 1.0), np.inf)
        rows = slice(0, int(np.flatnonzero(t.min(1) <= ground)[-1]) + 1)  # the first row sees a wall
        t = t[rows]
        seen = t < canvas.depth[rows]
        y, along = canvas.camera.height + t * canvas.dy[rows], t * (b * canvas.u - a * canvas.dz[rows])
        shade = _bricks(along, y) if world.bricks else 1.0 + 0.03 * wave(along * 0.8 + world.phases[0])
        shade = np.where(y < 0.22, 0.72, shade) * light(layout, (-a, 0.0, -b), contrast=0.8)
        for c in range(3):
            np.copyto(canvas.rgb[c, rows], world.wall_rgb[c] * shade, where=seen)
        for axis, n in ((0, -a), (2, -b)):
            np.copyto(canvas.normal[axis, rows], n, where=seen)
        np.copyto(canvas.depth[rows], t, where=seen)
        canvas.semantic[rows] = CLASS_INDEX["wall"]


def _bricks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    row = np.floor(y * 2.6)
    joint = (fract(y * 2.6) < 0.13) | (fract(x * 1.15 + 0.5 * fract(row * 0.5) * 2.0) < 0.07)
    return np.where(joint, 0.78, 1.0 + 0.05 * wave(np.floor(x * 1.15) * 0.37 + row * 0.61))


def _ground(canvas: Canvas, layout: Layout, part: slice, t: np.ndarray) -> None:
    """The plane y = 0 on the rows `part`, at depth `t` [R, 1]; only walls may hide it there."""
    world = layout.surroundings
    x, z = t * canvas.u, t * canvas.dz[part]
    seen = t < canvas.depth[part] if world.walls else np.True_
    bright = light(layout, (0.0, 1.0, 0.0), contrast=0.6) * _shadows(layout, x, z)
    if world.turn is not None:  # textures and the shore lie where the first camera of the pair sees them
        c, s, p, q = world.turn
        x, z = c * x - s * z + p, s * x + c * z + q
    rgb, grain = _ground_colour(world.ground, x, z, world.phases, t)
    colours = [c * bright for c in rgb]
    np.copyto(canvas.semantic[part], CLASS_INDEX[world.ground], where=seen)
    if world.sea is not None:
        sea = z > world.sea + 0.6 * wave(x * 0.07 + world.phases[3])
        for colour, water in zip(colours, _sea_colour(x, z, world, layout)):
            np.copyto(colour, water, where=sea)
        canvas.semantic[part][sea] = CLASS_INDEX["sea"]
    for c, colour in enumerate(hazy(colours, t, layout)):
        np.copyto(canvas.rgb[c, part], colour, where=seen)
    np.copyto(canvas.depth[part], t, where=seen)
    for axis, n in enumerate((0.0, 1.0, 0.0)):
        np.copyto(canvas.normal[axis, part], n, where=seen)
    np.copyto(canvas.grain[part], grain, where=seen)


def _shadows(layout: Layout, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Soft round shadows on the ground ([R, S]), drawn away from the sun; z is that of a row, [R, 1]."""
    shade = np.ones(x.shape)
    depth = 0.25 + 0.3 * SKIES[layout.surroundings.sky]["sun"]
    for item in layout.items:
        radius = 0.75 * item.look.size
        shift = 0.25 * item.look.size / layout.sun[1]
        dz = (z - (item.z - shift * layout.sun[2])) / radius
        rows = np.flatnonzero(dz * dz < 1)  # elsewhere the core is nought
        if len(rows) == 0:
            continue
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        dx = (x[part] - (item.x - shift * layout.sun[0])) / radius
        core = np.minimum(np.maximum(1.6 - 1.6 * (dx * dx + dz[part] * dz[part]), 0.0), 1.0)
        shade[part] *= 1.0 - depth * core
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
