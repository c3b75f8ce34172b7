"""bench check: a sound encoder passes, and each broken one is caught by the check that is meant for it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from small import SmallEncoder

from adapters.patches import center_pad
from benchmark.check import check_encoder
from benchmark.check.image_side import ImageChecks
from benchmark.check.measured import BATCHES
from benchmark.contracts import ImageFeatures, ImageRequest


class Sound(SmallEncoder):
    """The tests' encoder, padding to whole patches."""

    def encode_image(self, images, request=ImageRequest()):
        return super().encode_image(center_pad(images, 8), request)


class Wrapped(Sound):
    """`change` is applied to the features of a sound encoder."""

    def __init__(self, change, image_size=32):
        super().__init__(image_size=image_size)
        self.change = change

    def encode_image(self, images, request=ImageRequest()):
        return self.change(super().encode_image(images, request), images)


def names_of_failures(encoder, **options):
    return {f.name for f in check_encoder(encoder, **options).findings if not f.ok}


def in_type(kind):
    """A sound encoder that computes in `kind`."""
    dtype = getattr(torch, kind)
    encoder = Wrapped(lambda features, _: replace(features, patches=features.patches.to(dtype)))
    encoder.card = replace(encoder.card, dtype=kind)
    return encoder


def test_a_sound_encoder_passes_everything():
    report = check_encoder(Sound(), reload=in_type)
    assert report.ok, [f for f in report.findings if not f.ok]
    found = {f.name for f in report.findings}
    wanted = {"cls", "patches", "text_patches", "layer 0", "layer -1", "layers", "extreme images", "deterministic"}
    wanted |= {"batch 1 = batch N", "grid orientation", "text rows", "padding invariance", "golden tokens", "odd sizes"}
    wanted |= {"layer order", "last layer", "final norm", "pooled vector", "other sizes", "wide pictures"}
    wanted |= {"text patches and cls", "number type", "pixel range", "golden features"}
    wanted |= {"bfloat16 drift", "float16 drift", *(f"batch {n}" for n in BATCHES)}
    assert found == wanted


def test_the_cheap_part_leaves_out_what_takes_long():
    found = {f.name for f in check_encoder(Sound(), cheap=True, reload=lambda kind: Sound()).findings}
    assert not found & {"odd sizes", "bfloat16 drift", "batch 1", "above chance"}
    assert "grid orientation" in found


def swap_grid(features, _images):
    return replace(features, patches=features.patches.transpose(1, 2))


def mirror(features, _images):
    return replace(features, patches=features.patches.flip(2))


def mix_rows(features, _images):
    return replace(features, patches=features.patches - features.patches.mean(0, keepdim=True))


def dropout(features, _images):
    return replace(features, patches=torch.nn.functional.dropout(features.patches, 0.5))


def lose_white(features, images):
    white = images.flatten(1).min(1).values > 0.999
    return replace(features, patches=features.patches.masked_fill(white[:, None, None, None], torch.nan))


def drop_text(features, _images):
    return replace(features, text_patches=None)


def token_list(features, _images):
    return replace(features, patches=features.patches.flatten(1, 2))


def constant(features, _images):
    return replace(features, patches=torch.ones_like(features.patches))


def one_layer(features, _images):
    return replace(features, layers=features.layers[:1])


def one_vector(features, _images):
    return replace(features, cls=torch.ones_like(features.cls))


def half(features, _images):
    return replace(features, patches=features.patches.half())


def on_layers(change):
    """`change` of the patches of each layer alone."""

    def changed(features, _images):
        return replace(
            features, layers=tuple(layer._replace(patches=change(layer.patches)) for layer in features.layers)
        )

    return changed


def on_text_patches(change):
    def changed(features, _images):
        found = features.text_patches
        return replace(features, text_patches=None if found is None else change(found))

    return changed


def reverse_layers(features, _images):
    return replace(features, layers=features.layers[::-1])


def last_layer_only(features, _images):
    return replace(features, layers=tuple(features.layers[-1] for _ in features.layers))


