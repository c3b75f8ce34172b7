"""Conformance of the image tower: shapes, finite values, determinism, batch invariance, grid orientation, odd sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from benchmark.check.findings import Finding, failed, passed
from benchmark.contracts import Encoder, ImageFeatures, ImageRequest
from benchmark.errors import BenchError

# Largest relative difference between two computations of the same features, by the type the encoder computes in.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class ImageChecks:
    """Checks that share an encoder and a device."""

    encoder: Encoder
    device: str

    def images(self, count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
        """[count, 3, height, width] smooth random pictures in [0, 1], the same on every machine."""
        coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        return F.interpolate(coarse, (height, width), mode="bilinear").to(self.device)

    def native(self, count: int, seed: int = 0) -> torch.Tensor:
        return self.images(count, self.encoder.card.image_size, self.encoder.card.image_size, seed)

    @torch.inference_mode()
    def encode(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        return self.encoder.encode_image(images, request)

    @property
    def tolerance(self) -> float:
        return TOLERANCE.get(self.encoder.card.dtype, 1e-4)

    def shapes(self) -> list[Finding]:
        """Every array of the contract has its shape and holds numbers."""
        card = self.encoder.card
        layers = (0, -1) if card.depth else ()
        features = self.encode(self.native(2), ImageRequest(layers=layers, text_patches=card.has_text_patches))
        grid = (card.image_size // card.patch_size,) * 2
        cls_width = card.text_dim if card.has_text else card.embed_dim
        expected = {
            "cls": (features.cls, (2, card.num_cls, cls_width)),
            "patches": (features.patches, (2, *grid, card.embed_dim)),
        }
        if len(features.layers) != len(layers):
            why = (
                f"ImageRequest(layers={layers}) asks for 2, as the card says depth={card.depth}; depth=0: it gives none"
            )
            return [failed("layers", f"{len(features.layers)} layers", why)]
        for number, layer in zip(layers, features.layers):
            expected[f"layer {number}"] = (layer.patches, (2, *grid, card.embed_dim))
        if card.has_raw_layers:
            raw = self.encode(self.native(2), ImageRequest(layers=layers, final_norm=False)).layers
            if len(raw) != len(layers):
                return [
                    failed("raw layers", f"{len(raw)} layers", "the card says has_raw_layers: final_norm=False asks")
                ]
            for number, layer in zip(layers, raw):
                expected[f"raw layer {number}"] = (layer.patches, (2, *grid, card.embed_dim))
        if card.has_text_patches:
            if features.text_patches is None:
                return [failed("text_patches", "None", "the card says has_text_patches, encode_image returns none")]
            expected["text_patches"] = (features.text_patches, (2, *grid, card.text_dim))
        return [finding for name, (array, shape) in expected.items() for finding in array_findings(name, array, shape)]

    def extremes(self) -> Finding:
        """Black, white and noise give numbers."""
        side = self.encoder.card.image_size
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(3)).to(self.device)
        images = torch.cat([torch.zeros_like(noise), torch.ones_like(noise), noise])
        features = self.encode(images)
        for name, row in zip(("black", "white", "noise"), range(3)):
            if not (torch.isfinite(features.patches[row]).all() and torch.isfinite(features.cls[row]).all()):
                return failed("extreme images", name, f"a {name} image gives NaN or infinity; an overflow in float16?")
        return passed("extreme images", "black, white, noise")

    def deterministic(self) -> Finding:
        """The same images twice give the same features."""
        images = self.native(2)
        gap = largest_gap(self.encode(images), self.encode(images))
        if gap > self.tolerance:
            return failed("deterministic", f"{gap:.1e}", "two calls differ: is the model in eval mode (dropout)?")
        return passed("deterministic", f"{gap:.1e}")

    def batch_invariant(self) -> Finding:
        """An image alone gives what it gives in a batch of three."""
        images = self.native(3)
        together, alone = self.encode(images), self.encode(images[1:2])
        gap = largest_gap(ImageFeatures(together.cls[1:2], together.patches[1:2]), alone)
        if not gap <= self.tolerance:
            why = "features depend on the other images of the batch: batch norm in training mode, or a mix-up of rows?"
            return failed("batch 1 = batch N", f"{gap:.1e}", why)
        return passed("batch 1 = batch N", f"{gap:.1e}")

    def orientation(self) -> Finding:
        """A bright square of one patch moves the features of the patch it lies in, at four off-centre places."""
        card = self.encoder.card
        plain = self.native(1, seed=5) * 0.3
        rows, columns = self.encode(plain).patches.shape[1:3]
        if min(rows, columns) < 3:
            return passed("grid orientation", f"not measurable on a {rows}x{columns} grid")
        places = [(0, columns - 1), (rows - 1, 0), (rows // 3, columns - 2), (rows - 2, columns // 3)]
        batch = plain.repeat(len(places), 1, 1, 1)
        for image, (row, column) in zip(batch, places):
            top, left = row * card.patch_size, column * card.patch_size
            image[:, top : top + card.patch_size, left : left + card.patch_size] = 1.0
        before, after = self.encode(plain).patches, self.encode(batch).patches
        change = 1 - F.cosine_similarity(before.float(), after.float(), dim=-1)  # [4, h, w]
        found = [divmod(int(c.flatten().argmax()), columns) for c in change]
        reach = 1 if min(rows, columns) >= 6 else 0  # convolutions spread a little
        hits = [max(abs(r - R), abs(c - C)) <= reach for (r, c), (R, C) in zip(found, places)]
        share = f"{sum(hits)} of {len(places)} squares"
        # One token too many in front moves most squares by one patch, within reach: asked first.
        if offset := token_offset(found, places, columns):
            return failed("grid orientation", share, shift_reason(offset))
        if sum(hits) >= len(places) - 1:
            return passed("grid orientation", share)
        mirrored = sum((c, r) == place for (r, c), place in zip(found, places)) >= 2
        why = "rows and columns are swapped" if mirrored else "check the token order and how many come first"
        wrong = hits.index(False)
        why = f"a square in patch {places[wrong]} shows in patch {found[wrong]}: {why}"
        return failed("grid orientation", share, why)

    def odd_sizes(self) -> Finding:
        """Sizes that are no whole patches, wider than high: features, or one clear line."""
        card = self.encoder.card
        height, width = card.image_size - 3, card.image_size + card.patch_size // 2 + 1
        try:
            shape = self.encode(self.images(1, height, width)).patches.shape
        except BenchError as error:
            return passed("odd sizes", f"refused: {error}")
        except Exception as error:
            why = f"{height}x{width} pixels raise {type(error).__name__}; pad to whole patches or raise an EncoderError"
            return failed("odd sizes", "error", why)
        low = (height // card.patch_size, width // card.patch_size)
        high = (-(-height // card.patch_size), -(-width // card.patch_size))
        if not (low[0] <= shape[1] <= high[0] and low[1] <= shape[2] <= high[1]):
            why = f"{height}x{width} pixels give a {shape[1]}x{shape[2]} grid, expected {high[0]}x{high[1]}"
            return failed("odd sizes", f"{shape[1]}x{shape[2]}", why)
        return passed("odd sizes", f"{height}x{width} px -> {shape[1]}x{shape[2]}")


def array_findings(name: str, array: torch.Tensor, shape: Sequence[int]) -> list[Finding]:
    if tuple(array.shape) != tuple(shape):
        why = "check embed_dim, patch_size, num_cls and text_dim of the card"
        return [failed(name, str(list(array.shape)), f"expected {list(shape)}; {why}")]
    if not torch.isfinite(array).all():
        return [failed(name, "not finite", "NaN or infinity in the features")]
    spread = array.float().flatten(0, -2).std(dim=0).max().item()
    if name != "cls" and spread == 0:
        return [failed(name, "constant", "every patch has the same features")]
    return [passed(name, f"{list(array.shape)}, |x| ≤ {array.abs().max().item():.3g}")]


def token_offset(found: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]], columns: int) -> int:
    """Tokens, in reading order, by which all squares but one at most are found too late (negative: too early), or 0.

    Strided convolutions may show every square one patch further right or down. Only a shift of tokens also carries one
    over the end of its row, to a patch that is no neighbour.
    """
    moves = [(r - R, c - C) for (r, c), (R, C) in zip(found, places)]
    offsets = [down * columns + right for down, right in moves]
    offset = max(offsets, key=offsets.count)
    far = any(max(abs(down), abs(right)) > 1 for (down, right), o in zip(moves, offsets) if o == offset)
    return offset if far and offsets.count(offset) >= len(places) - 1 else 0


def shift_reason(offset: int) -> str:
    """What is wrong with a map shifted by `offset` tokens, and the likely remedy."""
    tokens = "one token" if abs(offset) == 1 else f"{abs(offset)} tokens"
    if offset < 0:
        return f"the map is shifted back by {tokens}: are too many dropped from the front?"
    first = "is CLS" if offset == 1 else "are CLS and registers"
    return f"the map is shifted by {tokens}: {first} dropped from the front?"


def largest_gap(a: ImageFeatures, b: ImageFeatures) -> float:
    """Largest difference of CLS or patches, relative to the largest value."""
    gaps = []
    for x, y in ((a.cls, b.cls), (a.patches, b.patches)):
        scale = y.abs().max().clamp_min(1e-12)
        gaps.append(((x - y).abs().max() / scale).item())
    return max(gaps)
