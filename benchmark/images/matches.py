"""Matches drawn between two pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from benchmark.images.drawing import GAP, HEIGHT, RIGHT, WRONG

MARK = 3  # pixels, half of a mark


def matches(
    first: np.ndarray,
    second: np.ndarray,
    source: np.ndarray,
    found: np.ndarray,
    truth: np.ndarray | None = None,
    right: np.ndarray | None = None,
) -> Image.Image:
    """Two pictures [H, W, 3] with lines from `source` [K, 2] to `found` [K, 2], x and y in their own pixels.

    Lines of `right` [K] answers are green, others red; a ring in their colour is where the `truth` [K, 2] is.
    """
    panels = [Image.fromarray(image) for image in (first, second)]
    scales = [HEIGHT / panel.height for panel in panels]
    panels = [panel.resize((max(1, round(panel.width * k)), HEIGHT)) for panel, k in zip(panels, scales)]
    start = panels[0].width + GAP
    canvas = Image.new("RGB", (start + panels[1].width, HEIGHT), "white")
    canvas.paste(panels[0], (0, 0))
    canvas.paste(panels[1], (start, 0))
    draw = ImageDraw.Draw(canvas)
    for k in range(len(source)):
        colour = RIGHT if right is None or right[k] else WRONG
        x, y = source[k] * scales[0]
        u, v = found[k] * scales[1] + [start, 0]
        draw.line((x, y, u, v), colour)
        for a, b in ((x, y), (u, v)):
            draw.rectangle((a - 1, b - 1, a + 1, b + 1), colour)
        if truth is not None:
            u, v = truth[k] * scales[1] + [start, 0]
            draw.ellipse((u - MARK, v - MARK, u + MARK, v + MARK), outline=colour)
    return canvas