@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (swap_grid, "grid orientation"),
        (mirror, "grid orientation"),
        (mix_rows, "batch 1 = batch N"),
        (dropout, "deterministic"),
        (lose_white, "extreme images"),
        (drop_text, "text_patches"),
        (token_list, "patches"),
        (constant, "patches"),
        (one_layer, "layers"),
        (one_vector, "cls"),
        (half, "patches"),
        (reverse_layers, "layer order"),
        (last_layer_only, "layer order"),
        (on_layers(lambda patches: patches.transpose(1, 2)), "grid orientation"),
        (on_layers(lambda patches: torch.nn.functional.dropout(patches, 0.1)), "deterministic"),
        (on_layers(lambda patches: patches.flip(0)), "batch 1 = batch N"),
        (on_text_patches(lambda patches: patches.flip(1)), "grid orientation"),
        (on_text_patches(lambda patches: torch.nn.functional.dropout(patches, 0.1)), "deterministic"),
        (on_text_patches(lambda patches: patches.flip(0)), "batch 1 = batch N"),
    ],
)
def test_a_broken_image_side_is_caught_by_its_check(change, caught_by):
    torch.manual_seed(0)
    assert caught_by in names_of_failures(Wrapped(change), cheap=True)


def test_an_encoder_without_layers_is_told_what_its_card_must_say():
    findings = check_encoder(Wrapped(one_layer), cheap=True).findings
    (layers,) = [f for f in findings if f.name == "layers"]
    assert "depth=0" in layers.detail


def test_swapped_rows_and_columns_are_named():
    finding = ImageChecks(Wrapped(swap_grid), "cpu").orientation()
    assert "rows and columns are swapped" in finding.detail


class Tokens(SmallEncoder):
    """A block of random attention over [CLS, registers, patches]; the map starts at token `first`."""

    def __init__(self, side, registers=0, first=1, spread=0.5):
        super().__init__(image_size=8 * side, width=32)
        self.registers, self.first, self.spread = registers, first, spread
        generator = torch.Generator().manual_seed(1)
        self.place = torch.randn(1 + registers + side * side, self.width, generator=generator)  # [t, d]
        self.query, self.key = torch.randn(2, self.width, self.width, generator=generator) / self.width**0.5

    def encode_image(self, images, request=ImageRequest()):
        features = super().encode_image(images, request)
        patches = features.patches  # [b, h, w, d]
        tokens = torch.cat([patches.new_zeros(len(patches), 1 + self.registers, self.width), patches.flatten(1, 2)], 1)
        tokens = tokens + self.place
        weights = (tokens @ self.query) @ (tokens @ self.key).mT / self.width**0.5  # [b, t, t]
        tokens = tokens + self.spread * weights.softmax(-1) @ tokens
        kept = tokens[:, self.first :][:, : patches[0, ..., 0].numel()]
        return replace(features, patches=kept.unflatten(1, patches.shape[1:3]))


@pytest.mark.parametrize("side", [4, 6, 14])
@pytest.mark.parametrize(
    ("registers", "first", "reason"),
    [
        (0, 0, "shifted by one token: is CLS dropped"),
        (4, 4, "shifted by one token: is CLS dropped"),
        (4, 2, "shifted by 3 tokens: are CLS and registers dropped"),
    ],
)
def test_tokens_left_in_front_of_the_map_are_named(side, registers, first, reason):
    assert ImageChecks(Tokens(side, registers, 1 + registers), "cpu").orientation().ok
    finding = ImageChecks(Tokens(side, registers, first), "cpu").orientation()
    assert not finding.ok
    assert reason in finding.detail


@pytest.mark.parametrize(("shift", "reason"), [(1, "shifted by one token"), (-1, "shifted back by one token: are too")])
@pytest.mark.parametrize("image_size", [48, 112])
def test_a_map_rolled_by_one_token_is_named(image_size, shift, reason):
    def roll(features, _images):
        rolled = features.patches.flatten(1, 2).roll(shift, 1).view_as(features.patches)
        return replace(features, patches=rolled)

    finding = ImageChecks(Wrapped(roll, image_size), "cpu").orientation()
    assert not finding.ok
    assert reason in finding.detail


@pytest.mark.parametrize("image_size", [48, 112])
def test_a_spread_to_neighbours_is_no_shift(image_size):
    """A square may show beside its patch, on another side each time."""

    def smear(features, _images):
        grid = features.patches.permute(0, 3, 1, 2)  # [b, d, h, w]
        grid = torch.nn.functional.avg_pool2d(grid, 3, 1, 1, count_include_pad=False)
        return replace(features, patches=grid.permute(0, 2, 3, 1))

    assert ImageChecks(Wrapped(smear, image_size), "cpu").orientation().ok


