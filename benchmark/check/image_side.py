"""Conformance of the image tower: shapes, finite values, determinism, batch invariance, grid orientation, odd sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from benchmark.check.arrays import array_findings, arrays, largest_gap, maps
from benchmark.check.findings import Finding, failed, passed
from benchmark.check.orientation import LEAST_SIDE, Squares, places_in, with_squares
from benchmark.contracts import Encoder, ImageFeatures, ImageRequest
from benchmark.errors import BenchError
from benchmark.system.plurals import number_of

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
    def everything(self) -> ImageRequest:
        """Every layer, the last one as -1, and patches in text space, where the card has them."""
        card = self.encoder.card
        layers = (*range(card.depth - 1), -1) if card.depth else ()
        return ImageRequest(layers, text_patches=card.has_text_patches)

    @property
    def unnormed(self) -> ImageRequest | None:
        """Every layer as its block leaves it; None where the card has none such."""
        card = self.encoder.card
        return replace(self.everything, final_norm=False) if card.has_raw_layers and card.depth else None

    @property
    def tolerance(self) -> float:
        return TOLERANCE.get(self.encoder.card.dtype, 1e-4)

    def shapes(self) -> list[Finding]:
        """Every array of the contract has its shape and holds numbers.

        The first and the last layer are findings of their own, those between them only where one is wrong.
        """
        card = self.encoder.card
        layers = self.everything.layers
        features = self.encode(self.native(2), self.everything)
        grid = (card.image_size // card.patch_size,) * 2
        cls_width = card.text_dim if card.has_text else card.embed_dim
        expected = {
            "cls": (features.cls, (2, card.num_cls, cls_width)),
            "patches": (features.patches, (2, *grid, card.embed_dim)),
        }
        if len(features.layers) != len(layers):
            asked = f"ImageRequest(layers={layers}) asks for {len(layers)}"
            why = f"{asked}, as the card says depth={card.depth}; depth=0: it gives none"
            return [failed("layers", number_of(len(features.layers), "layer"), why)]
        forms = {"layer": features.layers}
        if self.unnormed is not None:
            forms["raw layer"] = self.encode(self.native(2), self.unnormed).layers
            if len(forms["raw layer"]) != len(layers):
                value = number_of(len(forms["raw layer"]), "layer")
                return [failed("raw layers", value, "the card says has_raw_layers: final_norm=False asks")]
        for form, found in forms.items():
            for number, layer in zip(layers, found):
                expected[f"{form} {number}"] = (layer.patches, (2, *grid, card.embed_dim))
                expected[f"cls of {form} {number}"] = (layer.cls, (2, card.num_cls, card.embed_dim))
        if card.has_text_patches:
            if features.text_patches is None:
                return [failed("text_patches", "None", "the card says has_text_patches, encode_image returns none")]
            expected["text_patches"] = (features.text_patches, (2, *grid, card.text_dim))
        ends = {name for name in expected if "layer" not in name}
        ends |= {f"{form} {number}" for form in forms for number in (*layers[:1], *layers[-1:])}
        findings = [
            finding
            for name, (array, shape) in expected.items()
            for finding in array_findings(name, array, shape, card.dtype)
            if name in ends or not finding.ok
        ]
        if layers and all(finding.ok for finding in findings):
            findings.append(passed("layers", f"{len(layers)}, each with its cls: {' and '.join(forms)}"))
        return findings

    def extremes(self) -> Finding:
        """Black, white and noise give numbers."""
        side = self.encoder.card.image_size
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(3)).to(self.device)
        images = torch.cat([torch.zeros_like(noise), torch.ones_like(noise), noise])
        found = arrays(self.encode(images, self.everything))
        for row, name in enumerate(("black", "white", "noise")):
            bad = next((part for part, array in found.items() if not torch.isfinite(array[row]).all()), None)
            if bad is not None:
                why = f"a {name} image gives NaN or infinity in {bad}; an overflow in float16?"
                return failed("extreme images", name, why)
        return passed("extreme images", "black, white, noise")

    def deterministic(self) -> Finding:
        """The same images twice give the same features."""
        images = self.native(2)
        gap = largest_gap(self.encode(images, self.everything), self.encode(images, self.everything))
        if not gap <= self.tolerance:
            return failed("deterministic", f"{gap:.1e}", "two calls differ: is the model in eval mode (dropout)?")
        return passed("deterministic", f"{gap:.1e}")

    def batch_invariant(self) -> Finding:
        """An image alone gives what it gives in a batch of four, where it is neither first, last nor in the middle."""
        images = self.native(4)
        together, alone = self.encode(images, self.everything), self.encode(images[1:2], self.everything)
        gap = largest_gap(together, alone, row=1)
        if not gap <= self.tolerance:
            why = "features depend on the other images of the batch: batch norm in training mode, or a mix-up of rows?"
            return failed("batch 1 = batch N", f"{gap:.1e}", why)
        return passed("batch 1 = batch N", f"{gap:.1e}")

    def orientation(self) -> Finding:
        """A bright square of one patch moves the features of the patch it lies in, at four off-centre places.

        Every layer, with the final norm and without, and patches in text space are judged as well, by a mix-up that the
        squares show: they may spread further.
        """
        side = self.encoder.card.image_size
        return self.squares("grid orientation", side, side)

    def squares(self, name: str, height: int, width: int) -> Finding:
        """Orientation of every map that pictures of height x width pixels give."""
        card = self.encoder.card
        plain = self.images(1, height, width, seed=5) * 0.3
        before = self.encode(plain, self.everything)
        rows, columns = before.patches.shape[1:3]
        if min(rows, columns) < LEAST_SIDE:
            return passed(name, f"not measurable on a {rows}x{columns} grid")
        places = places_in(rows, columns)
        squares = with_squares(plain, card.patch_size, places)
        after = self.encode(squares, self.everything)
        seen = Squares(before.patches, after.patches, places)
        reason = seen.mix_up()
        if reason or not seen.enough:
            where = "" if seen.enough else f"{seen.first_miss()}: "
            return failed(name, seen.share, where + (reason or "check the token order and how many come first"))
        pairs = {part: (array, maps(after)[part]) for part, array in maps(before).items() if part != "patches"}
        if self.unnormed is not None:
            raw = (self.encode(images, self.unnormed).layers for images in (plain, squares))
            pairs |= {f"raw layer {i}": (one.patches, two.patches) for i, (one, two) in enumerate(zip(*raw))}
        for part, (one, two) in pairs.items():
            if reason := Squares(one, two, places).mix_up():
                return failed(name, part, f"{part}: {reason}")
        return passed(name, seen.share)

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

    def other_sizes(self) -> Finding:
        """Pictures that are wider than high keep their rows and columns, and leave no trace in the pictures after."""
        card = self.encoder.card
        width = card.image_size + 2 * card.patch_size
        before = self.encode(self.native(1), self.everything)
        try:
            found = self.squares("other sizes", card.image_size, width)
        except BenchError as error:
            return passed("other sizes", f"refused: {error}")
        gap = largest_gap(self.encode(self.native(1), self.everything), before)
        if found.ok and not gap <= self.tolerance:
            why = f"features differ after a picture {width} px wide: is a table of its size kept?"
            return failed("other sizes", f"{gap:.1e}", why)
        return found
