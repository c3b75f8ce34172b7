"""Captions at three granularities, made from what is visible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tasks.scenes.layout import CAPTIONS, Layout, scene_stream
from tasks.scenes.rng import Stream
from tasks.scenes.tables import CLASS_NAMES, STUFF, read_table

_WORDS = read_table("captions.toml")
_BIG, _SMALL = 1.64, 1.38  # metres
_STUFF_SHARE = 0.03  # of the picture


@dataclass(frozen=True)
class SeenObject:
    """An object large enough to be spoken of (`render.MIN_SHARE`); `column` is its mean column (0 left, 1 right)."""

    id: int  # value in the instance mask
    category: str
    colour: str
    size: float  # metres
    distance: float  # metres along the ground
    pixels: int
    column: float


class Captions(NamedTuple):
    """Noisy alt text naming one thing; a short list; a long text with colours and relations."""

    alt: str
    short: str
    long: str


def write_captions(
    seed: int,
    index: int,
    split: str,
    layout: Layout,
    seen: Sequence[SeenObject],
    semantic: np.ndarray,
    variant: int = 0,
) -> Captions:
    """The three captions of a scene; another `variant` words them anew."""
    rng = scene_stream(seed, index, split, CAPTIONS + 16 * variant)
    counts = np.bincount(semantic.ravel(), minlength=len(CLASS_NAMES))
    present = [name for i, name in enumerate(STUFF) if counts[i] > semantic.size * _STUFF_SHARE]
    ground = layout.surroundings.ground
    behind = [name for name in present if name != ground]
    return Captions(_alt(rng, seen, present), _short(rng, seen, ground, behind), _long(rng, seen, layout, behind))


def article(words: str) -> str:
    """`words` after "a" or "an"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def _coloured(rng: Stream, thing: SeenObject, p: float) -> str:
    return f"{thing.colour} {thing.category}" if rng.chance(p) else thing.category


def _alt(rng: Stream, seen: Sequence[SeenObject], present: list[str]) -> str:
    noise = [rng.pick(_WORDS["noise"]) for _ in range(rng.integer(3))]
    if seen and rng.chance(0.85):
        largest = max(seen, key=lambda thing: thing.pixels)
        thing = largest if rng.chance(0.6) else rng.pick(seen)
        core = _coloured(rng, thing, _WORDS["colour_in_alt"])
    else:
        core = rng.pick(present)
    return " ".join([*noise[:1], core, *noise[1:]])


def _short(rng: Stream, seen: Sequence[SeenObject], ground: str, behind: list[str]) -> str:
    names = [article(_coloured(rng, thing, _WORDS["colour_in_short"])) for thing in rng.sample(seen, len(seen))]
    if names:
        listed = " and ".join(names) if len(names) < 3 else ", ".join(names[:-1]) + " and " + names[-1]
        text = f"{listed} {rng.pick(_WORDS['standing'])} {ground}"
    else:
        text = f"a view of the {ground}"
    if behind and rng.chance(0.4):
        text += f" with {rng.pick(behind)}"
    return text


def _long(rng: Stream, seen: Sequence[SeenObject], layout: Layout, behind: list[str]) -> str:
    def name(thing: SeenObject) -> str:
        size = "big " if thing.size > _BIG else "small " if thing.size < _SMALL else ""
        return article(
            (size if rng.chance(_WORDS["size_in_long"]) else "") + _coloured(rng, thing, _WORDS["colour_in_long"])
        )

    things = sorted(seen, key=lambda thing: thing.column)
    clauses = [_relation(rng, a, b, name) for a, b in pairwise(things)]
    if len(things) == 1:
        column = things[0].column
        side = "on the left" if column < 0.4 else "on the right" if column > 0.6 else "in the middle"
        clauses.append(f"{name(things[0])} {side}")
    text = ", ".join(clauses) if clauses else "an empty scene"
    world = layout.surroundings
    text += f". the ground is {world.ground}"
    rest = [name for name in behind if name != "sky"]
    if rest:
        verb = "is" if len(rest) == 1 else "are"
        text += ", " + " and ".join(f"the {name}" for name in rest) + f" {verb} behind"
    if "sky" in behind and rng.chance(0.7):
        text += f" under {rng.pick(_WORDS['skies'][world.sky])}"
    return text


def _relation(rng: Stream, left: SeenObject, right: SeenObject, name: Callable[[SeenObject], str]) -> str:
    if abs(left.distance - right.distance) > 1.2 and rng.chance(0.4):
        near, far = (left, right) if left.distance < right.distance else (right, left)
        return f"{name(near)} in front of {name(far)}"
    if rng.chance(0.5):
        return f"{name(left)} to the left of {name(right)}"
    return f"{name(right)} to the right of {name(left)}"
