"""Adapters as they are written wrongly: each is a right encoder with one fault."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import torch
from torch.nn.functional import dropout, interpolate

from benchmark.contracts import ImageFeatures, ImageRequest, LayerFeatures

FORWARD = Callable[[torch.Tensor, ImageRequest], ImageFeatures]


class Wrong:
    """`base` with another `image(forward, images, request, depth)`, or with other pixels."""

    def __init__(self, base: Any, image: Any = None, pixels: Any = None) -> None:
        self.base, self.image, self.pixels = base, image, pixels
        self.card, self.transform = base.card, base.transform
        for name in ("tokenizer", "tokenize"):
            if hasattr(base, name):
                setattr(self, name, getattr(base, name))

    def forward(self, images: torch.Tensor, request: ImageRequest) -> ImageFeatures:
        """The right encoder's answer; it is asked once for each picture, as most faults show themselves on the same."""
        images = images if self.pixels is None else self.pixels(images)
        key = sha256(images.contiguous().numpy().tobytes()).digest(), images.shape, request
        known = self.base.__dict__.setdefault("answers", {})
        if key not in known:
            known[key] = self.base.encode_image(images, request)
        return copy.deepcopy(known[key])

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        if self.image is None:
            return self.forward(images, request)
        return self.image(self.forward, images, request, self.card.depth)

    def encode_text(self, texts: Any) -> torch.Tensor:
        return self.base.encode_text(texts)


def on_features(change: Callable[[ImageFeatures], ImageFeatures]) -> Any:
    return lambda forward, images, request, depth: change(forward(images, request))


def on_maps(change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`change` of every map [B, h, w, D]."""

    def changed(features: ImageFeatures) -> ImageFeatures:
        layers = tuple(layer._replace(patches=change(layer.patches)) for layer in features.layers)
        text = None if features.text_patches is None else change(features.text_patches)
        return replace(features, patches=change(features.patches), layers=layers, text_patches=text)

    return on_features(changed)


def raw(forward: FORWARD, images: torch.Tensor, layers: tuple[int, ...]) -> tuple[LayerFeatures, ...]:
    return forward(images, ImageRequest(layers, final_norm=False)).layers


def layers_without_norm(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
    return replace(forward(images, request), layers=raw(forward, images, request.layers))


def early_layers_without_norm(forward: FORWARD, images: torch.Tensor, request: ImageRequest, d: int) -> ImageFeatures:
    """All but the last one."""
    found = forward(images, request)
    bare = raw(forward, images, request.layers)
    layers = (n if i % d == d - 1 else r for i, n, r in zip(request.layers, found.layers, bare))
    return replace(found, layers=tuple(layers))


def moved(by: int) -> Any:
    """Layer n + `by`, as far as there is one."""

    def off(forward: FORWARD, images: torch.Tensor, request: ImageRequest, depth: int) -> ImageFeatures:
        numbers = tuple(min(max(n % depth + by, 0), depth - 1) for n in request.layers)
        return forward(images, replace(request, layers=numbers))

    return off


def backwards(forward: FORWARD, images: torch.Tensor, request: ImageRequest, depth: int) -> ImageFeatures:
    return forward(images, replace(request, layers=tuple(depth - 1 - n % depth for n in request.layers)))


def reversed_layers(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
    found = forward(images, request)
    return replace(found, layers=found.layers[::-1])


def patches_without_norm(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
    return replace(forward(images, request), patches=raw(forward, images, (-1,))[0].patches)


def earlier_patches(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
    earlier = forward(images, ImageRequest((-2,))).layers[0].patches
    return replace(forward(images, request), patches=earlier)


def whole_without_norm(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
    last = raw(forward, images, (-1,))[0]
    found = forward(images, request)
    cls = last.cls if last.cls.shape == found.cls.shape else found.cls
    return replace(found, cls=cls, patches=last.patches, layers=raw(forward, images, request.layers))


def cls_without_norm(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
    return replace(forward(images, request), cls=raw(forward, images, (-1,))[0].cls)


def vectors(features: ImageFeatures) -> torch.Tensor:
    """The map that CLS has the width of."""
    same = features.patches.shape[-1] == features.cls.shape[-1]
    assert same or features.text_patches is not None
    return features.patches if same else features.text_patches  # type: ignore[return-value]


def from_patches(choose: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """CLS [B, K, E] chosen from the map [B, h, w, E]."""

    def changed(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
        found = forward(images, request)
        whole = forward(images, ImageRequest(text_patches=True))
        return replace(found, cls=choose(vectors(whole))[:, None].expand_as(found.cls))

    return changed


def rounded(dtype: torch.dtype) -> Any:
    def changed(features: ImageFeatures) -> ImageFeatures:
        def low(x: torch.Tensor) -> torch.Tensor:
            return x.to(dtype).float()

        layers = tuple(LayerFeatures(*map(low, layer)) for layer in features.layers)
        text = None if features.text_patches is None else low(features.text_patches)
        return ImageFeatures(low(features.cls), low(features.patches), layers, text)

    return on_features(changed)


def negated_text(features: ImageFeatures) -> ImageFeatures:
    found = features.text_patches
    return replace(features, text_patches=None if found is None else -found)


def squeezed(side: int, mode: str = "bicubic", back: bool = False) -> Any:
    """Every picture as a square; the map as it comes, or laid `back` on the picture."""

    def changed(forward: FORWARD, images: torch.Tensor, request: ImageRequest, _: int) -> ImageFeatures:
        height, width = images.shape[-2:]
        small = images if height == width == side else interpolate(images, (side, side), mode=mode)
        found = forward(small, request)
        rows, columns = (found.patches.shape[1] * n // side for n in (height, width))

        def laid(grid: torch.Tensor) -> torch.Tensor:
            grid = interpolate(grid.permute(0, 3, 1, 2), (rows, columns), mode="bilinear")
            return grid.permute(0, 2, 3, 1)

        if not back or height == width:
            return found
        layers = tuple(layer._replace(patches=laid(layer.patches)) for layer in found.layers)
        text = None if found.text_patches is None else laid(found.text_patches)
        return ImageFeatures(found.cls, laid(found.patches), layers, text)

    return changed


def affine(mean: Any, std: Any) -> Any:
    m, s = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return lambda x: (x - m) / s


def unaffine(mean: Any, std: Any) -> Any:
    """What undoes the encoder's own mean and std."""
    m, s = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return lambda x: x * s + m


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def no_normalisation(base: Any) -> Wrong:
    """The pixels as they come; where the model has no mean and std, it gets ImageNet's undone."""
    own = base.transform.mean, base.transform.std
    return Wrong(base, pixels=unaffine(*(own if any(own[0]) else IMAGENET)))


def other_normalisation(base: Any) -> Wrong:
    own = base.transform.mean, base.transform.std
    again = affine(*IMAGENET) if not any(own[0]) else lambda x: unaffine(*own)(affine((0.2,) * 3, (0.5,) * 3)(x))
    return Wrong(base, pixels=again)


class UpperPieces:
    """A sentencepiece model that reads capitals."""

    def __init__(self, pieces: Any) -> None:
        self.pieces = pieces

    def encode(self, text: str) -> list[int]:
        return self.pieces.encode(text.upper())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pieces, name)


