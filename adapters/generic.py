"""Any vision model of `transformers`, read by what it gives for one picture rather than by its name.

Tokens or a map, the stride, the tokens before and after the patches, the final norm, and what makes the pooled vector
are looked for, and only taken where they give the model's own numbers again. `adapters/families.toml` has what no
picture tells. What cannot be read so is refused in one line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from adapters.patches import to_map
from adapters.vit import VisionTransformer, square
from adapters.weights_files import Checkpoint
from benchmark.contracts import ImageFeatures, ImageRequest, LayerFeatures, ModelSpec
from benchmark.errors import BenchError, EncoderError, UsageError, first_line
from benchmark.registry import code_versions

MOST_PREFIX = 64  # tokens before the patches; more are a grid finer than config.json says
Pool = Callable[[torch.Tensor], torch.Tensor]


class GenericVision(VisionTransformer):
    """A model that gives `last_hidden_state`, `features` or `feature_maps`.

    `cls` is the vector that the model itself pools. Where a head turns CLS into it (ViT's tanh), CLS comes second;
    without either it is the mean of the patches. A layer's `cls` is made of its tokens in the same way.
    """

    family = "hf"
    versioned_as = "adapters.hub"  # in code_versions.toml
    code_version = code_versions()[versioned_as]

    def __init__(
        self, spec: ModelSpec, checkpoint: Checkpoint, model: Any, reading: Mapping[str, Any], untrained: bool = False
    ) -> None:
        super().__init__(spec, checkpoint, model)
        self.reading, self.untrained = reading, untrained
        self.vision, self.blocks, self.norm = self.model, [], nn.Identity()
        self.own: list[int] = []
        self.pool: Pool | None = None
        self.pooled = False
        accepted = inspect.signature(self.model.forward).parameters
        self.options: dict[str, Any] = {"interpolate_pos_encoding": True} if INTERPOLATE in accepted else {}
        config: Any = self.model.config
        config.return_dict = True
        for key, value in reading.get("config", {}).items():
            setattr(config, key, value)
        side = square(getattr(config, reading.get("side", "image_size"), None) or 224, spec.name)
        try:
            with torch.inference_mode():
                self.probe(config, side)
        except (torch.OutOfMemoryError, BenchError):
            raise
        except Exception as error:  # whatever a model of any authors does with a picture
            raise UsageError(
                f"{spec.name}: {type(self.model).__name__} gives no map of patches for a picture of {side} pixels "
                f"({first_line(error)[:120]}). {OTHERWISE}"
            ) from error

    def probe(self, config: Any, side: int) -> None:
        """What a picture of noise comes out as; `blocks`, `norm`, `own` and `pool` are those that give it again."""
        noise = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        pixels, name = noise.to(self.device, self.dtype), self.spec.name
        blocks = self.find_blocks(config)
        self.blocks = blocks
        with self.captured(range(len(blocks))) as found:
            output = self.forward(pixels)
        hidden = self.hidden(output)
        if len(hidden) != len(pixels):
            raise ValueError("it puts the pictures of a batch into one sequence")
        self.channels_last = hidden.ndim == 4 and hidden.shape[1] == hidden.shape[2] != hidden.shape[3]
        self.tokens = hidden.ndim == 3
        if self.tokens:
            width, self.suffix = hidden.shape[-1], int(getattr(config, self.reading.get("suffix", ""), 0))
            patch, self.prefix = geometry(hidden.shape[1] - self.suffix, side, config, name)
        else:
            width, grid = hidden.shape[3 if self.channels_last else 1], hidden.shape[2]
            patch, self.prefix, self.suffix = side // grid, 0, 0
            if not self.channels_last:
                self.model.to(memory_format=torch.channels_last)  # 1.1 × on a CPU, more on a GPU; a ViT gains nothing
        usable = self.tokens and len(found) == len(blocks) > 0
        if usable and all(found[n].shape == hidden.shape for n in found):
            self.find_norm(found[len(blocks) - 1], hidden, self.own_vector(output))
        else:
            self.blocks = []
        normed = self.final(hidden)
        self.find_vectors(normed, self.own_vector(output), config)
        count = max(1, self.pooled + len(self.own))
        self.finish(SimpleNamespace(hidden_size=width, patch_size=patch, image_size=side), num_cls=count)
        if isinstance(getattr(self.vision, CONDITIONER, None), nn.Module):  # it normalises inside: never twice
            self.transform = replace(self.transform, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
            self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)

    def find_blocks(self, config: Any) -> list[nn.Module]:
        """The longest ModuleList, where it has as many blocks as the config says."""
        lists = [m for m in self.vision.modules() if isinstance(m, nn.ModuleList)]
        longest = max(lists, key=len, default=nn.ModuleList())
        return list(longest) if len(longest) == getattr(config, "num_hidden_layers", -1) else []

    def find_norm(self, last: torch.Tensor, hidden: torch.Tensor, vector: torch.Tensor | None) -> None:
        """The final norm: what makes the last block's tokens the last hidden state, or its CLS the pooled vector.

        CLIP and its like norm CLS alone; patches are then normed here, as in adapters.clip. Where neither a norm nor
        nothing gives the output again, the model offers no layers.
        """
        for norm in self.norms():
            if same(norm(last), hidden):
                self.norm = norm
                return
        if not same(last, hidden):
            self.blocks = []
            return
        for norm in self.norms():
            normed = norm(last)
            if self.prefix and vector is not None and normed.ndim == 3 and same(normed[:, 0], vector):
                self.norm, self.normless = norm, True
                return

    normless = False  # whether the last hidden state comes before the final norm

    def norms(self) -> Iterator[Any]:
        """The norms outside the blocks."""
        inside = {id(m) for part in self.vision.modules() if isinstance(part, nn.ModuleList) for m in part.modules()}
        for name, module in self.vision.named_modules():
            if id(module) not in inside and "norm" in type(module).__name__.lower() and "embed" not in name:
                yield quiet(module)

    def find_vectors(self, normed: torch.Tensor, vector: torch.Tensor | None, config: Any) -> None:
        """`own`, `pooled` and `pool`: which tokens are vectors of the whole picture, and what pools another one."""
        own = self.reading.get("own", [0])
        own = list(getattr(config, own)) if isinstance(own, str) else own
        self.own = [n for n in own if n < self.prefix] if self.tokens else []
        if vector is None or vector.shape[-1] != (normed.shape[-1] if self.tokens else vector.shape[-1]):
            if self.reading.get("unpooled") == "mean":
                self.own = []
            return
        if not self.tokens:
            self.pooled, self.own = True, []
            return
        if self.own and same(normed[:, self.own[0]], vector):
            return
        if not self.prefix and any(same(norm(normed[:, 0]), vector) for norm in self.norms()):
            self.own = []  # a patch where other models have CLS (Janus) is no vector of the picture
            return
        self.pooled = True
        plain: list[Pool] = [
            self.patches_mean,
            lambda t: t[:, : self.prefix].mean(1),
            *(pool for norm in self.norms() for pool in self.normed_pools(norm)),
        ]
        self.pool = next((pool for pool in plain if same(pool(normed), vector)), None)
        if self.pool is not None:
            self.own = []  # the mean, or CLS once more normed: one vector, not two
            return
        heads = [quiet(part) for name, part in self.vision.named_children() if "pool" in name or "head" in name]
        self.pool = next((head for head in heads if same(head(normed), vector)), None)
        if self.pool is None:  # what no layer can be pooled by
            self.own, self.blocks = [], []

    def normed_pools(self, norm: Any) -> list[Pool]:
        first: Pool = lambda t: norm(t[:, 0])  # noqa: E731
        mean: Pool = lambda t: norm(self.patches_mean(t))  # noqa: E731
        return [first, mean] if self.prefix else [mean]

    def patches_mean(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, self.prefix : tokens.shape[1] - self.suffix].mean(1)

    def hidden(self, output: Any) -> torch.Tensor:
        """The tokens or the map of an output."""
        maps = getattr(output, "feature_maps", None)
        found = getattr(output, "last_hidden_state", None)
        found = getattr(output, "features", None) if found is None else found
        found = maps[-1] if found is None and maps else found
        if not isinstance(found, torch.Tensor) or found.ndim not in (3, 4):
            raise ValueError("it has no last_hidden_state of tokens or of a map")
        return found

    def own_vector(self, output: Any) -> torch.Tensor | None:
        """What the model pools [B, D]; None where it pools nothing, or by weights that the checkpoint lacks."""
        found = getattr(output, "pooler_output", None)
        if not isinstance(found, torch.Tensor) or found.ndim < 2 or self.untrained:
            return None
        vector = found.flatten(1)
        one = vector.shape[1] in found.shape[1:]  # not several tokens, nor a small map as TextNet's 2 x 2
        return vector if one and len(vector) == len(self.hidden(output)) else None

    def final(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.norm(hidden) if self.normless else hidden

    def forward(self, pixels: torch.Tensor) -> Any:
        if not getattr(self, "tokens", True):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        options = dict(self.options)
        if self.reading.get("noise"):  # patches are shuffled by it: ascending noise leaves them in their order
            patch = square(self.model.config.patch_size, self.spec.name)
            count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
            options["noise"] = torch.arange(count, device=pixels.device).expand(len(pixels), -1)
        return self.vision(pixels, **options)

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """As for any family. Raises EncoderError for a size that the model does not take."""
        try:
            return super().encode_image(images, request)
        except (torch.OutOfMemoryError, BenchError):
            raise
        except Exception as error:  # models of one size say so in as many ways as there are authors
            size = "x".join(map(str, images.shape[-2:]))
            raise EncoderError(
                f"{self.card.name} does not take {size} pixels, only {self.card.image_size} pixel squares "
                f"({first_line(error)[:120]})"
            ) from error

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        hidden, vector = self.hidden(output), self.own_vector(output) if self.pooled else None
        if self.tokens:
            return ImageFeatures(*self.split(self.final(hidden), self.final(hidden), grid, vector))
        patches = hidden if self.channels_last else hidden.permute(0, 2, 3, 1)
        self.hold(tuple(patches.shape[1:3]), grid)
        cls = patches.mean(dim=(1, 2)) if vector is None else vector
        return ImageFeatures(cls[:, None].float(), patches.float())

    def layer(self, tokens: torch.Tensor, grid: tuple[int, int], final_norm: bool) -> LayerFeatures:
        normed = self.norm(tokens)
        vector = self.pool(normed).flatten(1) if self.pool else None
        return LayerFeatures(*self.split(normed if final_norm else tokens, normed, grid, vector))

    def split(
        self, tokens: torch.Tensor, normed: torch.Tensor, grid: tuple[int, int], vector: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors [B, K, D] and the patches of tokens [B, T, D]."""
        count = tokens.shape[1] - self.prefix - self.suffix
        self.hold(count, grid)
        patches = tokens[:, self.prefix : self.prefix + count]
        vectors = [] if vector is None else [vector[:, None]]
        vectors += [tokens[:, self.own]] if self.own else []
        cls = torch.cat(vectors, 1) if vectors else patches.mean(dim=1, keepdim=True)
        return cls.float(), to_map(patches, *grid).float()

    def hold(self, found: Any, grid: tuple[int, int]) -> None:
        """Raises EncoderError where the model gave another grid than the picture's patches."""
        if found not in (grid, grid[0] * grid[1]):
            raise EncoderError(
                f"{self.card.name}: {found} patches for a {grid[0]}x{grid[1]} grid; "
                f"this model may only take {self.card.image_size} pixel squares"
            )


INTERPOLATE, CONDITIONER = "interpolate_pos_encoding", "input_conditioner"
OTHERWISE = "Use the timm: or open_clip: name of this model, or wrap it in your own file: --model file.py:function"


def quiet(module: Any) -> Callable[[torch.Tensor], Any]:
    """The module, whose complaints about the shape of its input are a NaN."""

    def call(tokens: torch.Tensor) -> Any:
        try:
            return module(tokens)
        except Exception:  # it is no norm or pool of these tokens
            return torch.full((1,), torch.nan)

    return call


def same(found: Any, wanted: torch.Tensor) -> bool:
    """Whether two computations of one thing agree, in the model's own number type."""
    if not isinstance(found, torch.Tensor) or found.numel() != wanted.numel():
        return False
    close = 1e-4 if wanted.dtype == torch.float32 else 2e-2
    gap = (found.reshape(wanted.shape).float() - wanted.float()).abs().max()
    return bool(gap <= close * wanted.float().abs().max())


def geometry(tokens: int, side: int, config: Any, name: str) -> tuple[int, int]:
    """(pixels to a patch, tokens before the patches) of `tokens` tokens of a square picture.

    A pyramid such as Swin has a coarser grid than the `patch_size` of its config.
    """
    patch = getattr(config, "patch_size", None)
    patch = patch[0] if isinstance(patch, (list, tuple)) and len(set(patch)) == 1 else patch
    if isinstance(patch, int) and 0 <= tokens - (side // patch) ** 2 <= MOST_PREFIX:
        return patch, tokens - (side // patch) ** 2
    for prefix in range(min(tokens, 9)):
        grid = math.isqrt(tokens - prefix)
        if grid * grid == tokens - prefix and side % grid == 0:
            return side // grid, prefix
    raise UsageError(f"{name}: {tokens} tokens are no square grid of a {side} pixel picture. {OTHERWISE}")
