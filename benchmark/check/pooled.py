"""Is CLS the model's pooled vector? One patch, or the mean of the patches, may stand in its place."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmark.check.arrays import maps, relative_gap
from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.check.orientation import LEAST_SIDE, Place, places_in, with_squares
from benchmark.contracts import EncoderExtras, ImageRequest

# A patch that is read as CLS, through a norm or a head too, moves CLS as far as it moves itself (0.5 to 1.8 times), and
# over 8 times as far as any other does, whatever the picture. A trained CLS may attend to one patch while a bright
# square is there: other pictures move it by others, and less (0.3 of the patch's own change at most).
SEEDS = (21, 22, 23)  # of the pictures
ALONE = 5  # times the change of CLS by any other square
ITSELF = 0.4  # of the change of the patch by its own square
OPPOSITE = -0.2  # mean cosine of CLS with the patches in text space, below which one of them has the wrong sign


def pooled(checks: ImageChecks) -> list[Finding]:
    """No CLS is a single patch, and the main one the mean of the patches only where layers have no CLS token either.

    An encoder whose authors pool the mean beside such a token (timm's DINOv3) says so: its `pooling` is "mean".
    """
    name, card = "pooled vector", checks.encoder.card
    features = checks.encode(checks.native(2), checks.everything)
    cls = features.cls  # [2, K, E]
    outputs = [array for part, array in maps(features).items() if not part.startswith("layer")]
    vectors = [("cls", cls, outputs)]
    vectors += [(f"cls of layer {i}", layer.cls, [layer.patches]) for i, layer in enumerate(features.layers)]
    if checks.unnormed is not None:
        raw = checks.encode(checks.native(2), checks.unnormed).layers
        vectors += [(f"cls of raw layer {i}", layer.cls, [layer.patches]) for i, layer in enumerate(raw)]
    for part, vector, grids in vectors:
        for grid in grids:
            if place := same_patch(vector, grid, checks.tolerance):
                why = f"{part} is patch {place} of its map: is a model without a CLS token read as if it had one?"
                return [failed(name, f"patch {place}", why)]
    if alone := one_patch(checks):
        place, share = alone
        if share > ITSELF:
            return [failed(name, "one patch", f"cls sees patch {place} alone: is a patch taken for the CLS token?")]
        return [passed(name, f"patch {place} alone moves it, {share:.1g} as far as itself: looks like attention")]
    if not any(is_mean(cls, array, checks.tolerance) for array in outputs):
        return [passed(name, "neither a patch nor their mean")]
    tokens_beside = [layer for layer in features.layers[-1:] if not is_mean(*layer, checks.tolerance)]
    if (card.num_cls > 1 or tokens_beside) and EncoderExtras.of(checks.encoder).pooling != "mean":
        why = "cls is the mean of the patches, layers have CLS tokens: return that token, or say pooling = 'mean'"
        return [failed(name, "mean", why)]
    return [passed(name, "mean of the patches: right where the authors pool so; cannot be seen without --golden")]


def same_patch(cls: torch.Tensor, grid: torch.Tensor, tolerance: float) -> tuple[int, int] | None:
    """The patch of a map [B, h, w, D] that one of CLS [B, K, E] is in every picture, or None."""
    tokens = grid.flatten(1, 2)  # [B, h*w, D]
    if tokens.shape[1] == 1 or tokens.shape[2] != cls.shape[2]:
        return None
    for k in range(cls.shape[1]):
        gaps = (tokens - cls[:, k : k + 1]).abs().amax((0, 2))
        if gaps.min() <= tolerance * cls.abs().max():
            return divmod(int(gaps.argmin()), grid.shape[2])
    return None


def is_mean(cls: torch.Tensor, patches: torch.Tensor, tolerance: float) -> bool:
    """Whether every CLS [B, K, D] is the mean of the patches [B, h, w, D]."""
    mean = patches.mean((1, 2))[:, None]
    return mean.shape[-1] == cls.shape[-1] and relative_gap(cls, mean.expand_as(cls)) <= tolerance


def one_patch(checks: ImageChecks) -> tuple[Place, float] | None:
    """The patch that alone moves CLS, in every picture, and the least that it does so in parts of its own change."""
    card = checks.encoder.card
    found: dict[tuple[int, Place], float] = {}  # by CLS and patch
    for seed in SEEDS:
        plain = checks.native(1, seed)
        before = checks.encode(plain)
        rows, columns = before.patches.shape[1:3]
        if min(rows, columns) < LEAST_SIDE:
            return None
        places = [(0, 0), (rows - 1, columns - 1), *places_in(rows, columns)]
        after = checks.encode(with_squares(plain, card.patch_size, places, opposite=True))
        seen = {}
        for k, one in enumerate(changes(before.cls, after.cls).T):  # [places]
            first, second = one.topk(2).values
            at = int(one.argmax())
            row, column = places[at]
            own = changes(before.patches[:, row, column], after.patches[at : at + 1, row, column])
            if first > ALONE * second:
                seen[k, places[at]] = float(first / own.clamp_min(1e-12))
        found = {key: min(share, found.get(key, share)) for key, share in seen.items() if not found or key in found}
        if not found:
            return None
    (_, place), share = max(found.items(), key=lambda item: item[1])
    return place, share


def changes(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """1 − cosine of vectors [1, …, D] and [n, …, D]."""
    return 1 - F.cosine_similarity(before.double(), after.double(), dim=-1)


def text_patch_sign(checks: ImageChecks) -> list[Finding]:
    """Patches in text space vary with CLS over pictures, not against it."""
    name, card = "text patches and cls", checks.encoder.card
    if not card.has_text_patches:
        return []
    features = checks.encode(checks.native(8), ImageRequest(text_patches=True))
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
