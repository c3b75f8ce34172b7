"""Our sliding windows against a plain re-computation and mmsegmentation's `EncoderDecoder.slide_inference`, to 1e-5."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import SmallEncoder
from torch.nn.functional import interpolate, normalize

from benchmark.contracts import ImageRequest
from benchmark.images.decode import resize, to_float
from benchmark.images.windows import fuse, window_boxes
from benchmark.metrics.segmentation import confusion_areas, per_class_iou
from tasks.mm.cross_check import IouCrossCheck
from tasks.mm.library import Config, EncoderDecoder
from tasks.mm.model import segmentor
from tasks.mm.protocol import MmProbe
from tasks.sliding import class_scores

TOLERANCE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-5}
PROBE = MmProbe(
    layers=(-1,), with_cls=True, batch_norm=True, dropout=0.0, dropout_first=False, loss_mean="all", steps=1,
    batch_size=1, learning_rate=1e-3, betas=(0.9, 0.999), weight_decay=0.0, clip_norm=0.0, schedule="poly",
    poly_power=1.0, warmup_steps=0, warmup_ratio=1.0, short_side=64, long_side=0, antialias=False,
    scale_range=(1.0, 1.0), crop=32, cat_max_ratio=1.0, flip=0.0, photometric=False, hue_delta=18, saturation="hsv",
    window=32, stride=21, voc_train="train",
)  # fmt: skip


def zero_shot(softmax: bool) -> SimpleNamespace:
    return SimpleNamespace(
        mode="slide", short_side=48, long_side=0, interpolation="bilinear", antialias=True, window=32, stride=20,
        softmax=softmax, temperature=1.0,
    )  # fmt: skip


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def window_scores(encoder: SmallEncoder, crop: torch.Tensor, texts: torch.Tensor, softmax: bool) -> torch.Tensor:
    """[1, C, h, w] of one window, by the definition."""
    patches = encoder.encode_image(crop, ImageRequest(text_patches=True)).text_patches
    assert patches is not None
    cosine = torch.einsum("bhwe,ce->bchw", normalize(patches, dim=-1), texts)
    scores = interpolate(cosine, crop.shape[2:], mode="bilinear", align_corners=False)
    return scores.softmax(1) if softmax else scores


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("shape", [(60, 100), (130, 75), (48, 48), (40, 300)])
def test_zero_shot_windows(shape: tuple[int, int], softmax: bool) -> None:
    encoder, protocol = SmallEncoder(), zero_shot(softmax)
    texts = encoder.encode_text(["a", "bb", "ccc", "dddd"])
    context: Any = SimpleNamespace(encoder=lambda: encoder, card=encoder.card, device="cpu")
    image = picture(*shape)
    ours = class_scores(context, image, texts, protocol)

    height, width = ours.shape[1:]
    pixels = torch.from_numpy(to_float(resize(image, height, width, "bilinear", True)))[None]
    total, count = np.zeros(ours.shape), np.zeros((height, width))
    for top in range(0, height, 20):  # a plain loop over windows, each on its own
        for left in range(0, width, 20):
            y, x = min(top, max(height - 32, 0)), min(left, max(width - 32, 0))
            if (top and top - 20 + 32 >= height) or (left and left - 20 + 32 >= width):
                continue  # the window before already reaches the border
            crop = pixels[..., y : y + 32, x : x + 32]
            total[:, y : y + 32, x : x + 32] += window_scores(encoder, crop, texts, softmax)[0].double().numpy()
            count[y : y + 32, x : x + 32] += 1
    np.testing.assert_allclose(ours.numpy(), total / count, **TOLERANCE)

    theirs = EncoderDecoder.slide_inference(
        SimpleNamespace(
            test_cfg=Config({"crop_size": (32, 32), "stride": (20, 20)}),
            out_channels=4,
            encode_decode=lambda crop, metas: window_scores(encoder, crop, texts, softmax),
        ),
        pixels,
        [{}],
    )
    np.testing.assert_allclose(ours.numpy(), theirs[0].numpy(), **TOLERANCE)


@pytest.mark.parametrize("shape", [(64, 90), (64, 64), (30, 50)])
def test_linear_probe_windows_and_their_labels(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = segmentor(SmallEncoder(), PROBE, classes=5)
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    model.decode_head.norm.running_mean.normal_()
    model.decode_head.norm.running_var.uniform_(0.5, 2)
    model.eval()
    inputs = torch.from_numpy(picture(*shape).transpose(2, 0, 1).copy())[None].float()
    with torch.inference_mode():
        theirs = model.slide_inference(inputs, [{}])[0]
        boxes = window_boxes(*shape, 32, 21)
        maps = (model.encode_decode(inputs[..., a:c, b:d], [{"img_shape": (c - a, d - b)}])[0] for a, b, c, d in boxes)
        ours = fuse(maps, boxes, *shape)
    torch.testing.assert_close(ours, theirs, **TOLERANCE)

    target = np.random.default_rng(1).integers(0, 5, shape)
    target[:3] = 255
    check = IouCrossCheck(5)
    check.add(theirs.argmax(0), target)
    areas = confusion_areas(ours.argmax(0), target, 5).columns()
    rows = {k: np.array([v]) for k, v in areas.items()}
    mean = np.nanmean(per_class_iou(rows["intersection"], rows["union"]))
    assert check.details(rows)["cross_check"]["mIoU"] == pytest.approx(mean, abs=1e-9)
