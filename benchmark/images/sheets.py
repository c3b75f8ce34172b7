"""Sheets: lines of pictures with words beside them, as one PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from benchmark.images.drawing import GAP, INK, LINE, STRIPES, WRONG, cut, font, joined, png, striped

HEIGHT, WIDEST, WORDS = 160, 300, 270  # pixels of a panel and of its words
NOT_SCORED = STRIPES[0]


@dataclass
class Word:
    """A line beside a sample, with the colour that it explains."""

    text: str
    colour: tuple[int, int, int] | None = None
    wrong: bool = False


@dataclass
class Seen:
    """A line of a sheet: panels [H, W, 3] with a title each, words beside them, and whose they are."""

    panels: Sequence[np.ndarray]
    titles: Sequence[str]
    words: Sequence[Word] = ()
    name: str = ""


@dataclass
class Sheet:
    """Some samples of one split: what is drawn (a picture in a notebook), and what is said of them in words."""

    title: str
    called: str = "target"
    lines: list[Seen] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Sheet {self.title}: {'; '.join(self.facts)}>"

    def _repr_png_(self) -> bytes:
        return drawn([self])


def drawn(sheets: Sequence[Sheet]) -> bytes:
    """One PNG of all `sheets` below each other."""
    lines = [[_line(seen) for seen in sheet.lines] for sheet in sheets]
    width = max([700, *(line.width for some in lines for line in some)])
    blocks: list[Image.Image] = []
    for sheet, some in zip(sheets, lines):
        words = [part for fact in (sheet.title, *sheet.facts) for part in textwrap.wrap(fact, width // 7)]
        head = Image.new("RGB", (width, LINE * len(words) + 6), (235, 238, 242))
        for i, text in enumerate(words):
            ImageDraw.Draw(head).text((4, 3 + LINE * i), text, INK, font())
        blocks += [head, *some]
    out = Image.new("RGB", (width + 2 * GAP, sum(b.height + GAP for b in blocks) + GAP), "white")
    y = GAP
    for block in blocks:
        out.paste(block, (GAP, y))
        y += block.height + GAP
    return png(out)


def _line(seen: Seen) -> Image.Image:
    height = min(HEIGHT, *(max(1, WIDEST * p.shape[0] // p.shape[1]) for p in seen.panels)) if seen.panels else LINE
    widths = [max(1, round(p.shape[1] * height / p.shape[0])) for p in seen.panels]
    strip = joined(seen.panels, height) if seen.panels else Image.new("RGB", (1, height), "white")
    room = WORDS if len(seen.panels) > 1 else 3 * WORDS
    out = Image.new("RGB", (strip.width + 2 * GAP + room * bool(seen.words), 2 * LINE + max(height, LINE)), "white")
    out.paste(strip, (0, LINE))
    draw, x = ImageDraw.Draw(out), 0
    for title, width in zip(seen.titles, widths):
        draw.text((x + 1, 1), cut(title, width), INK, font())
        x += width + GAP
    draw.text((1, LINE + height + 1), cut(seen.name, strip.width if seen.panels else room), (110, 110, 110), font())
    y = LINE
    for word in seen.words:
        if word.colour == NOT_SCORED:
            box = striped(np.zeros((11, 11, 3), np.uint8), np.ones((11, 11), bool))
            out.paste(Image.fromarray(box), (strip.width + 9, y + 3))
        elif word.colour is not None:
            draw.rectangle((strip.width + 9, y + 3, strip.width + 19, y + 13), word.colour, (150, 150, 150))
        left = strip.width + (24 if word.colour is not None else 9)
        draw.text((left, y), cut(word.text, out.width - left), WRONG if word.wrong else INK, font())
        y += LINE
    return out
