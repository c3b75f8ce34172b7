"""Zero-shot segmentation at a picture's own aspect ratio: the notebook's steps, one by one and window by window."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small import Noise, SmallEncoder
from torch.nn import functional as F

from benchmark.contracts import ImageFeatures, ImageRequest, ImageTransform
from benchmark.contracts.progress import silent
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from tasks.sliding import background_rule, best_class, class_scores, resized
from tasks.zero_shot_segmentation import SquareMethod, ZeroShotAspect, ZeroShotSegmentation

CLASSES = 20


class Seeing(SmallEncoder):
    """Keeps the pixels it was shown."""

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        self.seen_pixels = [*getattr(self, "seen_pixels", []), *images]
        return super().encode_image(images, request)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def setting(protocol: ZeroShotAspect) -> tuple[SimpleNamespace, torch.Tensor]:
    encoder = Seeing()
    texts = F.normalize(torch.randn(CLASSES, encoder.width, generator=torch.Generator().manual_seed(1)), dim=-1)
    context = SimpleNamespace(encoder=lambda: encoder, card=encoder.card, device="cpu", protocol=protocol)
    return context, texts


def preset(name: str) -> ZeroShotAspect:
    task = load_task("zero_shot_segmentation")
    return load_protocol(task.name, task.schemas, protocol_file(task.name), name).values


def plainly(image: np.ndarray, texts: torch.Tensor, short: int, side: int, stride: int, whole: bool) -> torch.Tensor:
    """The notebook, one window at a time: [C, h, w] cosines (whole) or mean probabilities (slide)."""
    encoder, patch = SmallEncoder(), 8
    h, w = image.shape[:2]
    size = (short, int(short * h / w)) if w < h else (int(short * w / h), short)  # width, height for Pillow
    resized_picture = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized_picture)).permute(2, 0, 1).float() / 255

    def cosines(crop: torch.Tensor) -> torch.Tensor:
        up = [math.ceil(s / patch) * patch for s in crop.shape[1:]]
        stretched = F.interpolate(crop[None], up, mode="bicubic", align_corners=False)
        found = encoder.encode_image(stretched, ImageRequest(text_patches=True)).text_patches
        assert found is not None
        return torch.einsum("cd,hwd->chw", texts, F.normalize(found[0], dim=-1))

    if whole:
        return cosines(pixels)
    height, width = pixels.shape[1:]
    total, count = torch.zeros(CLASSES, height, width), torch.zeros(height, width)
    for i in range(max(height - side + stride - 1, 0) // stride + 1):
        for j in range(max(width - side + stride - 1, 0) // stride + 1):
            y2, x2 = min(i * stride + side, height), min(j * stride + side, width)
            y1, x1 = max(y2 - side, 0), max(x2 - side, 0)
            crop = pixels[:, y1:y2, x1:x2]
            up = F.interpolate(cosines(crop)[None], crop.shape[1:], mode="bilinear", align_corners=False)[0]
            total[:, y1:y2, x1:x2] += up.softmax(0)
            count[y1:y2, x1:x2] += 1
    return total / count


@pytest.mark.parametrize("shape", [(60, 97), (97, 60), (50, 50), (30, 200)])
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_scores_are_the_notebooks_window_by_window(shape: tuple[int, int], mode: str) -> None:
    whole = mode == "whole"
    rest: Any = ("bicubic", True, 60, 44, not whole, 1.0, "tcl_9", "text", 0.0)
    protocol = ZeroShotAspect("whole" if whole else "slide", 60, 0, *rest)
    context, texts = setting(protocol)
    image = picture(*shape)
    found = class_scores(context, image, texts, protocol)
    torch.testing.assert_close(found, plainly(image, texts, 60, 60, 44, whole), atol=1e-5, rtol=0)


def test_the_notebook_preset_is_448_by_336_with_a_softmax_of_no_temperature() -> None:
    protocol = preset("notebook")
    context, texts = setting(protocol)
    image = picture(112, 150)
    found = class_scores(context, image, texts, protocol)
    torch.testing.assert_close(found, plainly(image, texts, 448, 448, 336, False), atol=1e-5, rtol=0)
    assert [tuple(p.shape) for p in context.encoder().seen_pixels] == [(3, 448, 448), (3, 448, 448)]


def test_the_paper_preset_is_one_forward_of_whole_patches_at_448() -> None:
    context, texts = setting(preset("paper"))
    scores = class_scores(context, picture(60, 83), texts, context.protocol)
    assert [tuple(p.shape) for p in context.encoder().seen_pixels] == [(3, 448, 624)], (
        "619 stretched to 78 patches of 8"
    )
    assert scores.shape == (CLASSES, 56, 78) and float(scores.abs().max()) <= 1 + 1e-6


def test_fast_stores_one_square_and_encodes_windows_while_scoring() -> None:
    task = load_task("zero_shot_segmentation")
    file, data = protocol_file(task.name), {"test": SimpleNamespace(images=SimpleNamespace(digest="test"))}
    for mode, live, stored in (("whole", {}, ["test/text_patches"]), ("slide", {(448, 448): 2}, [])):
        changes = {"mode": mode, "view_size": "448"}
        method = SquareMethod(load_protocol(task.name, task.schemas, file, "fast", changes).values)
        assert list(method.needs(SmallEncoder().card, data)) == stored
        assert method.live_forwards(SmallEncoder().card, [(448, 600)], 0) == live


@pytest.mark.parametrize("own", ["bilinear", "bicubic"])
def test_windows_are_cut_from_a_picture_resized_as_the_encoder_does_unless_the_protocol_says_how(own: Any) -> None:
    """`fast` with mode = slide: its interpolation is the encoder's."""
    found = {}
    for rule in ("encoder", "bilinear", "bicubic"):
        protocol = ZeroShotSegmentation("slide", 48, rule, 32, 24, False, "tcl_9", "text", 0.0).aspect()
        context, texts = setting(protocol)
        context.encoder().transform = ImageTransform("square", 32, interpolation=own)
        found[rule] = class_scores(context, picture(60, 83), texts, protocol)
    assert not torch.equal(found["bilinear"], found["bicubic"])
    assert torch.equal(found["encoder"], found[own])


