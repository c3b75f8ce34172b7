"""bench check sees what is wrong with the layers between the first and the last, and with the CLS of any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small import SmallEncoder

from adapters.patches import center_pad
from benchmark.check import check_encoder
from benchmark.contracts import ImageRequest, LayerFeatures


class Deep(SmallEncoder):
    """Twelve layers with and without a final norm; `change` is applied to those of `wrong`, in the forms of `norms`."""

    def __init__(self, change=lambda layer: layer, wrong=range(1, 11), norms=(True, False)):
        super().__init__()
        self.card = replace(self.card, depth=12, has_raw_layers=True)
        self.change, self.wrong, self.norms = change, wrong, norms

    def encode_image(self, images, request=ImageRequest()):
        found = super().encode_image(center_pad(images, 8), request)
        steps = torch.randn(12, self.width, generator=torch.Generator().manual_seed(2))

        def layer(number, final_norm=True):
            made = LayerFeatures(found.cls + steps[number], found.patches + steps[number])
            made = (
                LayerFeatures(*(torch.nn.functional.layer_norm(x, [self.width]) for x in made)) if final_norm else made
            )
            return self.change(made) if number % 12 in self.wrong and final_norm in self.norms else made

        layers = tuple(layer(number, request.final_norm) for number in request.layers)
        return replace(found, **layer(-1)._asdict(), layers=layers)


def normed_again(layer):
    return LayerFeatures(*(torch.nn.functional.layer_norm(x, [x.shape[-1]]) for x in layer))


def on_patches(change):
    return lambda layer: layer._replace(patches=change(layer.patches))


def on_cls(change):
    return lambda layer: layer._replace(cls=change(layer.cls))


def test_a_sound_encoder_of_twelve_layers_passes():
    report = check_encoder(Deep())
    assert report.ok, [f for f in report.findings if not f.ok]
    assert next(f.value for f in report.findings if f.name == "layers") == "12, each with its cls: layer and raw layer"


@pytest.mark.parametrize("norms", [(True,), (False,)])
@pytest.mark.parametrize("wrong", [range(1, 11), (2, 5, 8), (9,)])
@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (on_patches(lambda x: x.transpose(1, 2)), "grid orientation"),
        (on_patches(lambda x: x.flip(2)), "grid orientation"),
        (on_patches(lambda x: x * torch.nan), "layer {}"),
        (on_patches(lambda x: x.flatten(1, 2)), "layer {}"),
        (on_patches(lambda x: x.bfloat16().float()), "layer {}"),
        (on_cls(lambda x: x[:, 0]), "cls of layer {}"),
        (on_cls(lambda x: x[:, :1]), "cls of layer {}"),
        (on_cls(lambda x: x * torch.nan), "cls of layer {}"),
        (on_cls(lambda x: x * 0), "cls of layer {}"),
        (lambda layer: LayerFeatures(layer.patches[:, 0, :2], layer.patches), "pooled vector"),
    ],
)
def test_a_fault_of_middle_layers_alone_is_caught(change, caught_by, wrong, norms):
    form = caught_by if norms == (True,) else caught_by.replace("layer", "raw layer")
    assert form.format(wrong[0]) in {
        f.name for f in check_encoder(Deep(change, wrong, norms), cheap=True).findings if not f.ok
    }


@pytest.mark.parametrize("wrong", [range(1, 11), (9,)])
def test_middle_layers_that_are_normed_although_asked_for_without_are_named(wrong):
    findings = check_encoder(Deep(normed_again, wrong, (False,)), cheap=True).findings
    (finding,) = [f for f in findings if f.name == "final norm"]
    assert not finding.ok and f"layer {wrong[0]} is the same" in finding.detail


class Lazy(Deep):
    """Every layer gets the main cls."""

    def encode_image(self, images, request=ImageRequest()):
        found = super().encode_image(images, request)
        return replace(found, layers=tuple(layer._replace(cls=found.cls) for layer in found.layers))


class RawBackwards(Deep):
    def encode_image(self, images, request=ImageRequest()):
        found = super().encode_image(images, request)
        return found if request.final_norm else replace(found, layers=found.layers[::-1])


@pytest.mark.parametrize(
    ("encoder", "words"), [(Lazy, "cls of layers 0 and 1 is the same"), (RawBackwards, "raw layers=(-1, 0) must be")]
)
def test_layers_with_one_cls_and_raw_layers_in_another_order_are_named(encoder, words):
    (finding,) = [f for f in check_encoder(encoder(), cheap=True).findings if f.name == "layer order"]
    assert not finding.ok and words in finding.detail


def test_nan_of_a_middle_layer_for_a_white_picture_is_named():
    class Bright(Deep):
        def encode_image(self, images, request=ImageRequest()):
            found = super().encode_image(images, request)
            white = images.flatten(1).min(1).values > 0.999
            lost = [layer.patches.masked_fill(white[:, None, None, None], torch.nan) for layer in found.layers]
            layers = tuple(
                layer._replace(patches=x) if n % 12 == 5 else layer
                for n, layer, x in zip(request.layers, found.layers, lost)
            )
            return replace(found, layers=layers)

    (finding,) = [f for f in check_encoder(Bright(), cheap=True).findings if f.name == "extreme images"]
    assert not finding.ok and finding.value == "white" and "in layer 5" in finding.detail
