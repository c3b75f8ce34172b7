"""Predictions as pictures: colour-coded maps beside the image and the ground truth, retrieval's neighbours in a strip.

Kept under `<row folder>/pictures/` they are shown in the leaderboard.
"""

from __future__ import annotations

import importlib.util
import io
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Kind = Literal["segmentation", "depth", "normals"]
GAP = 4  # pixels between panels
HEIGHT = 224  # of a panel; pictures are for looking at, not for measuring
SMALL = 144  # side of a neighbour
STRIPES = ((96, 96, 96), (178, 178, 178))  # what is not scored: no class is drawn in two colours
RIGHT, WRONG = (29, 122, 76), (179, 55, 44)
INK = (40, 40, 40)
NEAR_FAR = "magma_r"  # colours of depth, light where near
FRAME, LINE = 5, 17
PANELS = ("image", "ground truth", "prediction", "error")


def palette_for(classes: int) -> np.ndarray:
    """[classes, 3] uint8 colours that stay apart: hues by the golden angle, three lightness steps."""
    import colorsys

    rows = [
        colorsys.hls_to_rgb((0.58 + i * 0.61803398875) % 1.0, (0.48, 0.66, 0.34)[i % 3], (0.62, 0.55, 0.7)[i % 3])
        for i in range(classes)
    ]
    return (np.array(rows).reshape(-1, 3) * 255).round().astype(np.uint8)


def side_by_side(
    image: np.ndarray,
    target: np.ndarray,
    prediction: np.ndarray,
    kind: Kind,
    palette: np.ndarray | None = None,
    ignore: int = 255,
    names: Sequence[str] = (),
) -> bytes:
    """PNG of image | ground truth | prediction | error, with what the colours mean below.

    `image` [H, W, 3] uint8. segmentation: class indices [H, W], named by `names`; depth: metres [H, W], both on the
    ground truth's scale; normals: unit vectors [H, W, 3]. Pixels without ground truth are striped in target and error.
    The error is wrong pixels (red), absolute metres (to the 98th percentile) or the angle (to 90°).
    """
    if kind == "segmentation":
        seen = np.union1d(target[(target != ignore) & (target >= 0)], prediction).astype(int)
        colours = palette_for(int(seen.max(initial=0)) + 1) if palette is None else palette
        panels, words = _segmentation(target, prediction, colours, ignore), "error: red where wrong"
        key = [(names[c], tuple(colours[c].tolist())) for c in seen if c < len(names)]
    elif kind == "depth":
        panels, words = _depth(target, prediction)
        key = []
    else:
        panels, words, key = (
            _normals(target, prediction),
            "red right, green up, blue to the camera; error: dark 0°, yellow 90° and more",
            [],
        )
    if bool((panels[0] == STRIPES[0]).all(-1).any()):
        words += "; striped: not scored"
    return png(_below(titled(joined([image, *panels]), PANELS), words, key))


def _segmentation(target: np.ndarray, prediction: np.ndarray, palette: np.ndarray, ignore: int) -> list[np.ndarray]:
    valid = (target != ignore) & (target >= 0)
    truth = palette[np.where(valid, target, 0)]
    wrong = np.full((*target.shape, 3), 245, np.uint8)
    wrong[valid & (prediction != target)] = WRONG
    return [striped(truth, ~valid), palette[prediction], striped(wrong, ~valid)]


def _depth(target: np.ndarray, prediction: np.ndarray) -> tuple[list[np.ndarray], str]:
    valid = np.isfinite(target) & (target > 0)
    low, high = (float(target[valid].min()), float(target[valid].max())) if valid.any() else (0.0, 1.0)
    error = np.where(valid, np.abs(prediction - np.where(valid, target, 0)), 0)
    top = float(np.percentile(error[valid], 98)) if valid.any() else 1.0
    panels = [
        striped(mapped(target, low, high, NEAR_FAR), ~valid),
        mapped(prediction, low, high, NEAR_FAR),
        striped(mapped(error, 0, top, "viridis"), ~valid),
    ]
    guess = f"predicted {prediction.min():.2f} to {prediction.max():.2f} m"  # colours end where the target's do
    return panels, f"depth: light {low:.2f} m to dark {high:.2f} m, {guess}; error: dark 0 m to yellow {top:.2f} m"


