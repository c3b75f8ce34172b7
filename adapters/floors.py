"""Floors for every table: what a row scores without any training.

`pixels` knows the colour and the place of each patch. `random-vit` is an untrained ViT with an untrained text tower,
so that its image-text rows show chance. Its weights are drawn as integers, so they are the same on every machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from adapters.patches import center_pad, resolve_layers
from adapters.placement import pick_device
from benchmark.contracts import (
    EncoderCard,
    ImageFeatures,
    ImageRequest,
    ImageTransform,
    LayerFeatures,
    ModelSpec,
    WeightsInfo,
)
from benchmark.errors import UsageError
from benchmark.registry import code_versions
from benchmark.system.digest import fingerprint

IMAGE_SIZE = 96
PATCH = 8
TRANSFORM = ImageTransform("square", IMAGE_SIZE, interpolation="bicubic")


class Pixels:
    """Patch tokens: mean RGB, RGB deviation, x and y of the patch in [-1, 1]. CLS: the same of the whole image,
    with the brightness-weighted centre as its place."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.transform = TRANSFORM
        weights = WeightsInfo("no weights", fingerprint({"floor": "pixels", "version": 1}))
        self.card = EncoderCard(
            name="pixels", family="floors", backend="torch", embed_dim=8, patch_size=PATCH, image_size=IMAGE_SIZE,
            depth=1, num_cls=1, has_text=False, weights=weights, licence="Apache-2.0",
            code_version=code_versions()[__name__], has_raw_layers=True,
        )  # fmt: skip

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        layers = resolve_layers(request.layers, self.card.depth, self.card.name)
        images = center_pad(images.to(self.device, torch.float32), PATCH)  # [B, 3, H, W]
        mean = F.avg_pool2d(images, PATCH)  # [B, 3, h, w]
        deviation = (F.avg_pool2d(images.square(), PATCH) - mean.square()).clamp_min(0).sqrt()
        batch, _, height, width = mean.shape
        y = (2 * torch.arange(height, device=self.device) + 1) / height - 1
        x = (2 * torch.arange(width, device=self.device) + 1) / width - 1
        place = torch.stack(torch.meshgrid(x, y, indexing="xy")).expand(batch, 2, height, width)
        patches = torch.cat([mean, deviation, place], dim=1).permute(0, 2, 3, 1)  # [B, h, w, 8]
        light = mean.mean(dim=1, keepdim=True) + 1e-6  # [B, 1, h, w]
        centre = (place * light).sum(dim=(2, 3)) / light.sum(dim=(2, 3))  # [B, 2]
        whole = torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3), correction=0), centre], dim=1)
        cls = whole[:, None]  # [B, 1, 8]
        return ImageFeatures(cls, patches, tuple(LayerFeatures(cls, patches) for _ in layers))


