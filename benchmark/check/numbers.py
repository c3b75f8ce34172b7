"""What small changes of the pixels show: the number type computed in, the range of the pixels, squeezed pictures."""

from __future__ import annotations

import torch

from benchmark.check.findings import Finding, failed, passed
from benchmark.check.image_side import ImageChecks
from benchmark.errors import BenchError

# Fourth differences of features along pictures that grow brighter by STEP, relative to the features. Rounding alone
# remains: float32 shows 3e-7 to 3e-6 (the `pixels` floor 5e-5), float16 2e-4 to 6e-3, bfloat16 1e-3 to 2e-2, however
# small the step. The bends of ReLU6 in a deep network shrink with it: 1e-3 at 1e-5.
STEP = 6e-7
ROUGH, SMOOTH = 2e-4, 5e-5
FOURTH = (1, -4, 6, -4, 1)
SATURATED = 0.5  # response to a picture of 1/255 contrast, in parts of that to half the contrast; right encoders: 0.04
UNSEEN = 0.25  # share of the native response to stripes of one pixel, below which a wide picture's are averaged out


def vectors(checks: ImageChecks, images: torch.Tensor) -> torch.Tensor:
    """[B, N] CLS and patches of each picture."""
    features = checks.encode(images)
    return torch.cat([features.cls.flatten(1), features.patches.flatten(1)], 1).double()


def number_type(checks: ImageChecks) -> Finding:
    """Features are as smooth as the card's number type makes them."""
    name, dtype = "number type", checks.encoder.card.dtype
    # Between 0.1 and 0.4 of a level over a whole one: nothing moves where whole levels are read, and some pixel lies
    # next to where half precision rounds.
    base = ((checks.native(1, seed=7) * 0.8 + 0.1).mul(255).round() + 0.1 + 0.3 * checks.native(1, seed=8)) / 255
    steps = torch.arange(len(FOURTH), device=base.device).view(-1, 1, 1, 1)
    noise = fourth(vectors(checks, base + STEP * steps))
    value = f"rounding of {noise:.1e}"
    if dtype == "float32" and noise > ROUGH:
        why = "the card says dtype float32, the numbers jump as in half precision: is autocast on, or a part in half?"
        return failed(name, value, why)
    if dtype in ("bfloat16", "float16") and 0 < noise < SMOOTH:
        return failed(name, value, f"the card says dtype {dtype}, it computes in float32: follow dtype, or say float32")
    return passed(name, value)


def fourth(rows: torch.Tensor) -> float:
    """Standard deviation that independent errors of five rows on a line must have, relative to their length."""
    difference = sum(weight * row for weight, row in zip(FOURTH, rows))
    assert isinstance(difference, torch.Tensor)
    return float(difference.norm() / sum(w * w for w in FOURTH) ** 0.5 / rows[2].norm().clamp_min(1e-12))


def pixel_range(checks: ImageChecks) -> Finding:
    """A picture of 1/255 contrast is next to black, and half of the contrast is another picture."""
    name = "pixel range"
    picture = checks.native(1, seed=11)
    black, faint, half, whole = vectors(checks, torch.cat([picture * c for c in (0, 1 / 255, 1 / 2, 1)]))
    near, far = float((faint - black).norm()), float((whole - half).norm())
    if near > SATURATED * far and near > 1e-3 * float(black.norm()):
        why = "a picture 255 times darker than white is as good as a bright one: pixels come in [0, 1], not in 0 to 255"
        return failed(name, f"{near / max(far, 1e-12):.2g}", why)
    return passed(name, f"{near / max(far, 1e-12):.2g} of the contrast at 1/255")


def wide_pictures(checks: ImageChecks) -> Finding:
    """A picture twice as wide as high has a map twice as wide, and stripes of one pixel are seen in it."""
    name, card = "wide pictures", checks.encoder.card
    side, patch = card.image_size, card.patch_size
    height, width = side // patch * patch, 2 * (side // patch) * patch
    columns = torch.arange(width, device=checks.device)

    def stripes(across: int) -> torch.Tensor:
        """Dark and bright columns in turn, which fade to grey at the sides: a resize has no edge to show there."""
        x = columns[:across]
        fade = torch.sin((x + 0.5) * torch.pi / across).square()
        return (0.5 + (x % 2 - 0.5) * fade).float().expand(1, 3, height, across)

    try:
        features = checks.encode(stripes(width))
        shape = tuple(features.patches.shape[1:3])
        if shape != (height // patch, width // patch):
            why = f"{height}x{width} pixels give this grid, not {height // patch}x{width // patch}: are they squeezed?"
            return failed(name, f"{shape[0]}x{shape[1]}", why)
        wide = response(checks, stripes(width))
    except BenchError as error:
        return passed(name, f"refused: {error}")
    except Exception as error:  # a fault only where such pictures are asked for: "odd sizes" says so
        return passed(name, f"not taken: {type(error).__name__}")
    if wide < UNSEEN * response(checks, stripes(height)):
        why = "stripes of one pixel, seen in a square, are grey in a wide picture: is it squeezed to a square first?"
        return failed(name, f"{wide:.1e}", why)
    return passed(name, f"{height}x{width} px -> {shape[0]}x{shape[1]}")


def response(checks: ImageChecks, picture: torch.Tensor) -> float:
    """How far the features of a picture are from those of plain grey, relative to them."""
    grey = vectors(checks, torch.full_like(picture, 0.5))
    return float((vectors(checks, picture) - grey).norm() / grey.norm().clamp_min(1e-12))
