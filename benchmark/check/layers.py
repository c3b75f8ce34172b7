"""Conformance of the layers: their order, the last one against the main output, raw against normed, CLS of each."""

from __future__ import annotations

from itertools import pairwise

import torch

from benchmark.check.arrays import relative_gap
from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.contracts import EncoderExtras, ImageFeatures, ImageRequest, LayerFeatures


def layer_order(checks: ImageChecks) -> Finding:
    """Layers come in the order that they are asked for, -1 is the last block, and no two neighbours are the same."""
    name, depth = "layer order", checks.encoder.card.depth
    if depth < 2:
        return passed(name, f"{depth} layers: nothing to order")
    image = checks.native(1)
    first, last = (checks.encode(image, ImageRequest(layers=(n,))).layers[0].patches for n in (0, depth - 1))
    pair = [layer.patches for layer in checks.encode(image, ImageRequest(layers=(-1, 0))).layers]
    if max(map(relative_gap, pair, (last, first))) > checks.tolerance:
        why = "layers=(-1, 0) must be the last block, then the first: keep the order of ImageRequest.layers"
        return failed(name, "another order", why)
    if not relative_gap(first, last) > 0:
        return failed(name, "the same", f"layers 0 and {depth - 1} are the same: are layers looked up?")
    every = checks.encode(image, ImageRequest(layers=tuple(range(depth)))).layers
    if max(map(relative_gap, (every[0].patches, every[-1].patches), (first, last))) > checks.tolerance:
        return failed(name, "another order", "a layer depends on which others are asked for: look each up by number")
    for number, (one, two) in enumerate(pairwise(every)):
        if torch.equal(one.patches, two.patches):
            why = f"layers {number} and {number + 1} are the same: are blocks counted from 0, each with its own output?"
            return failed(name, "the same", why)
    return passed(name, f"(-1, 0) of {depth}")


def last_layer(checks: ImageChecks) -> Finding:
    """Layer -1 is the main output, which does not change with what else is asked for."""
    name, card = "last layer", checks.encoder.card
    images = checks.native(2)
    plain, asked = checks.encode(images), checks.encode(images, checks.everything)
    for part in ("cls", "patches"):
        if relative_gap(getattr(asked, part), getattr(plain, part)) > checks.tolerance:
            return failed(name, part, f"{part} change when layers are asked for: the same forward must give both")
    if not card.depth:
        return passed(name, "0 layers: nothing to compare")
    last = asked.layers[-1]
    raw = raw_layers(checks, images)[-1] if card.has_raw_layers else None
    if (gap := relative_gap(last.patches, plain.patches)) > checks.tolerance:
        return failed(name, f"{gap:.1e}", f"patches are not layer -1: {unlike(checks, images, plain, last, raw)}")
    if raw is not None and raw.cls.shape == plain.cls.shape and relative_gap(last.cls, plain.cls) > checks.tolerance:
        if relative_gap(raw.cls, plain.cls) <= checks.tolerance:
            return failed(name, "cls", "cls is the last block's before the final norm: apply the norm")
        if torch.equal(raw.cls, last.cls) and EncoderExtras.of(checks.encoder).has_final_norm:
            why = "layer -1's CLS is not cls, and the same with and without the final norm: norm or pool it like cls"
            return failed(name, "cls", why)
        return passed(name, "patches equal, cls another vector: right where the authors pool so")
    return passed(name, f"{gap:.1e} from the main output")


def unlike(
    checks: ImageChecks, images: torch.Tensor, plain: ImageFeatures, last: LayerFeatures, raw: LayerFeatures | None
) -> str:
    """Why the patches of `plain` may differ from those of layer -1, and what to do."""
    if raw is not None and relative_gap(raw.patches, plain.patches) <= checks.tolerance:
        return "they lack the final norm, which layers have. Apply it"
    if raw is not None and torch.equal(raw.patches, last.patches):
        return "layers lack the final norm. Apply it unless final_norm=False"
    depth = checks.encoder.card.depth
    every = checks.encode(images, ImageRequest(layers=tuple(range(depth)))).layers
    alike = [n for n in range(depth) if relative_gap(every[n].patches, plain.patches) <= checks.tolerance]
    if alike:
        return f"they are layer {alike[0]} of {depth}. Return the last block's, and count layers from 0"
    return "both must be the last block after the final norm. Is a norm left out, or are layers counted from 1?"


def final_norm(checks: ImageChecks) -> Finding:
    """Layers with and without the final norm differ, where the card offers both."""
    name, card = "final norm", checks.encoder.card
    if not EncoderExtras.of(checks.encoder).has_final_norm:  # the encoder says that its authors' model has none
        return passed(name, "the model has none, by its own word")
    if not card.has_raw_layers or card.depth < 2:
        return passed(name, "layers come in one form: cannot be seen without --golden" if card.depth else "no layers")
    images = checks.native(2)
    normed = checks.encode(images, ImageRequest(layers=(0, -1))).layers
    for number, with_norm, without in zip((0, -1), normed, raw_layers(checks, images)):
        if torch.equal(with_norm.patches, without.patches):
            why = (
                f"layer {number} is the same with final_norm=True and False: apply the norm to patches and layers "
                "unless final_norm=False; an encoder of a model that has none says has_final_norm = False"
            )
            return failed(name, "missing", why)
    return passed(name, "layers differ with and without it")


def raw_layers(checks: ImageChecks, images: torch.Tensor) -> tuple[LayerFeatures, ...]:
    """The first and the last layer as their blocks leave them."""
    return checks.encode(images, ImageRequest(layers=(0, -1), final_norm=False)).layers
