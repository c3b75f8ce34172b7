"""What stands where in a scene: camera, light, surroundings and objects drawn from the scene's random stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tasks.scenes.paint import OWN_TEXTURES
from tasks.scenes.rng import Stream
from tasks.scenes.splits import SPLITS, VIEWS
from tasks.scenes.tables import COLOURS, GROUNDS, OBJECTS, RGB, ROUND, SKIES, TIE, USUAL, VERSION

LAYOUT, NOISE, CAPTIONS, INSTANCE, PLACE, POINTS = 1, 2, 3, 4, 5, 6  # purposes of streams
_INSTANCE_TIE = 0.4  # retrieval: more colours among objects of one category
_FAR_SIZE = 0.55  # far objects of centred scenes are small, so that the near one stays the subject
_NEAREST = 2.2  # metres before the second camera of a pair: what is nearer is left out
_COUNTS = (1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4)  # objects in an open scene


@dataclass(frozen=True)
class Camera:
    """Height above the ground in metres; cosine and sine of the downward pitch."""

    height: float
    cos: float
    sin: float


@dataclass(frozen=True)
class Surroundings:
    """Everything but the objects. Lengths in metres; `phases` shift the textures."""

    ground: str
    sky: str
    phases: tuple[float, ...]
    sea: float | None = None  # distance of the shore
    mountains: bool = False
    walls: tuple[tuple[float, float, float], ...] = ()  # a x + b z = w, (a, b) a unit vector
    wall_rgb: RGB = (0.0, 0.0, 0.0)
    bricks: bool = False
    # (c, s, p, q) of a second view: what is at (x, z) here is at (c x − s z + p, s x + c z + q) in the first
    turn: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Look:
    """What makes an object that very object, whatever the view."""

    category: str
    colour: str
    rgb: RGB
    accent: RGB
    size: float  # metres, about the height
    scale: RGB  # proportions along x, y, z
    texture: str
    frequency: float


@dataclass(frozen=True)
class Item:
    """An object in place: ground position in metres (x right of, z before the camera), cosine and sine of its yaw."""

    look: Look
    x: float
    z: float
    cos: float
    sin: float


@dataclass(frozen=True)
class Layout:
    """A whole scene."""

    camera: Camera
    sun: RGB  # unit vector towards the light
    surroundings: Surroundings
    items: tuple[Item, ...]


def scene_stream(seed: int, index: int, split: str, purpose: int) -> Stream:
    """The random stream of one purpose (layout, noise, captions …) of one scene."""
    return Stream(VERSION, seed, SPLITS[split].stream, index, purpose)


def compose(seed: int, index: int, split: str) -> Layout:
    """The layout of scene `index` of a split."""
    kind = SPLITS[split].layout
    if kind == "pair":
        return _seen_from_two(seed, index // 2, split)[index % 2]
    rng = scene_stream(seed, index, split, LAYOUT)
    surroundings = _surroundings(rng)
    camera, sun = _camera(rng), _sun(rng)
    if kind == "open":
        items = _open_items(rng)
    elif kind == "centred":
        items = _centred_items(rng, draw_look(rng, OBJECTS[index % len(OBJECTS)]))
    else:
        instance = index // VIEWS
        look = draw_look(
            scene_stream(seed, instance, split, INSTANCE), OBJECTS[instance % len(OBJECTS)], tie=_INSTANCE_TIE
        )
        items = _centred_items(rng, look)
    return Layout(camera, sun, surroundings, items)


def _seen_from_two(seed: int, pair: int, split: str) -> tuple[Layout, Layout]:
    """A scene out of doors, and the same from a place 8 to 68 degrees further round its near object.

    Ground, sea, sun and objects turn together; sky and mountains are far away. A far object that the second camera
    stands at is in neither.
    """
    rng = scene_stream(seed, pair, split, LAYOUT)
    world = _surroundings(rng)
    while world.walls:  # the second camera may stand behind one
        world = _surroundings(rng)
    camera, sun = _camera(rng), _sun(rng)
    items = _centred_items(rng, draw_look(rng, OBJECTS[pair % len(OBJECTS)]))
    rng = scene_stream(seed, pair, split, PLACE)
    c, s = _unit_from_tangent(rng.uniform(0.07, 0.67) * (1 if rng.chance(0.5) else -1))
    z = rng.uniform(2.9, 3.9)
    near, x, second = items[0], rng.uniform(-0.12, 0.12) * z, _camera(rng)
    moved = []
    for item in items:
        dx, dz = item.x - near.x, item.z - near.z
        place = c * dx + s * dz + x, c * dz - s * dx + z
        moved.append(Item(item.look, *place, c * item.cos - s * item.sin, c * item.sin + s * item.cos))
    kept = [k for k, item in enumerate(moved) if item.z > _NEAREST]
    turn = c, s, near.x - c * x + s * z, near.z - s * x - c * z
    return (
        Layout(camera, sun, world, tuple(items[k] for k in kept)),
        Layout(
            second,
            (c * sun[0] + s * sun[2], sun[1], c * sun[2] - s * sun[0]),
            replace(world, turn=turn),
            tuple(moved[k] for k in kept),
        ),
    )


def draw_look(rng: Stream, category: str, *, tie: float = TIE) -> Look:
    """A category's appearance: its usual colour with probability `tie`, size, proportions and texture."""
    colour = USUAL[category] if rng.chance(tie) else rng.pick(tuple(COLOURS))
    r, g, b = (min(max(c + rng.uniform(-0.06, 0.06), 0.03), 1.0) for c in COLOURS[colour])
    dark = max(r, g, b) < 0.25 or rng.chance(0.45)
    mixed = [0.45 * c + 0.55 for c in (r, g, b)] if dark else [0.62 * c for c in (r, g, b)]
    width, height, length = (rng.uniform(0.9, 1.12) for _ in range(3))
    if category in ROUND:
        height = length = width
    return Look(
        category=category,
        colour=colour,
        rgb=(r, g, b),
        accent=(mixed[0], mixed[1], mixed[2]),
        size=rng.uniform(1.2, 1.85),
        scale=(width, height, length),
        texture=rng.pick(OWN_TEXTURES),
        frequency=rng.uniform(1.8, 3.4),
    )


