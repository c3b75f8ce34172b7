"""A contact sheet: scenes with their classes, depth, normals and long caption."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageColor, ImageDraw, ImageFont

from benchmark.errors import UsageError
from benchmark.system.files import write_atomic
from tasks.scenes.render import Scene, render
from tasks.scenes.tables import CLASS_NAMES, VERSION, read_table

PANEL, COLUMNS, GAP, CAPTION, MARGIN = 128, 3, 16, 42, 24
HEAD, LEGEND_ROW = 56, 24
NEAREST, FARTHEST = 2.0, 40.0  # metres, ends of the depth colours
_INK, _QUIET, _PAPER = (28, 32, 38), (110, 116, 124), (255, 255, 255)


def contact_sheet(path: Path, n: int = 24) -> Path:
    """Draw the first `n` test scenes to a PNG at `path` and return it.

    Raises UsageError when `n` is not 1 … 200, BenchError when the file cannot be written.
    """
    if not 1 <= n <= 200:
        raise UsageError(f"contact sheet of {n} scenes: choose 1 to 200")
    cell_w, cell_h = 4 * PANEL, PANEL + CAPTION
    columns = min(COLUMNS, n)
    rows = -(-n // columns)
    width = 2 * MARGIN + columns * cell_w + (columns - 1) * GAP
    legend = _legend_lines(width - 2 * MARGIN)
    height = MARGIN + HEAD + rows * cell_h + len(legend) * LEGEND_ROW + MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), f"scenes, version {VERSION}", _INK, _font(22))
    explained = "picture · classes · depth (near yellow, far violet, sky black) · normals · long caption"
    draw.text((MARGIN, MARGIN + 25), explained, _QUIET, _font(13))
    for i in range(n):
        x = MARGIN + (i % columns) * (cell_w + GAP)
        y = MARGIN + HEAD + (i // columns) * cell_h
        _cell(sheet, draw, x, y, render(0, i, PANEL, split="test"))
    _legend(draw, legend, MARGIN + HEAD + rows * cell_h)
    write_atomic(path, lambda f: sheet.save(f, "PNG", optimize=True))
    return path


def class_colours() -> np.ndarray:
    """[C, 3] uint8 palette in the order of CLASS_NAMES."""
    palette = read_table("palette.toml")
    return np.array([ImageColor.getrgb(palette[name]) for name in CLASS_NAMES], np.uint8)


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 colours of the logarithm of depth; black where it is infinite."""
    finite = np.isfinite(depth)
    share = np.log(np.where(finite, depth, FARTHEST) / NEAREST) / np.log(FARTHEST / NEAREST)
    colours = colormaps["plasma"](1.0 - np.clip(share, 0.0, 1.0))[..., :3]
    return np.where(finite[..., None], colours * 255, 0).astype(np.uint8)


def normals_picture(normals: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 in the usual colours (x right red, y up green, towards the camera blue); black in the sky."""
    shown = (normals * np.array([1.0, -1.0, -1.0]) + 1.0) * 127.5
    return np.where(np.any(normals != 0, axis=-1, keepdims=True), shown, 0).astype(np.uint8)


def _cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, scene: Scene) -> None:
    classes = class_colours()[scene.semantic]
    panels = (scene.rgb, classes, depth_picture(scene.depth), normals_picture(scene.normals))
    for k, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel), (x + k * PANEL, y))
    for k, line in enumerate(textwrap.wrap(scene.long, 84)[:2]):
        draw.text((x + 1, y + PANEL + 4 + 15 * k), line, _INK, _font(12))


def _legend_lines(width: int) -> list[list[tuple[str, int]]]:
    """Class names with their left edges, broken into lines of `width`."""
    lines: list[list[tuple[str, int]]] = [[]]
    x = 0
    for name in CLASS_NAMES:
        step = 26 + int(_font(13).getlength(name)) + 14
        if x + step > width:
            lines.append([])
            x = 0
        lines[-1].append((name, x))
        x += step
    return lines


def _legend(draw: ImageDraw.ImageDraw, lines: list[list[tuple[str, int]]], top: int) -> None:
    palette = dict(zip(CLASS_NAMES, class_colours().tolist()))
    for row, line in enumerate(lines):
        y = top + row * LEGEND_ROW + 4
        for name, x in line:
            box = (MARGIN + x, y, MARGIN + x + 18, y + 14)
            draw.rounded_rectangle(box, 3, fill=tuple(palette[name]), outline=_QUIET)
            draw.text((MARGIN + x + 24, y), name, _INK, _font(13))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
