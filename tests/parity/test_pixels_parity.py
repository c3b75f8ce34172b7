"""Middles and resizes without antialiasing, against the originals' arithmetic written out, OpenCV, torch and mmcv."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv import imrotate
from PIL import Image
from small import SmallEncoder
from torch.nn.functional import interpolate

from adapters.preprocessing import from_row
from adapters.timm_models import published
from benchmark.contracts import ImageTransform, View
from benchmark.images.decode import apply_transform, center_crop, resize
from benchmark.images.views import resolve_view
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, models, protocol_file
from tasks.mm.library import imrescale
from tasks.sliding import class_scores, resized
from tasks.training.augment import rotated

ANY_SHAPE: Any = SimpleNamespace(uniform_shape=None)  # a set of pictures of many shapes

SHAPES = [(427, 640), (640, 427), (301, 417), (225, 256), (31, 29), (61, 43), (224, 1), (3, 50), (500, 500)]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def torchvision_middle(image: np.ndarray, size: int) -> np.ndarray:
    """transforms/functional.py, center_crop: black around what is smaller, then the middle, halves to even."""
    height, width = image.shape[:2]
    down, right = max(size - height, 0), max(size - width, 0)
    image = np.pad(image, ((down // 2, (down + 1) // 2), (right // 2, (right + 1) // 2), (0, 0)))
    top, left = round((image.shape[0] - size) / 2.0), round((image.shape[1] - size) / 2.0)
    return image[top : top + size, left : left + size]


def torchvision_pixels(image: np.ndarray, side: int, crop: int) -> np.ndarray:
    """Resize(side, BICUBIC), CenterCrop(crop), ToTensor of a PIL picture: DINOv2's, timm's and open_clip's."""
    height, width = image.shape[:2]
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    laid = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return torchvision_middle(laid, crop).transpose(2, 0, 1).astype(np.float32) / 255


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 24, 28, 29, 224, 225])
def test_a_middle_is_torchvisions_to_the_pixel(shape, size):
    image = picture(*shape)
    np.testing.assert_array_equal(center_crop(image, size, size, "even"), torchvision_middle(image, size))


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (225, 256), (31, 29), (61, 43)])
@pytest.mark.parametrize("name", ["dinov2-s", "dinov2-b", "dinov2-l", "dinov2-g", "dinov2-b-reg", "dinov2-g-reg"])
def test_dinov2_sees_what_its_authors_transform_gives(name, shape):
    ours = apply_transform(picture(*shape), from_row(models()[name]["transform"]))
    np.testing.assert_array_equal(ours, torchvision_pixels(picture(*shape), 256, 224))


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (225, 256)])
def test_timm_and_the_presets_that_crop_see_torchvisions_middle(shape):
    image = picture(*shape)
    data = {"input_size": (3, 224, 224), "interpolation": "bicubic", "mean": (0,) * 3, "std": (1,) * 3,
            "crop_pct": 0.875, "crop_mode": "center"}  # fmt: skip
    np.testing.assert_array_equal(
        apply_transform(image, published(data, "timm:x")), torchvision_pixels(image, 256, 224)
    )
    view = View("short-side", 256, "bicubic", True, 224)
    floor = ImageTransform("square", 32, antialias=False)
    laid = resolve_view(view, floor, SmallEncoder().card, ANY_SHAPE)
    np.testing.assert_array_equal(laid.lay(image), torchvision_pixels(image, 256, 224))


@pytest.mark.parametrize("rounding", ["floor", "even"])
@pytest.mark.parametrize("shape", [(90, 131), (131, 90), (64, 91), (20, 31)])
@pytest.mark.parametrize("rule", ["short-side", "square", "none"])
def test_a_pictures_place_is_where_its_pixels_are(rule, shape, rounding):
    """A crop of any rule: the pixel that the placement says is at an input's pixel is the one seen there."""
    transform = ImageTransform(rule, 64, crop=41, rounding=rounding, interpolation="nearest")
    view = resolve_view(View(), transform, SmallEncoder().card, ANY_SHAPE)
    rows = np.repeat(np.arange(1, shape[0] + 1, dtype=np.uint8)[:, None, None], shape[1], 1).repeat(3, 2)
    columns = np.repeat(np.arange(1, shape[1] + 1, dtype=np.uint8)[None, :, None], shape[0], 0).repeat(3, 2)
    place = view.placement(*shape)
    for values, start, extent, length in (
        (view.lay(rows)[0].max(1), place.top, place.height, shape[0]),
        (view.lay(columns)[0].max(0), place.left, place.width, shape[1]),
    ):
        at = (np.arange(41) + 0.5) / 41
        expected = np.where((at > start) & (at < start + extent), (at - start) / extent * length + 0.5, 0)
        inside = expected > 0
        assert (values[~inside] == 0).all()
        assert np.abs(values * 255 - expected)[inside].max() <= 1