def _unit_from_tangent(t: float) -> tuple[float, float]:
    """(cos, sin) of the angle whose half has tangent t: the rational parametrisation, free of libm."""
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _camera(rng: Stream) -> Camera:
    cos, sin = _unit_from_tangent(rng.uniform(0.044, 0.123))  # 5 to 14 degrees
    return Camera(rng.uniform(1.4, 2.3), cos, sin)


def _sun(rng: Stream) -> RGB:
    x, y, z = rng.uniform(-1.1, 1.1), rng.uniform(0.7, 1.4), rng.uniform(-1.2, -0.2)
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def _surroundings(rng: Stream) -> Surroundings:
    phases = tuple(rng.uniform() for _ in range(6))
    if rng.chance(0.25):
        cos, sin = _unit_from_tangent(rng.uniform(-0.1, 0.1))
        walls = [(sin, cos, rng.uniform(9.0, 12.0))]
        if rng.chance(0.5):
            walls.append((cos, -sin, rng.uniform(4.0, 5.5)) if sin < 0 else (-cos, sin, rng.uniform(4.0, 5.5)))
        bright = rng.uniform(0.8, 1.05)
        r, g, b = (bright * c + rng.uniform(-0.1, 0.1) for c in (0.80, 0.74, 0.66))
        return Surroundings("floor", "grey", phases, walls=tuple(walls), wall_rgb=(r, g, b), bricks=rng.chance(0.5))
    ground = rng.pick(tuple(GROUNDS))
    sea = rng.uniform(8.0, 12.0) if rng.chance(GROUNDS[ground]) else None
    return Surroundings(ground, rng.pick(tuple(SKIES)), phases, sea=sea, mountains=rng.chance(0.4))


def _place(rng: Stream, look: Look, u: float, z: float, half_turn: float) -> Item:
    cos, sin = _unit_from_tangent(rng.uniform(-half_turn, half_turn))
    return Item(look, u * z, z, cos, sin)


def _apart(item: Item, others: list[Item]) -> bool:
    """Whether an object neither touches nor quite hides another."""
    for other in others:
        dx, dz = item.x - other.x, item.z - other.z
        reach = 0.62 * (item.look.size + other.look.size)
        if dx * dx + dz * dz < reach * reach or abs(item.x / item.z - other.x / other.z) < 0.15:
            return False
    return True


def _open_items(rng: Stream) -> tuple[Item, ...]:
    items: list[Item] = []
    for category in rng.sample(OBJECTS, rng.pick(_COUNTS)):
        look = draw_look(rng, category)
        for _ in range(12):
            item = _place(rng, look, rng.uniform(-0.47, 0.47), rng.uniform(3.0, 5.6), 0.32)
            if _apart(item, items):
                items.append(item)
                break
    return tuple(items)


def _centred_items(rng: Stream, look: Look) -> tuple[Item, ...]:
    """One near object about the middle and up to two far ones of other categories."""
    items = [_place(rng, look, rng.uniform(-0.12, 0.12), rng.uniform(2.9, 3.9), 0.5)]
    others = [name for name in OBJECTS if name != look.category]
    for category in rng.sample(others, rng.integer(3)):
        far = draw_look(rng, category)
        far = replace(far, size=_FAR_SIZE * far.size)
        item = _place(rng, far, rng.uniform(-0.5, 0.5), rng.uniform(6.4, 8.0), 0.5)
        if abs(item.x / item.z - items[0].x / items[0].z) > 0.25 and _apart(item, items):
            items.append(item)
    return tuple(items)