def _normals(target: np.ndarray, prediction: np.ndarray) -> list[np.ndarray]:
    valid = np.linalg.norm(target, axis=2) > 0.5
    unit = prediction / np.maximum(np.linalg.norm(prediction, axis=2, keepdims=True), 1e-9)
    angle = np.degrees(np.arccos(np.clip((unit * target).sum(2), -1, 1)))
    return [
        striped(normal_colours(target), ~valid),
        normal_colours(unit),
        striped(mapped(angle, 0, 90, "viridis"), ~valid),
    ]


def normal_colours(normals: np.ndarray) -> np.ndarray:
    """[H, W, 3] camera-frame normals (x right, y down, z ahead) in the usual colours: right red, up green, towards the
    camera blue."""
    turned = np.nan_to_num(np.asarray(normals, np.float64)).clip(-1, 1) * (1, -1, -1)
    colours: np.ndarray = ((turned + 1) * 127.5).astype(np.uint8)
    return colours


def striped(panel: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`panel` [H, W, 3] with diagonal stripes `where` [H, W] nothing is scored; some 24 over its height."""
    y, x = np.indices(where.shape)
    dark = (y + x) * 24 // max(where.shape[0], 24) % 2 == 0
    return np.where(where[..., None], np.where(dark[..., None], *np.array(STRIPES, np.uint8)), panel)


def shrink(values: np.ndarray, height: int = HEIGHT) -> np.ndarray:
    """[H, W, …] to at most `height` rows at the same aspect ratio, by the nearest pixel: labels are never mixed."""
    rows = min(height, values.shape[0])
    columns = max(1, round(values.shape[1] * rows / values.shape[0]))
    y = ((np.arange(rows) + 0.5) * values.shape[0] / rows).astype(int)
    x = ((np.arange(columns) + 0.5) * values.shape[1] / columns).astype(int)
    small: np.ndarray = values[y][:, x]
    return small


def mapped(values: np.ndarray, low: float, high: float, colours: str) -> np.ndarray:
    """[H, W] as [H, W, 3] uint8, from `low` to `high` in matplotlib's `colours`."""
    from matplotlib import colormaps

    share = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1)
    return (np.asarray(colormaps[colours](share))[..., :3] * 255).astype(np.uint8)


def neighbours(
    query: np.ndarray | str, found: Sequence[np.ndarray], correct: Sequence[bool], labels: Sequence[str] = ()
) -> bytes:
    """PNG of a query (a picture or a text) and its nearest images, framed green where right and red where wrong.

    Pictures are [H, W, 3] uint8; `labels` are written below each neighbour.
    """
    first = _written([query], SMALL, SMALL) if isinstance(query, str) else query
    panels = [_framed(first, (90, 90, 90), "query")]
    for i, (picture, right) in enumerate(zip(found, correct)):
        panels.append(_framed(picture, RIGHT if right else WRONG, labels[i] if i < len(labels) else f"{i + 1}"))
    return png(joined(panels, len(panels[0])))


def texts_found(query: np.ndarray, found: Sequence[str], correct: Sequence[bool]) -> bytes:
    """PNG of a query picture and its nearest texts beside it, green where right and red where wrong."""
    colours = [RIGHT if right else WRONG for right in correct]
    first = _framed(query, (90, 90, 90), "query")
    return png(joined([first, _written(found, 5 * SMALL, len(first), colours)], len(first)))


