"""Class scores of a picture at its own aspect ratio: the whole of it in one forward, or windows that overlap.

The steps are those of the TIPS notebook (`predict_whole`, `predict_slide`) and of DINOv3's, which differ in numbers
only; TCL pads a window that is no whole patches, and up-samples its scores after the sigmoid. The surprise: a side that
is no multiple of the patch is stretched up to one, not padded, and nothing is clipped to [0, 1] after that bicubic
stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmark.contracts import ImageRequest, Interpolation, TaskContext
from benchmark.errors import EncoderError
from benchmark.images import decode
from benchmark.images.windows import Box, fuse, window_boxes
from benchmark.system.late import F, torch

WINDOWS_AT_ONCE = 8
BAND = 16  # rows of a window that are looked at together
CLASSES_AT_ONCE = 16  # full-resolution maps held at a time: 150 classes of a large picture would be gigabytes


def class_scores(context: TaskContext, image: np.ndarray, texts: torch.Tensor, protocol: Any) -> torch.Tensor:
    """[C, h, w] scores of an [H, W, 3] uint8 picture, to be resized to the size of its mask.

    `whole`: cosines on the patch grid. `slide`: at the resized picture's pixels, the mean over windows of each window's
    up-sampled cosines or, with `softmax`, of their probabilities.
    """
    return scores_of(context, laid(image, context.encoder().transform.interpolation, protocol), texts, protocol)


def laid(image: np.ndarray, own: Interpolation, protocol: Any) -> np.ndarray:
    """[3, h, w] float32 in [0, 1] of an [H, W, 3] uint8 picture at the protocol's size; `own`: the encoder's rule."""
    height, width = resized(image.shape[0], image.shape[1], protocol.short_side, protocol.long_side)
    rule: Interpolation = own if protocol.interpolation == "encoder" else protocol.interpolation
    return decode.to_float(decode.resize(image, height, width, rule, protocol.antialias))


def scores_of(context: TaskContext, picture: np.ndarray, texts: torch.Tensor, protocol: Any) -> torch.Tensor:
    """As `class_scores`, of a picture [3, h, w] that is `laid`."""
    pixels = torch.from_numpy(picture)
    if protocol.mode == "whole":
        return _probabilities(cosine_maps(context, pixels[None], texts), protocol)[0]
    height, width = pixels.shape[1:]
    boxes = window_boxes(height, width, protocol.window, protocol.stride)
    bands = [(y, x0, min(y + BAND, y1), x1) for y0, x0, y1, x1 in boxes for y in range(y0, y1, BAND)]
    return fuse(_band_maps(context, pixels, boxes, texts, protocol), bands, height, width)


def _band_maps(
    context: TaskContext, pixels: torch.Tensor, boxes: Sequence[Box], texts: torch.Tensor, protocol: Any
) -> Iterator[torch.Tensor]:
    """[C, BAND or what is left, x1-x0] of the rows of each box: as many as stay in a cache between the steps."""
    for start in range(0, len(boxes), WINDOWS_AT_ONCE):
        crops = torch.stack([pixels[:, y0:y1, x0:x1] for y0, x0, y1, x1 in boxes[start : start + WINDOWS_AT_ONCE]])
        for small in torch.split(cosine_maps(context, crops, texts), 1):
            cosines = F.interpolate(small, crops.shape[2:], mode="bilinear", align_corners=False)
            rows = cosines.permute(0, 2, 3, 1)[0]  # the classes of a pixel lie together
            for band in torch.split(rows, BAND):
                # Of a matrix, torch makes the transpose in blocks; the softmax reads a class at a time.
                classes = band.flatten(0, 1).T.contiguous().view(1, -1, *band.shape[:2])
                yield _probabilities(classes, protocol)[0]


def resized(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """(height, width) with the short side at `short_side`, the long one rounded down; or, with a `long_side`, the
    largest size that fits both, rounded to the nearest as mmcv's `imrescale` does."""
    if not long_side:
        return decode.short_side_size(height, width, short_side)
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def cosine_maps(context: TaskContext, crops: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """[b, C, gh, gw] cosines of the text patches of [b, 3, h, w] pixels, stretched to whole patches, with `texts`."""
    patch = context.card.patch_size
    whole = tuple(-(-side // patch) * patch for side in crops.shape[2:])
    if whole != tuple(crops.shape[2:]):
        crops = F.interpolate(crops, whole, mode="bicubic", align_corners=False)
    with torch.inference_mode():
        found = context.encoder().encode_image(crops.to(context.device), ImageRequest(text_patches=True)).text_patches
    if found is None or not bool(torch.isfinite(found).all()):
        raise EncoderError(f"{context.card.name}: text_patches are absent or not finite. Try --dtype float32")
    return (F.normalize(found.float(), dim=-1) @ texts.T).permute(0, 3, 1, 2)


def best_class(scores: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(class [height, width] int64, its score) of scores [C, h, w] resized bilinearly; ties go to the lower class.

    Equal to one resize and argmax; a few classes at a time, so memory does not grow with their number.
    """
    best = torch.full((height, width), -torch.inf, device=scores.device)
    label = torch.zeros(height, width, dtype=torch.int64, device=scores.device)
    for start in range(0, len(scores), CLASSES_AT_ONCE):
        part = scores[None, start : start + CLASSES_AT_ONCE]
        for number, score in enumerate(F.interpolate(part, (height, width), mode="bilinear", align_corners=False)[0]):
            _take_better(best, label, score, start + number)
    return label, best


def _take_better(best: torch.Tensor, label: torch.Tensor, score: torch.Tensor, number: int) -> None:
    """Class `number` where its score [H, W] is above the best so far; numpy compares and fills twice as fast."""
    if best.device.type == "cpu":
        better = score.numpy() > best.numpy()
        label.numpy()[better] = number
        np.maximum(best.numpy(), score.numpy(), out=best.numpy())
    else:
        label.masked_fill_(score > best, number)
        torch.maximum(best, score, out=best)


def background_rule(background: int, threshold: float, classes: int) -> Callable[..., torch.Tensor]:
    """(class among the others, score) -> class of the dataset: `background` where the score is below `threshold`."""
    others = torch.tensor([c for c in range(classes) if c != background])

    def settle(label: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        return torch.where(score < threshold, background, others.to(label.device)[label])

    return settle


def _probabilities(cosines: torch.Tensor, protocol: Any) -> torch.Tensor:
    """[b, C, h, w]; a softmax is written over the cosines."""
    if not protocol.softmax:
        return cosines
    if protocol.temperature != 1:
        cosines /= protocol.temperature
    return torch.softmax(cosines, 1, out=cosines)