def upper_cased(base: Any) -> Any:
    """Texts in capitals where the model was trained on small letters."""
    wrong = copy.copy(base)
    name = next((n for n in ("tokenizer", "tokenize") if hasattr(getattr(base, n, None), "pieces")), None)
    if name is None:
        wrong.encode_text = lambda texts: base.encode_text([text.upper() for text in texts])
        return wrong
    tokenizer = copy.copy(getattr(base, name))
    tokenizer.pieces = UpperPieces(tokenizer.pieces)
    setattr(wrong, name, tokenizer)
    return wrong


def shift(grid: torch.Tensor) -> torch.Tensor:
    return grid.flatten(1, 2).roll(1, 1).view_as(grid)


# 20 of the table (the last is of --dtype), and others of the same kinds.
WRONG: dict[str, Callable[[Any], Wrong]] = {
    "layers without final norm": lambda b: Wrong(b, layers_without_norm),
    "layers off by one": lambda b: Wrong(b, moved(-1)),
    "patches without final norm": lambda b: Wrong(b, patches_without_norm),
    "patches of an earlier block": lambda b: Wrong(b, earlier_patches),
    "whole output without final norm": lambda b: Wrong(b, whole_without_norm),
    "patch 0 as CLS": lambda b: Wrong(b, from_patches(lambda grid: grid[:, 0, 0])),
    "bfloat16 under a float32 card": lambda b: Wrong(b, rounded(torch.bfloat16)),
    "negated text patches": lambda b: Wrong(b, on_features(negated_text)),
    "upper-cased text": upper_cased,
    "no mean and std": no_normalisation,
    "wrong mean and std": other_normalisation,
    "BGR": lambda b: Wrong(b, pixels=lambda x: x.flip(1)),
    "times 255": lambda b: Wrong(b, pixels=lambda x: x * 255),
    "mean of patches as CLS": lambda b: Wrong(b, from_patches(lambda grid: grid.mean((1, 2)))),
    "squeezed to a square": lambda b: Wrong(b, squeezed(b.card.image_size)),
    "transposed map": lambda b: Wrong(b, on_maps(lambda grid: grid.transpose(1, 2))),
    "shift by a token": lambda b: Wrong(b, on_maps(shift)),
    "dropout on": lambda b: Wrong(b, on_maps(lambda grid: dropout(grid, 0.1))),
    "reversed layers": lambda b: Wrong(b, reversed_layers),
    "CLS that depends on the batch": lambda b: Wrong(b, on_features(lambda f: replace(f, cls=f.cls - f.cls.mean(0)))),
    "early layers without final norm": lambda b: Wrong(b, early_layers_without_norm),
    "layers off by one, the last right": lambda b: Wrong(b, moved(1)),
    "layers from the end": lambda b: Wrong(b, backwards),
    "CLS without final norm": lambda b: Wrong(b, cls_without_norm),
    "last patch as CLS": lambda b: Wrong(b, from_patches(lambda grid: grid[:, -1, -1])),
    "float16 under a float32 card": lambda b: Wrong(b, rounded(torch.float16)),
    "squeezed, the map laid back": lambda b: Wrong(b, squeezed(b.card.image_size, back=True)),
    "negated CLS": lambda b: Wrong(b, on_features(lambda f: replace(f, cls=-f.cls))),
}
