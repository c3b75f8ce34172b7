"""A kept head on photographs that nobody labelled: what it says there, drawn as `bench show` draws targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, linear

from benchmark.contracts import DepthData, Encoder, ImageSet, KeptHead, LabelData, NormalsData, SegmentationData, Tap
from benchmark.contracts import View as Laid
from benchmark.engine.loading import device_of
from benchmark.engine.options import RunOptions
from benchmark.engine.session import encoder_of
from benchmark.errors import EncoderError, UsageError
from benchmark.features.taps import request_for
from benchmark.heads.bins import BinsHead
from benchmark.heads.kept import read_head, refuse_another
from benchmark.images.decode import decode
from benchmark.images.samples import look_at_samples
from benchmark.images.sheets import drawn
from benchmark.images.views import resolve_view
from benchmark.look.ceiling import upsampled
from benchmark.registry import models

SHOWN = 480  # pixels of the longer side that maps are drawn at


class Photos(ImageSet):
    """Pictures in memory, with their names."""

    def __init__(self, names: Sequence[str], pictures: Sequence[np.ndarray]) -> None:
        self.names, self.shown = names, pictures

    digest = ""

    def __len__(self) -> int:
        return len(self.names)

    def image_id(self, index: int) -> str:
        return self.names[index]

    def load(self, index: int) -> np.ndarray:
        return self.shown[index]


def look_with_head(
    file: Path, pictures: Sequence[Path], model: str | None = None, options: RunOptions | None = None
) -> bytes:
    """One PNG of `pictures` beside what the head of `file` says of them.

    Raises UsageError where `model` (None: the one it was trained on) is another encoder, DataError for a damaged file.
    """
    head, meta = read_head(file)
    if model is None and meta.get("model") not in models():
        raise UsageError(f"--head {file}: was trained on {meta.get('model')}, which no list here has. Name it: --model")
    encoder = encoder_of(model or meta["model"], options or RunOptions())
    refuse_another(file, meta, encoder)
    photos = [decode(path) for path in pictures]
    answers = [_answer(head, encoder, photo) for photo in photos]
    title = f"{meta.get('task')} by {meta.get('protocol')} {meta.get('protocol_hash', '')[:8]}, {meta.get('model')}"
    data = _data(head, Photos([path.name for path in pictures], [_small(photo) for photo in photos]), answers)
    return drawn([look_at_samples(data, title, len(photos), "prediction")])


def _small(photo: np.ndarray) -> np.ndarray:
    side = max(photo.shape[:2])
    height, width = (max(1, round(n * min(1, SHOWN / side))) for n in photo.shape[:2])
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))


def _answer(head: KeptHead, encoder: Encoder, photo: np.ndarray) -> np.ndarray:
    """What the head says: classes [H, W], metres [H, W], vectors [H, W, 3], or scores of classes [C]."""
    use, device = head.use, device_of(encoder)
    view = resolve_view(Laid(use["view"], use["view_size"]), encoder.transform, encoder.card, Photos([""], [photo]))
    layer = use.get("layer", -1)
    request = request_for([Tap("patches", None if layer == -1 else layer)])
    with torch.inference_mode():
        features = encoder.encode_image(torch.from_numpy(view.lay(photo))[None].to(device), request)
        source: Any = features.layers[0] if request.layers else features
        cls, patches = source.cls[0].float().cpu(), source.patches[0].float().cpu()  # [K, D], [h, w, D]
        weight, bias = head.weight, head.bias
        if head.kind == "labels":
            picks = {"first": cls[0], "last": cls[-1], "mean": cls.mean(0)}
            vector = picks.get(use["cls"], cls.flatten())
            vector = torch.cat([vector, patches.mean((0, 1))]) if use["mean_patches"] else vector
            return _finite(linear(vector, weight, bias), encoder)
        tokens = patches
        if use["with_cls"]:
            tokens = torch.cat([patches, cls[0].expand(*patches.shape[:2], -1)], -1)
        maps = linear(tokens, weight, bias).permute(2, 0, 1)  # [O, h, w]
        if head.kind == "depth":
            if use["upsample"] > 1:
                maps = interpolate(maps[None], scale_factor=use["upsample"], mode="bilinear", align_corners=False)[0]
            bins = BinsHead(weight, bias, use["near"], use["far"])
            maps = bins.expectation(maps.permute(1, 2, 0))[None]
        shape = _small(photo).shape[:2]
        found = _finite(upsampled(maps, shape, view.placement(*photo.shape[:2])), encoder)
    if head.kind == "segmentation":
        return np.asarray(found.argmax(0))
    return np.asarray(found[0] if head.kind == "depth" else np.moveaxis(found, 0, -1))


def _finite(values: torch.Tensor, encoder: Encoder) -> np.ndarray:
    if not torch.isfinite(values).all():
        raise EncoderError(f"{encoder.card.name}: features hold NaN or infinity. Run bench check")
    return np.asarray(values)


def _data(head: KeptHead, photos: Photos, answers: Sequence[np.ndarray]) -> Any:
    """The answers as data of their kind, so that they are drawn as targets are."""

    def target(index: int) -> np.ndarray:
        values = answers[index]
        if head.kind != "normals":
            return values
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-9))

    kinds = {"segmentation": SegmentationData, "depth": DepthData, "normals": NormalsData, "labels": LabelData}
    body: dict[str, Any] = {"digest": "", "images": photos, "target": staticmethod(target)}
    names = head.use.get("names", ())
    if head.kind == "labels":
        body |= {"labels": np.array([int(scores.argmax()) for scores in answers])}
    if head.use.get("palette"):
        body |= {"palette": head.use["palette"]}
    return type("Answers", (kinds[head.kind],), {**body, "class_names": names})()
