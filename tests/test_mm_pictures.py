"""Pictures of the linear segmentation presets, against Pillow and mmsegmentation's own defaults."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from benchmark.errors import UsageError
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from tasks.mm.data import test_pipeline as heldout_pipeline
from tasks.mm.data import training_pipeline
from tasks.mm.library import PhotoMetricDistortion


def fields(preset: str, **more: str):
    task = load_task("linear_segmentation")
    return load_protocol(task.name, task.schemas, protocol_file(task.name), preset, more).values


def distortion(preset: str) -> PhotoMetricDistortion:
    return next(step for step in training_pipeline(fields(preset), 3) if isinstance(step, PhotoMetricDistortion))


def hue(bgr: np.ndarray) -> float:
    """Degrees."""
    return 360 * colorsys.rgb_to_hsv(*(bgr[::-1] / 255))[0]


@pytest.mark.parametrize(("preset", "widest"), [("paper", 36), ("dinov2", 36), ("dinov3", 180)])
def test_hue_turns_as_far_as_each_source_turns_it(preset, widest):
    step, red, turns = distortion(preset), np.full((1, 1, 3), (0, 0, 255), np.uint8), []
    for seed in range(200):
        np.random.seed(seed)
        angle = hue(step.hue(red)[0, 0])
        turns.append(min(angle, 360 - angle))
    assert 0.9 * widest < max(turns) <= widest and 0.3 < np.mean(np.array(turns) == 0) < 0.7


def test_dinov3_blends_with_the_grey_picture_as_pillow_does():
    picture, step = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8), distortion("dinov3")
    changed = 0
    for seed in range(20):
        np.random.seed(seed)
        turned, share = bool(np.random.randint(2)), np.random.uniform(0.5, 1.5)
        np.random.seed(seed)
        ours = step.saturation(picture)[..., ::-1].astype(int)
        rgb = np.ascontiguousarray(picture[..., ::-1])
        pillows = np.asarray(ImageEnhance.Color(Image.fromarray(rgb)).enhance(share if turned else 1.0)).astype(int)
        assert np.abs(ours - pillows).max() <= 2
        changed += turned
    assert 5 < changed < 15


@pytest.mark.parametrize("preset", ["paper", "dinov2"])
def test_the_other_presets_distort_as_mmsegmentation_does_by_default(preset):
    picture = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    for seed in range(20):
        found = []
        for step in (distortion(preset), PhotoMetricDistortion()):
            np.random.seed(seed)
            found.append(step.transform({"img": picture.copy()})["img"])
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("turn", ["0", "91"])
def test_a_hue_of_no_or_of_more_than_half_the_circle_is_refused(turn):
    with pytest.raises(UsageError, match=f"hue_delta: {turn} must be at least 1 and at most 90"):
        fields("paper", hue_delta=turn)


def scaled(preset: str, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """RGB picture and mask of 90 × 120 pixels after the preset's scaling of the short side to 30."""
    rng = np.random.default_rng(0)
    picture, mask = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), rng.integers(0, labels, (90, 120))
    step = training_pipeline(fields(preset, short_side="30", long_side="0", scale_range="[1.0, 1.0]"), labels)[0]
    mask = mask.astype(np.uint8 if labels < 256 else np.int32)
    found = step({"img": picture[..., ::-1].copy(), "gt_seg_map": mask, "img_shape": (90, 120)})
    return found["img"][..., ::-1], found["gt_seg_map"]


def test_dinov3_scales_pictures_as_pillow_does_and_the_others_as_opencv_does():
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    pillows = np.asarray(Image.fromarray(picture).resize((40, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(scaled("dinov3")[0], pillows)
    np.testing.assert_array_equal(scaled("paper")[0], picture[1::3, 1::3])  # every third pixel, and nothing between
    np.testing.assert_array_equal(scaled("dinov2")[0], picture[1::3, 1::3])
    (step, _), image = heldout_pipeline(fields("dinov3", short_side="30")), picture[..., ::-1].copy()
    np.testing.assert_array_equal(step({"img": image})["img"][..., ::-1], pillows)


@pytest.mark.parametrize("labels", [3, 300])
def test_masks_are_scaled_alike_by_all_presets(labels):
    np.testing.assert_array_equal(scaled("dinov3", labels)[1], scaled("dinov2", labels)[1])