def keys_kernel(distance: float) -> float:
    """Keys (1981) with a = -0.75: what OpenCV and torch call bicubic."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def triangle_kernel(distance: float) -> float:
    return max(0.0, 1 - abs(distance))


def written_out(line: np.ndarray, size: int, kernel) -> np.ndarray:
    """[size] float64 of one line, pixel by pixel; outside, the first and last value go on."""
    out = np.zeros(size)
    for i in range(size):
        at = (i + 0.5) * len(line) / size - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            out[i] += kernel(at - j) * line[min(max(j, 0), len(line) - 1)]
    return out


@pytest.mark.parametrize(("old", "new"), [(17, 40), (40, 17), (64, 64 // 3), (5, 1), (1, 5), (9, 18), (18, 9)])
@pytest.mark.parametrize(("name", "kernel"), [("bilinear", triangle_kernel), ("bicubic", keys_kernel)])
def test_one_line_of_pixels_is_the_kernel_written_out(name, kernel, old, new):
    line = np.random.default_rng(old).integers(0, 256, old, dtype=np.uint8)
    ours = resize(np.tile(line, (3, 1)), 3, new, name, antialias=False)
    expected = np.clip(written_out(line.astype(float), new, kernel), 0, 255)
    assert np.abs(ours - expected).max() <= 0.5 + 1e-4  # the nearest level


TARGETS = [(448, 671), (213, 320), (100, 150), (1000, 1500), (7, 350), (224, 224), (1, 1)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(427, 640), (31, 29), (1, 50), (50, 1), (200, 300)])
@pytest.mark.parametrize(
    ("name", "opencv"), [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC), ("nearest", cv2.INTER_NEAREST)]
)
def test_without_antialias_pixels_are_opencvs_and_torchs_to_one_level(name, opencv, shape, target):
    image = picture(*shape)
    height, width = target
    ours = resize(image, height, width, name, antialias=False).astype(float)
    theirs = cv2.resize(image, target[::-1], interpolation=opencv).astype(float)
    more = {} if name == "nearest" else {"align_corners": False}
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    torchs = interpolate(pixels, target, mode=name, **more)[0].permute(1, 2, 0).clamp(0, 255).round().numpy()
    if name == "nearest":
        np.testing.assert_array_equal(ours, theirs)
        assert (ours == torchs).mean() > 0.9
        return
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - torchs).max() <= 1
    if min(*shape, *target) > 20:
        assert abs((ours - torchs).mean()) < 0.15  # Pillow's transform cuts fractions off: half a level darker


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (100, 900)])
def test_tcl_sees_mmcvs_pixels(shape):
    task = load_task("zero_shot_segmentation")
    protocol = load_protocol(task.name, task.schemas, protocol_file(task.name), "tcl").values
    encoder, seen = SmallEncoder(), []
    encode = encoder.encode_image

    def watched(images: Any, request: Any = None) -> Any:
        seen.append(images)
        return encode(images, request)

    encoder.encode_image = watched
    context = SimpleNamespace(encoder=lambda: encoder, card=encoder.card, device="cpu")
    image = picture(*shape)
    class_scores(context, image, encoder.encode_text(["a", "bb"]), replace(protocol, mode="whole"))
    scaled = imrescale(image, (protocol.long_side, protocol.short_side), interpolation="bilinear")
    height, width = scaled.shape[:2]
    assert resized(shape[0], shape[1], protocol.short_side, protocol.long_side) == (height, width)
    whole = tuple(-(-side // 8) * 8 for side in (height, width))
    stretched = torch.from_numpy(scaled).permute(2, 0, 1)[None] / 255
    if whole != (height, width):
        stretched = interpolate(stretched, whole, mode="bicubic", align_corners=False)
    assert (seen[0] - stretched).abs().max() <= 2.1 / 255  # one level, which the stretch to whole patches enlarges


@pytest.mark.parametrize("degrees", [-2.5, -0.7, 1.3, 2.5])
def test_a_turned_training_picture_is_rounded_as_mmcvs(degrees):
    """Up to OpenCV's grid of 1/32 pixel; bytes through Pillow are half a level too dark in the mean."""
    y, x = np.mgrid[0:97, 0:131]
    image = (np.stack([x + y, 2 * y, 200 - x], -1) * 0.9 + 7).astype(np.uint8)
    ours, depth = rotated(image, np.ones((97, 131), np.float32), degrees)
    theirs = imrotate(image, -degrees).astype(float)  # mmcv's angles go clockwise
    inside = (slice(8, -8), slice(8, -8))
    assert ours.dtype == np.uint8 and (depth[inside] == 1).all()
    assert np.abs(ours - theirs)[inside].max() <= 1
    assert abs((ours - theirs)[inside].mean()) < 0.1


@pytest.mark.parametrize("rule", [View(), View("square", 48), View("short-side", 48), View("pad-to-patch", 48)])
def test_every_view_of_an_encoder_without_antialias_is_without(rule):
    encoder, image = SmallEncoder(), picture(120, 90)
    transform = ImageTransform("short-side", 48, crop=48, antialias=False)
    laid = resolve_view(rule, transform, encoder.card, ANY_SHAPE).lay(image)
    smooth = resolve_view(rule, replace(transform, antialias=True), encoder.card, ANY_SHAPE).lay(image)
    assert laid.std() > 1.2 * smooth.std()