@pytest.mark.parametrize("image_size", [48, 112])
@pytest.mark.parametrize("axis", [1, 2])
def test_a_lag_of_strided_convolutions_is_no_shift_of_tokens(image_size, axis):
    """Padded strided convolutions look up and left of each patch: squares show one further, but stay in the picture."""

    def lag(features, _images):
        grid = features.patches  # [b, h, w, d]
        before = torch.cat([grid.narrow(axis, 0, 1), grid.narrow(axis, 0, grid.shape[axis] - 1)], axis)
        return replace(features, patches=before + 0.5 * grid)

    assert ImageChecks(Wrapped(lag, image_size), "cpu").orientation().ok


@pytest.mark.parametrize(("axis", "words"), [(1, ("row down", "row up")), (2, ("column right", "column left"))])
@pytest.mark.parametrize("fill", ["wrapped", "repeated"])
@pytest.mark.parametrize("image_size", [48, 112])
def test_a_map_shifted_by_a_whole_row_or_column_is_named(image_size, fill, axis, words):
    for by, word in zip((1, -1), words):

        def shift(features, _images, by=by):
            grid = features.patches  # [b, h, w, d]
            if fill == "wrapped":
                return replace(features, patches=grid.roll(by, axis))
            places = (torch.arange(grid.shape[axis]) - by).clamp(0, grid.shape[axis] - 1)
            return replace(features, patches=grid.index_select(axis, places))

        finding = ImageChecks(Wrapped(shift, image_size), "cpu").orientation()
        assert not finding.ok
        assert f"shifted by one {word}" in finding.detail


def test_a_convolution_with_a_wide_and_lagging_field_is_no_shift():
    """Strided 3x3 convolutions, padded on all sides: each output lies at the upper left corner of its patch."""
    torch.manual_seed(0)
    widths = (3, 32, 32, 32, 32)
    layers = [torch.nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths)]
    net = torch.nn.Sequential(*(m for layer in layers for m in (layer, torch.nn.GELU())))

    class Convolutions(SmallEncoder):
        def encode_image(self, images, request=ImageRequest()):
            patches = net(images - 0.5).permute(0, 2, 3, 1)
            return ImageFeatures(patches.mean((1, 2))[:, None], patches)

    encoder = Convolutions(image_size=224, width=32)
    encoder.card = replace(encoder.card, patch_size=16, num_cls=1, depth=0, has_text=False, has_text_patches=False)
    checks = ImageChecks(encoder, "cpu")
    assert all(f.ok for f in [*checks.shapes(), checks.orientation(), checks.other_sizes()])


@pytest.mark.parametrize(
    ("scramble", "value"),
    [
        (lambda grid: grid.transpose(1, 2).reshape(grid.shape), "squares"),
        (lambda grid: grid.roll(1, 1), "squares"),
    ],
)
def test_a_map_that_is_right_in_squares_only_is_caught(scramble, value):
    def wide_only(features, _images):
        grid = features.patches
        return replace(features, patches=grid if grid.shape[1] == grid.shape[2] else scramble(grid))

    checks = ImageChecks(Wrapped(wide_only, 48), "cpu")
    assert checks.orientation().ok
    finding = checks.other_sizes()
    assert not finding.ok and value in finding.value


def test_a_table_kept_from_a_picture_of_another_size_is_caught():
    class Keeps(Sound):
        kept = 1.0

        def encode_image(self, images, request=ImageRequest()):
            if images.shape[2] != images.shape[3]:
                self.kept = 1.01
            features = super().encode_image(images, request)
            return replace(features, patches=features.patches * self.kept)

    finding = ImageChecks(Keeps(), "cpu").other_sizes()
    assert not finding.ok and "is a table of its size kept?" in finding.detail


def test_an_error_of_the_encoder_is_a_finding():
    def fail(_features, _images):
        raise RuntimeError("boom\nmore")

    report = check_encoder(Wrapped(fail))
    assert next((f.name, f.detail) for f in report.findings if not f.ok) == ("shapes", "RuntimeError: boom")
