"""Predictions as pictures: colour-coded maps beside the image and the ground truth, retrieval's neighbours in a strip.

Kept under `<row folder>/pictures/` they are shown in the leaderboard.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Kind = Literal["segmentation", "depth", "normals"]
GAP = 4  # pixels between panels
HEIGHT = 224  # of a panel; pictures are for looking at, not for measuring
IGNORED = (128, 128, 128)
RIGHT, WRONG = (29, 122, 76), (179, 55, 44)
FRAME = 5


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
) -> bytes:
    """PNG of image | ground truth | prediction | error.

    `image` [H, W, 3] uint8. segmentation: class indices [H, W]; depth: metres [H, W], both on the ground truth's scale;
    normals: unit vectors [H, W, 3]. Pixels without ground truth are grey in target and error. The error is wrong pixels
    (red), absolute metres (to the 98th percentile) or the angle (to 90°).
    """
    if kind == "segmentation":
        colours = (
            palette_for(int(max(target[target != ignore].max(initial=0), prediction.max(initial=0))) + 1)
            if palette is None
            else palette
        )
        panels = _segmentation(target, prediction, colours, ignore)
    elif kind == "depth":
        panels = _depth(target, prediction)
    else:
        panels = _normals(target, prediction)
    return _png(_join([image, *panels]))


def _segmentation(target: np.ndarray, prediction: np.ndarray, palette: np.ndarray, ignore: int) -> list[np.ndarray]:
    valid = (target != ignore) & (target >= 0)
    truth = palette[np.where(valid, target, 0)]
    truth[~valid] = IGNORED
    wrong = np.full((*target.shape, 3), 245, np.uint8)
    wrong[valid & (prediction != target)] = WRONG
    wrong[~valid] = IGNORED
    return [truth, palette[prediction], wrong]


def _depth(target: np.ndarray, prediction: np.ndarray) -> list[np.ndarray]:
    valid = np.isfinite(target) & (target > 0)
    low, high = (float(target[valid].min()), float(target[valid].max())) if valid.any() else (0.0, 1.0)
    error = np.where(valid, np.abs(prediction - np.where(valid, target, 0)), 0)
    top = float(np.percentile(error[valid], 98)) if valid.any() else 1.0
    panels = [
        _mapped(target, low, high, "magma_r"),
        _mapped(prediction, low, high, "magma_r"),
        _mapped(error, 0, top, "viridis"),
    ]
    for panel in (panels[0], panels[2]):
        panel[~valid] = IGNORED
    return panels


def _normals(target: np.ndarray, prediction: np.ndarray) -> list[np.ndarray]:
    valid = np.linalg.norm(target, axis=2) > 0.5
    unit = prediction / np.maximum(np.linalg.norm(prediction, axis=2, keepdims=True), 1e-9)
    angle = np.degrees(np.arccos(np.clip((unit * target).sum(2), -1, 1)))
    panels = [
        ((target + 1) * 127.5).astype(np.uint8),
        ((unit + 1) * 127.5).astype(np.uint8),
        _mapped(angle, 0, 90, "viridis"),
    ]
    for panel in (panels[0], panels[2]):
        panel[~valid] = IGNORED
    return panels


def _mapped(values: np.ndarray, low: float, high: float, colours: str) -> np.ndarray:
    from matplotlib import colormaps

    share = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1)
    return (np.asarray(colormaps[colours](share))[..., :3] * 255).astype(np.uint8)


def neighbours(
    query: np.ndarray, found: Sequence[np.ndarray], correct: Sequence[bool], labels: Sequence[str] = ()
) -> bytes:
    """PNG of a query and its nearest images, framed green where they are right and red where they are wrong.

    Pictures are [H, W, 3] uint8; `labels` are written below each neighbour.
    """
    panels = [_framed(query, (90, 90, 90), "query")]
    for i, (picture, right) in enumerate(zip(found, correct)):
        panels.append(_framed(picture, RIGHT if right else WRONG, labels[i] if i < len(labels) else f"{i + 1}"))
    return _png(_join(panels))


def _framed(image: np.ndarray, colour: tuple[int, int, int], words: str) -> np.ndarray:
    picture = Image.fromarray(image).convert("RGB")
    picture.thumbnail((HEIGHT, HEIGHT))
    canvas = Image.new("RGB", (HEIGHT + 2 * FRAME, HEIGHT + 2 * FRAME + 16), "white")
    canvas.paste(colour, (0, 0, HEIGHT + 2 * FRAME, HEIGHT + 2 * FRAME))
    canvas.paste((250, 250, 250), (FRAME, FRAME, FRAME + HEIGHT, FRAME + HEIGHT))
    canvas.paste(picture, (FRAME + (HEIGHT - picture.width) // 2, FRAME + (HEIGHT - picture.height) // 2))
    ImageDraw.Draw(canvas).text(
        (FRAME, HEIGHT + 2 * FRAME + 1), words.encode("ascii", "replace").decode()[:36], fill=(40, 40, 40)
    )
    return np.asarray(canvas)


def _join(panels: Sequence[np.ndarray]) -> Image.Image:
    """Panels side by side at one height."""
    shapes = [(max(1, round(p.shape[1] * HEIGHT / p.shape[0])), HEIGHT) for p in panels]
    out = Image.new("RGB", (sum(w for w, _ in shapes) + GAP * (len(panels) - 1), HEIGHT), "white")
    x = 0
    for i, (panel, shape) in enumerate(zip(panels, shapes)):
        way = Image.Resampling.BICUBIC if i == 0 else Image.Resampling.NEAREST
        out.paste(Image.fromarray(panel).resize(shape, way), (x, 0))
        x += shape[0] + GAP
    return out


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()
