"""Where a picture lies on an encoder's map when its square is no whole number of patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import SmallEncoder

from benchmark.contracts import EncoderCard, ImageTransform, View
from benchmark.digest import fingerprint, plain
from benchmark.features.taps import mix_at_pixels
from benchmark.views import Placement, ResolvedView, resolve_view
from tasks.dense import upsample
from tasks.sliding import best_class


def card(image_size: int, patch: int) -> EncoderCard:
    return replace(SmallEncoder().card, image_size=image_size, patch_size=patch)


def seen(own: int, side: int, patch: int) -> tuple[ResolvedView, torch.Tensor]:
    """The view of a picture stretched to `side`, and the x of each patch's middle on that square [1, h, w]."""
    view = resolve_view(View("square", side), ImageTransform("square", own), card(own, patch), [])
    count = side // patch if side == own else -(-side // patch)
    border = 0 if side == own else (count * patch - side) // 2
    middles = (torch.arange(count) + 0.5) * patch - border
    return view, middles.expand(1, count, count).contiguous()


@pytest.mark.parametrize(
    ("own", "side", "patch"), [(384, 384, 14), (448, 448, 14), (224, 512, 14), (36, 36, 8), (32, 45, 8)]
)
def test_what_a_patch_saw_is_put_back_where_it_was(own: int, side: int, patch: int) -> None:
    """SigLIP so400m has 27 patches of 14 and sees 378 of 384 pixels; other sizes are padded to whole patches."""
    view, x = seen(own, side, patch)
    height, width = 3 * side, 2 * side
    found = upsample(x, height, width, view.placement(height, width))
    assert found.shape == (1, height, width)
    truth = (torch.arange(width) + 0.5) / width * side
    between = (truth > x.min()) & (truth < x.max())  # beyond the outermost middles a map is flat
    torch.testing.assert_close(found[0, 0][between], truth[between], atol=1.01 if side > own else 1e-2, rtol=0)


def test_sampled_pixels_are_those_of_the_upsampled_map() -> None:
    view, _ = seen(36, 36, 8)
    maps = torch.randn(1, 4, 4, 5, generator=torch.Generator().manual_seed(0))  # [b, h, w, D]
    place = view.placement(50, 70)
    assert place == Placement(0, 0, 36 / 32, 36 / 32)
    rows, columns = np.divmod(np.arange(50 * 70), 70)
    mixed = mix_at_pixels(maps, [(rows, columns)], [(50, 70)], [place])[0].T.reshape(5, 50, 70)
    scores = maps[0].permute(2, 0, 1)
    full = upsample(scores, 50, 70, place)
    torch.testing.assert_close(mixed, full, atol=1e-5, rtol=0)
    label, best = best_class(scores, 50, 70, place)
    assert torch.equal(label, full.argmax(0)) and torch.equal(best, full.amax(0))


def test_whole_patches_are_the_views_they_were() -> None:
    view, _ = seen(448, 448, 14)
    old = {key: value for key, value in plain(view).items() if key != "map_side"}
    assert view.placement(100, 70) == Placement() and view.fingerprint() == fingerprint(old)
    assert seen(384, 384, 14)[0].fingerprint() != fingerprint(old)