class RandomViT:
    """A pre-norm ViT with fixed random weights; text is a bag of byte trigrams through a random net."""

    width, depth, heads, ratio, buckets, seed = 128, 4, 2, 2, 4096, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.transform = TRANSFORM
        recipe = {"floor": "random-vit", "version": 1, "width": self.width, "depth": self.depth, "heads": self.heads,
                  "ratio": self.ratio, "buckets": self.buckets, "patch": PATCH, "seed": self.seed}  # fmt: skip
        self.image, self.text = self.draw_weights()
        params = sum(w.numel() for w in (*self.image.values(), *self.text.values()))
        self.card = EncoderCard(
            name="random-vit", family="floors", backend="torch", embed_dim=self.width, patch_size=PATCH,
            image_size=IMAGE_SIZE, depth=self.depth, num_cls=1, has_text=True, text_dim=self.width, params=params,
            has_text_patches=True, has_raw_layers=True, licence="Apache-2.0",
            weights=WeightsInfo(f"random seed {self.seed}", fingerprint(recipe)),
            code_version=code_versions()[__name__],
        )  # fmt: skip

    def draw_weights(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        d, hidden = self.width, self.width * self.ratio
        shapes = {"embed": (d, 3 * PATCH * PATCH), "cls": (d, 1)}
        for block in range(self.depth):
            shapes |= {
                f"{block}.qkv": (3 * d, d),
                f"{block}.out": (d, d),
                f"{block}.up": (hidden, d),
                f"{block}.down": (d, hidden),
            }
        text_shapes = {"embed": (self.buckets, d), "up": (hidden, d), "down": (d, hidden)}
        generator = np.random.Generator(np.random.Philox(self.seed))

        def draw(shape: tuple[int, int], fan_in: int) -> torch.Tensor:
            whole = generator.integers(-(2**15), 2**15, size=shape, dtype=np.int16)
            return torch.from_numpy(whole.astype(np.float32) * np.float32((3 / fan_in) ** 0.5 / 2**15)).to(self.device)

        image = {name: draw(shape, shape[1]) for name, shape in shapes.items()}
        text = {name: draw(shape, 1 if name == "embed" else shape[1]) for name, shape in text_shapes.items()}
        return image, text

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        wanted = resolve_layers(request.layers, self.depth, self.card.name)
        images = center_pad(images.to(self.device, torch.float32) * 2 - 1, PATCH)
        kernel = self.image["embed"].view(self.width, 3, PATCH, PATCH)
        grid = F.conv2d(images, kernel, stride=PATCH)  # [B, D, h, w]
        batch, _, height, width = grid.shape
        grid = grid + positions(height, width, self.width).to(self.device)
        cls = self.image["cls"].view(1, 1, self.width).expand(batch, 1, self.width)
        x = torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1)  # [B, 1+h*w, D]

        def split(tokens: torch.Tensor, norm: bool = True) -> LayerFeatures:
            tokens = F.layer_norm(tokens, (self.width,)) if norm else tokens
            return LayerFeatures(tokens[:, :1], tokens[:, 1:].reshape(batch, height, width, self.width))

        blocks = {}
        for block in range(self.depth):
            x = self.block(x, block)
            if block in wanted:
                blocks[block] = split(x, request.final_norm)
        last = split(x)
        layers = tuple(blocks[block] for block in wanted)
        return ImageFeatures(last.cls, last.patches, layers, last.patches if request.text_patches else None)

    def block(self, x: torch.Tensor, number: int) -> torch.Tensor:
        batch, tokens, width = x.shape
        weight = self.image
        qkv = F.linear(F.layer_norm(x, (width,)), weight[f"{number}.qkv"])
        q, k, v = qkv.view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + F.linear(mixed, weight[f"{number}.out"])
        return x + F.linear(
            F.gelu(F.linear(F.layer_norm(x, (width,)), weight[f"{number}.up"])), weight[f"{number}.down"]
        )

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, 128] float32, L2-normalised."""
        bags = torch.stack([self.bag(text) for text in texts]) if len(texts) else torch.zeros(0, self.width)
        hidden = F.gelu(F.linear(F.layer_norm(bags.to(self.device), (self.width,)), self.text["up"]))
        return F.normalize(F.linear(hidden, self.text["down"]), dim=-1)

    def bag(self, text: str) -> torch.Tensor:
        data = b"\x02\x02" + text.encode("utf-8", "surrogatepass") + b"\x03"
        ids = [zlib.crc32(data[i : i + 3]) % self.buckets for i in range(len(data) - 2)]
        return self.text["embed"][torch.tensor(ids, device=self.device)].mean(dim=0)


def positions(height: int, width: int, dim: int) -> torch.Tensor:
    """[dim, height, width] sines and cosines of row and column, so that any grid has a table."""
    quarter = dim // 4
    frequency = 10000.0 ** -(torch.arange(quarter) / quarter)  # [dim/4]
    rows, columns = (torch.arange(n)[:, None] * frequency for n in (height, width))
    y = torch.cat([rows.sin(), rows.cos()], dim=1).T[:, :, None].expand(dim // 2, height, width)
    x = torch.cat([columns.sin(), columns.cos()], dim=1).T[:, None, :].expand(dim // 2, height, width)
    return torch.cat([y, x])


def build(spec: ModelSpec) -> Pixels | RandomViT:
    """`pixels` or `random-vit`. Always float32: a floor should not move with --dtype."""
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    if spec.weights:
        raise UsageError(f"{spec.name} is a floor and reads no weights. Leave --weights {spec.weights} out")
    device = pick_device(spec.device)
    return Pixels(device) if spec.name == "pixels" else RandomViT(device)