def _written(texts: Sequence[str], width: int, height: int, colours: Sequence[tuple[int, int, int]] = ()) -> np.ndarray:
    """Texts below each other as a picture, wrapped, each cut to its share of the height where all do not fit."""
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    wrapped = [textwrap.wrap(text, (width - 16) // 6) or [""] for text in texts]
    room = max((height - 4) // (LINE * len(texts)), 1) if sum(map(len, wrapped)) * LINE > height - 4 else height
    y = 4
    for i, lines in enumerate(wrapped):
        if len(lines) > room:
            lines = [*lines[: room - 1], lines[room - 1][:-1] + "…"]
        for line in lines:
            draw.text((10, y), line, INK, font())
            y += LINE
        if i < len(colours):
            draw.rectangle((0, y - LINE * len(lines) + 1, 4, y - 2), colours[i])
    return np.asarray(canvas)


def _framed(image: np.ndarray, colour: tuple[int, int, int], words: str) -> np.ndarray:
    picture = Image.fromarray(image).convert("RGB")
    scale, side = SMALL / max(picture.size), SMALL + 2 * FRAME
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    canvas = Image.new("RGB", (side, side + LINE), "white")
    canvas.paste(colour, (0, 0, side, side))
    canvas.paste((250, 250, 250), (FRAME, FRAME, FRAME + SMALL, FRAME + SMALL))
    canvas.paste(picture, (FRAME + (SMALL - picture.width) // 2, FRAME + (SMALL - picture.height) // 2))
    ImageDraw.Draw(canvas).text((FRAME, side), cut(words, SMALL), INK, font())
    return np.asarray(canvas)


def titled(image: Image.Image, titles: Sequence[str]) -> Image.Image:
    """`image`, panels of equal width, with a title above each."""
    out = Image.new("RGB", (image.width, image.height + LINE), "white")
    out.paste(image, (0, LINE))
    step = (image.width + GAP) / len(titles)
    for i, title in enumerate(titles):
        ImageDraw.Draw(out).text((round(i * step) + 1, 1), title, INK, font())
    return out


def _below(image: Image.Image, words: str, key: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    """`image` with a line of words under it and a legend of colours, wrapped to its width."""
    face, places, x, y = font(), [], 0, LINE
    for name, _ in key:
        width = round(face.getlength(name)) + 26
        if x and x + width > image.width:
            x, y = 0, y + LINE
        places.append((x, y))
        x += width
    out = Image.new("RGB", (image.width, image.height + 4 + (y + LINE if key else LINE)), "white")
    out.paste(image, (0, 0))
    draw, top = ImageDraw.Draw(out), image.height + 3
    draw.text((1, top), cut(words, image.width), INK, face)
    for (name, colour), (x, y) in zip(key, places):
        draw.rectangle((x + 1, top + y + 3, x + 11, top + y + 13), colour, (150, 150, 150))
        draw.text((x + 15, top + y), name, INK, face)
    return out


@cache
def font() -> Any:
    """DejaVu Sans as matplotlib brings it: Pillow's own font has no é, ü or Ж."""
    matplotlib = importlib.util.find_spec("matplotlib")  # found, not imported: only a file of it is read
    folder = Path(matplotlib.origin).parent if matplotlib and matplotlib.origin else Path()
    file = folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), 11) if file.is_file() else ImageFont.load_default(12)


def cut(words: str, width: int) -> str:
    """`words` up to `width` pixels, with an ellipsis where something is missing."""
    if font().getlength(words) <= width:
        return words
    while words and font().getlength(words + "…") > width:
        words = words[:-1]
    return words + "…"


def joined(panels: Sequence[np.ndarray], height: int = HEIGHT) -> Image.Image:
    """Panels side by side at one height."""
    shapes = [(max(1, round(p.shape[1] * height / p.shape[0])), height) for p in panels]
    out = Image.new("RGB", (sum(w for w, _ in shapes) + GAP * (len(panels) - 1), height), "white")
    x = 0
    for i, (panel, shape) in enumerate(zip(panels, shapes)):
        way = Image.Resampling.BICUBIC if i == 0 else Image.Resampling.NEAREST
        out.paste(Image.fromarray(panel).resize(shape, way), (x, 0))
        x += shape[0] + GAP
    return out


def png(image: Image.Image) -> bytes:
    """`image` as the bytes of a file."""
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def below_each_other(lines: Sequence[str], titles: Sequence[str], pictures: Sequence[bytes]) -> bytes:
    """One PNG of `pictures`, each under its title, below some `lines` of words."""
    shown = [Image.open(io.BytesIO(body)).convert("RGB") for body in pictures]
    wide = max([round(font().getlength(text)) + 8 for text in (*lines, *titles)] + [p.width + 2 * GAP for p in shown])
    out = Image.new("RGB", (wide, LINE * len(lines) + 8 + sum(p.height + LINE + 3 * GAP for p in shown)), "white")
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 0, wide, LINE * len(lines) + 6), (235, 238, 242))
    for i, text in enumerate(lines):
        draw.text((GAP, 3 + LINE * i), text, INK, font())
    y = LINE * len(lines) + 8 + GAP
    for title, picture in zip(titles, shown):
        draw.text((GAP, y), title, (110, 110, 110), font())
        out.paste(picture, (GAP, y + LINE))
        y += picture.height + LINE + 3 * GAP
    return png(out)