@pytest.mark.parametrize(
    ("shape", "long", "expected"),
    [((512, 683), 0, (448, 597)), ((512, 683), 2048, (448, 598)), ((100, 1000), 2048, (205, 2048))],
)
def test_sides_are_the_notebooks_or_mmcvs(shape: tuple[int, int], long: int, expected: tuple[int, int]) -> None:
    assert resized(*shape, 448, long) == expected


@pytest.mark.parametrize("classes", [1, 16, 37])
def test_the_best_class_is_that_of_one_resize_and_argmax(classes: int) -> None:
    scores = torch.randn(classes, 5, 7, generator=torch.Generator().manual_seed(0))
    full = F.interpolate(scores[None], (41, 33), mode="bilinear", align_corners=False)[0]
    label, best = best_class(scores, 41, 33)
    assert torch.equal(label, full.argmax(0)) and torch.equal(best, full.amax(0))


def test_ties_go_to_the_lower_class_across_blocks_of_classes() -> None:
    assert best_class(torch.zeros(40, 2, 2), 4, 4)[0].unique().tolist() == [0]


def test_background_takes_what_no_class_reaches() -> None:
    settle = background_rule(1, 0.5, 4)
    label, score = torch.tensor([0, 1, 2, 2]), torch.tensor([0.9, 0.6, 0.5, 0.4])
    assert settle(label, score).tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize(
    ("background", "place", "asked", "right"),
    [
        ("threshold", 1, "ant bee", [1, 1, 1]),
        ("text", 1, "ant sky bee", [1, 0, 1]),
        ("threshold", None, "ant sky bee", [1, 0, 1]),
    ],
)
def test_a_background_by_threshold_has_no_text_where_the_data_have_one(
    background: Any, place: int | None, asked: str, right: list[int]
) -> None:
    """Three patches: an ant, a bee, and one that is like nothing; the sky's own text is like the ant."""
    vectors = {"ant": [1.0, 0, 0], "bee": [0.0, 1, 0], "sky": [0.9, 0.1, 0]}
    said: list[str] = []

    def text(texts: list[str]) -> torch.Tensor:
        said.extend(texts)
        return torch.tensor([next(v for word, v in vectors.items() if word in t) for t in texts])

    target = np.array([[0, 2, 1]])
    data = SimpleNamespace(
        class_names=["ant", "sky", "bee"], background=place, images=Noise(1, 1, 3), target=lambda i: target
    )
    encoder = SmallEncoder()
    context: Any = SimpleNamespace(
        data={"test": data}, card=encoder.card, encoder=lambda: encoder, device="cpu", text=text, progress=silent,
        features=lambda need: torch.eye(3)[None, None], cross_check=False, keep_predictions=0, look_at=(), scratch=None,
    )  # fmt: skip
    p = ZeroShotSegmentation("whole", 0, "encoder", 32, 24, False, "tcl_9", background, 0.5 * (background != "text"))
    outcome = SquareMethod(p).run(context)
    assert outcome.samples["intersection"].tolist() == [right]
    assert list(dict.fromkeys(word for line in said for word in vectors if word in line)) == asked.split()
