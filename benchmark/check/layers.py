"""Conformance of the layers: their order, the last one against the main output, raw against normed, CLS of each."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch

from benchmark.check.arrays import relative_gap
from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.contracts import EncoderExtras, ImageFeatures, ImageRequest, LayerFeatures
from benchmark.system.plurals import number_of


def layer_order(checks: ImageChecks) -> Finding:
    """Layers come in the order that they are asked for, -1 is the last block, and no two neighbours are the same."""
    name, depth = "layer order", checks.encoder.card.depth
    if depth < 2:
        return passed(name, f"{number_of(depth, 'layer')}: nothing to order")
    image = checks.native(1)
    for form, whole in (("layers", checks.everything), ("raw layers", checks.unnormed)):
        if whole is None:
            continue

        def patches(*numbers: int, whole: ImageRequest = whole) -> list[torch.Tensor]:
            return [layer.patches for layer in checks.encode(image, replace(whole, layers=numbers)).layers]

        (first,), (last,) = patches(0), patches(depth - 1)
        if max(map(relative_gap, patches(-1, 0), (last, first))) > checks.tolerance:
            why = f"{form}=(-1, 0) must be the last block, then the first: keep the order of ImageRequest.layers"
            return failed(name, "another order", why)
        if not relative_gap(first, last) > 0:
            return failed(name, "the same", f"{form} 0 and {depth - 1} are the same: are layers looked up?")
        every = checks.encode(image, whole).layers
        if max(map(relative_gap, (every[0].patches, every[-1].patches), (first, last))) > checks.tolerance:
            why = f"one of {form} depends on which others are asked for: look each up by number"
            return failed(name, "another order", why)
        for number, (one, two) in enumerate(pairwise(every)):
            pair = f"{form} {number} and {number + 1}"
            if torch.equal(one.patches, two.patches):
                why = f"{pair} are the same: are blocks counted from 0, each with its own output?"
                return failed(name, "the same", why)
            if torch.equal(one.cls, two.cls):
                why = f"cls of {pair} is the same: each layer has its own block's"
                return failed(name, "the same cls", why)
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
    raw = checks.encode(images, checks.unnormed).layers[-1] if checks.unnormed is not None else None
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
    every = checks.encode(images, checks.everything).layers
    alike = [n for n in range(depth) if relative_gap(every[n].patches, plain.patches) <= checks.tolerance]
    if alike:
        return f"they are layer {alike[0]} of {depth}. Return the last block's, and count layers from 0"
    return "both must be the last block after the final norm. Is a norm left out, or are layers counted from 1?"


def final_norm(checks: ImageChecks) -> Finding:
    """Layers with and without the final norm differ, where the card offers both."""
    name, card = "final norm", checks.encoder.card
    if not EncoderExtras.of(checks.encoder).has_final_norm:  # the encoder says that its authors' model has none
        return passed(name, "the model has none, by its own word")
    if checks.unnormed is None or card.depth < 2:
        return passed(name, "layers come in one form: cannot be seen without --golden" if card.depth else "no layers")
    images = checks.native(2)
    normed, raw = (checks.encode(images, request).layers for request in (checks.everything, checks.unnormed))
    for number, with_norm, without in zip(checks.everything.layers, normed, raw):
        if torch.equal(with_norm.patches, without.patches):
            why = (
                f"layer {number} is the same with final_norm=True and False: apply the norm to patches and layers "
                "unless final_norm=False; an encoder of a model that has none says has_final_norm = False"
            )
            return failed(name, "missing", why)
    return passed(name, "layers differ with and without it")
