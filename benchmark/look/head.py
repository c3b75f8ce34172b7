"""A kept head on photographs that nobody labelled: what it says there, drawn as `bench show` draws targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, linear

from benchmark.contracts import (
    Answer,
    DepthData,
    Encoder,
    KeptHead,
    LabelData,
    Method,
    NormalsData,
    SegmentationData,
    Tap,
)
from benchmark.contracts import View as Laid
from benchmark.engine.loading import device_of
from benchmark.engine.options import RunOptions
from benchmark.engine.session import encoder_of
from benchmark.errors import DataError, EncoderError, UsageError
from benchmark.features.taps import request_for
from benchmark.heads.bins import BinsHead
from benchmark.heads.kept import AGAIN, read_head, refuse_another
from benchmark.images.decode import decode, within
from benchmark.images.photos import Photos
from benchmark.images.samples import look_at_samples
from benchmark.images.sheets import drawn
from benchmark.images.views import resolve_view
from benchmark.look.ceiling import upsampled
from benchmark.protocol import EvalProtocol
from benchmark.registry import load_task, models

SHOWN = 480  # pixels of the longer side that maps of a linear head are made at


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
    if "view" in head.use:
        answers = [_linear(head, encoder, photo) for photo in photos]
    else:
        method = _method(file, meta)
        answers = [method.answer(head, encoder, device_of(encoder), photo) for photo in photos]
    title = f"{meta.get('task')} by {meta.get('protocol')} {meta.get('protocol_hash', '')[:8]}, {meta.get('model')}"
    shown = Photos([answer.shown for answer in answers], [path.name for path in pictures])
    data = _data(head, shown, [_finite(answer.values, encoder) for answer in answers])
    return drawn([look_at_samples(data, title, len(photos), "prediction")])


def _method(file: Path, meta: Mapping[str, str]) -> Method[Any]:
    """The method that trained the head, by the protocol in its file. Raises DataError for one of another version."""
    name = meta["task"].split("/")[0]
    task, fields, schema = load_task(name), json.loads(meta["fields"]), meta["schema"]
    try:
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        protocol = EvalProtocol(name, meta["protocol"], schema, "", task.schemas[schema](**values))
        if protocol.hash == meta["protocol_hash"]:
            return task.method(protocol.values)
    except (KeyError, TypeError, ValueError):
        pass  # fields of another version
    raise DataError(f"{file}: was trained by {meta['protocol']} as another version of densebench has it. {AGAIN}")


def _linear(head: KeptHead, encoder: Encoder, photo: np.ndarray) -> Answer:
    """What a head says that is linear on one view of the picture."""
    use, device, shown = head.use, device_of(encoder), within(photo, SHOWN)
    view = resolve_view(Laid(use["view"], use["view_size"]), encoder.transform, encoder.card, Photos([photo]))
    layer = use.get("layer", -1)
    request = request_for([Tap("patches", None if layer == -1 else layer)])
    with torch.inference_mode():
        features = encoder.encode_image(torch.from_numpy(view.lay(photo))[None].to(device), request)
        source: Any = features.layers[0] if request.layers else features
        cls, patches = source.cls[0].float().cpu(), source.patches[0].float().cpu()  # [K, D], [h, w, D]
        weight, bias = head.arrays["weight"], head.arrays["bias"]
        if head.kind == "labels":
            picks = {"first": cls[0], "last": cls[-1], "mean": cls.mean(0)}
            vector = picks.get(use["cls"], cls.flatten())
            vector = torch.cat([vector, patches.mean((0, 1))]) if use["mean_patches"] else vector
            return Answer(shown, linear(vector, weight, bias).numpy())
        tokens = patches
        if use["with_cls"]:
            tokens = torch.cat([patches, cls[0].expand(*patches.shape[:2], -1)], -1)
        maps = linear(tokens, weight, bias).permute(2, 0, 1)  # [O, h, w]
        if head.kind == "depth":
            if use["upsample"] > 1:
                maps = interpolate(maps[None], scale_factor=use["upsample"], mode="bilinear", align_corners=False)[0]
            bins = BinsHead(weight, bias, use["near"], use["far"])
            maps = bins.expectation(maps.permute(1, 2, 0))[None]
        found = np.asarray(upsampled(maps, shown.shape[:2], view.placement(*photo.shape[:2])))
    if head.kind == "segmentation":
        return Answer(shown, _finite(found, encoder).argmax(0))
    return Answer(shown, found[0] if head.kind == "depth" else np.moveaxis(found, 0, -1))


def _finite(values: np.ndarray, encoder: Encoder) -> np.ndarray:
    if not np.isfinite(values).all():
        raise EncoderError(f"{encoder.card.name}: features hold NaN or infinity. Run bench check")
    return values


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
    if head.kind == "depth":
        body |= {"relative": head.use.get("relative", False)}
    if head.use.get("palette"):
        body |= {"palette": head.use["palette"]}
    return type("Answers", (kinds[head.kind],), {**body, "class_names": names})()
