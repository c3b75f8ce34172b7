"""Is CLS the model's pooled vector? One patch, or the mean of the patches, may stand in its place."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmark.check.arrays import maps, relative_gap
from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.check.orientation import LEAST_SIDE, places_in, with_squares
from benchmark.contracts import EncoderExtras

OWN_PATCH = 40  # times the median change of CLS by a square, at one place: CLS sees that patch alone (right models: 10)
OPPOSITE = -0.2  # mean cosine of CLS with the patches in text space, below which one of them has the wrong sign


def pooled(checks: ImageChecks) -> list[Finding]:
    """CLS is no single patch, and the mean of the patches only where layers have no CLS token either.

    An encoder whose authors pool the mean beside such a token (timm's DINOv3) says so: its `pooling` is "mean".
    """
    name, card = "pooled vector", checks.encoder.card
    features = checks.encode(checks.native(2), checks.everything)
    cls = features.cls  # [2, K, E]
    for part, array in maps(features).items():
        if part.startswith("layer") or array.shape[-1] != cls.shape[-1]:
            continue
        tokens = array.flatten(1, 2)  # [2, h*w, D]
        for k in range(cls.shape[1]):
            gaps = (tokens - cls[:, k : k + 1]).abs().amax((0, 2))
            if gaps.min() <= checks.tolerance * cls.abs().max() and tokens.shape[1] > 1:
                place = divmod(int(gaps.argmin()), array.shape[2])
                why = f"cls is patch {place} of {part}: is a model without a CLS token read as if it had one?"
                return [failed(name, f"patch {place}", why)]
    if reason := one_patch(checks):
        return [failed(name, "one patch", reason)]
    outputs = [array for part, array in maps(features).items() if not part.startswith("layer")]
    if not any(is_mean(cls, array, checks.tolerance) for array in outputs):
        return [passed(name, "neither a patch nor their mean")]
    tokens_beside = [layer for layer in features.layers[-1:] if not is_mean(*layer, checks.tolerance)]
    if (card.num_cls > 1 or tokens_beside) and EncoderExtras.of(checks.encoder).pooling != "mean":
        why = "cls is the mean of the patches, layers have CLS tokens: return that token, or say pooling = 'mean'"
        return [failed(name, "mean", why)]
    return [passed(name, "mean of the patches: right where the authors pool so; cannot be seen without --golden")]


def is_mean(cls: torch.Tensor, patches: torch.Tensor, tolerance: float) -> bool:
    """Whether every CLS [B, K, D] is the mean of the patches [B, h, w, D]."""
    mean = patches.mean((1, 2))[:, None]
    return mean.shape[-1] == cls.shape[-1] and relative_gap(cls, mean.expand_as(cls)) <= tolerance


def one_patch(checks: ImageChecks) -> str | None:
    """The patch whose square moves CLS many times as far as every other does, in words."""
    card = checks.encoder.card
    plain = checks.images(1, card.image_size, card.image_size, seed=5) * 0.3
    before = checks.encode(plain)
    rows, columns = before.patches.shape[1:3]
    if min(rows, columns) < LEAST_SIDE:
        return None
    places = [(0, 0), (rows - 1, columns - 1), *places_in(rows, columns)]
    after = checks.encode(with_squares(plain, card.patch_size, places))
    change = 1 - F.cosine_similarity(before.cls.double(), after.cls.double(), dim=-1)  # [places, K]
    for one in change.T:
        order = one.sort(descending=True).values
        if order[0] > OWN_PATCH * one.median().clamp_min(1e-9) and order[0] > OWN_PATCH / 4 * order[1]:
            return f"cls sees patch {places[int(one.argmax())]} alone: is a patch taken for the CLS token?"
    return None


def text_patch_sign(checks: ImageChecks) -> list[Finding]:
    """Patches in text space vary with CLS over pictures, not against it."""
    name, card = "text patches and cls", checks.encoder.card
    if not card.has_text_patches:
        return []
    features = checks.encode(checks.native(8), checks.everything)
    if features.text_patches is None:
        return []
    patches = F.normalize(features.text_patches.double(), dim=-1).mean((1, 2))  # [8, E]
    cls = features.cls.double().mean(1)
    cosine = F.cosine_similarity(patches - patches.mean(0), cls - cls.mean(0), dim=-1)
    value = f"cosine {cosine.mean():.2f} over pictures"
    if cosine.mean() < OPPOSITE and torch.all(cosine < 0):
        why = "text_patches point away from cls, picture by picture: has one of them the wrong sign?"
        return [failed(name, value, why)]
    return [passed(name, value)]
