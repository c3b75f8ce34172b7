"""`timm:NAME`: any image model of timm (extra `timm`): `forward_features`, and `forward_intermediates` for layers.

Tokens past the patch grid's count come first (CLS, registers). `cls` is what the model pools for its classifier (CLS,
attention pool, mean and norm), or the mean of the patches where that vector has another width. A layer's CLS is that
block's own token, or the mean of its patches where the model has none. `--compile` does not reach layers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from adapters.custom import module_digest
from adapters.extras import import_extra
from adapters.intermediates import layer_of, usable_depth
from adapters.patches import pad_to_patches, resolve_layers, to_map
from adapters.placement import dtype_name, pick_device, pick_dtype, wants_compile
from adapters.positions import Positions, chosen
from adapters.preprocessing import WRAP, from_row
from adapters.state_dicts import no_place_line, read_tensors, without_place
from adapters.vit import square
from adapters.weights_files import lone_file
from benchmark.contracts import (
    EncoderCard,
    ImageFeatures,
    ImageRequest,
    ImageTransform,
    LayerFeatures,
    ModelSpec,
    WeightsInfo,
)
from benchmark.errors import EncoderError, UsageError, WeightsError, first_line
from benchmark.images.decode import FILTERS
from benchmark.registry import code_versions
from benchmark.system.digest import fingerprint, sha256_file


class TimmEncoder:
    """A timm model behind the interface."""

    def __init__(self, spec: ModelSpec, model: Any, data: dict[str, Any], weights: WeightsInfo) -> None:
        self.device = pick_device(spec.device)
        self.dtype = pick_dtype(spec.dtype, self.device)
        self.model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        stated = spec.row.get("transform")  # where the authors' pictures are not timm's
        self.transform = from_row(stated) if stated else published(data, spec.name)
        size = square(data["input_size"][-2:], spec.name)
        self.mean, self.std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.transform.mean, self.transform.std)
        )
        try:
            self.probe(size)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            reason = first_line(error)
            raise UsageError(
                f"{spec.name}: {type(self.model).__name__} gives no map of patches for {size} pixels ({reason[:120]}). "
                "Wrap it in your own file: --model file.py:function"
            ) from error
        rule = chosen(spec, "timm") if isinstance(getattr(model, "pos_embed", None), torch.nn.Parameter) else None
        self.positions = Positions(self.model, rule) if rule else None  # else timm's own resampling of a table
        self.pooling = "mean" if getattr(model, "global_pool", None) == "avg" else ""  # bench check takes timm's word
        self.has_final_norm = not isinstance(getattr(model, "norm", None), torch.nn.Identity)  # else within the head
        if wants_compile(spec.options):
            self.model.forward_features = torch.compile(self.model.forward_features)
        self.card = EncoderCard(
            name=spec.name, family=str(spec.row.get("family", "timm")), backend="torch",
            embed_dim=self.width, patch_size=self.patch,
            image_size=size, depth=self.depth, num_cls=1, has_text=False, has_raw_layers=self.depth > 0,
            weights=weights, licence=str(spec.row.get("licence", "see the model's page")),
            params=sum(p.numel() for p in model.parameters()),
            dtype=dtype_name(self.dtype), code_version=code_versions()[__name__],
            options=(("positions", "authors" if self.positions else "timm"),) if has_table(self.model) else (),
        )  # fmt: skip

    @torch.inference_mode()
    def probe(self, size: int) -> None:
        """What a black picture of the model's size comes out as: tokens or a map, how wide, what stands before."""
        picture = torch.zeros(1, 3, size, size, device=self.device, dtype=self.dtype)
        out = self.model.forward_features(picture)
        self.tokens = out.ndim == 3
        if self.tokens:
            self.width, count = out.shape[-1], out.shape[1]
            grid = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
            if grid is None:  # NaFlex takes any grid; Hiera's last is coarser than its patches
                self.prefix = int(getattr(self.model, "num_prefix_tokens", 0))
                height = math.isqrt(count - self.prefix)
                if height * height != count - self.prefix:
                    raise ValueError(f"{count - self.prefix} patches are no square")
            else:
                height, self.prefix = grid[0], count - grid[0] ** 2
        else:  # NCHW, or NHWC for some pyramids: the channel axis is the one timm calls num_features
            self.channels_last = out.shape[-1] == self.model.num_features
            height, self.width, self.prefix = out.shape[1 if self.channels_last else 2], self.model.num_features, 0
            self.model.to(memory_format=torch.channels_last)  # 1.1 × on a CPU, more on a GPU; a ViT gains nothing
        self.patch = size // height
        self.depth = self.count_blocks(picture, out) if self.tokens else 0

    def count_blocks(self, picture: torch.Tensor, hidden: torch.Tensor) -> int:
        """The blocks that can be asked for; none where timm gives no equal ones that end in the final output."""
        self.has_cls = getattr(self.model, "cls_token", None) is not None
        try:
            _, layers = self.layers(picture, None, final_norm=True)
        except (AttributeError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return 0
        side = picture.shape[-1] // self.patch
        return usable_depth(layers, self.in_place(hidden, side, side))

    def in_place(self, hidden: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The map [B, h, w, D] of tokens [B, T, D]. Hiera keeps its patches in the order of its mask units."""
        if hasattr(self.model, "reroll"):
            found: torch.Tensor = self.model.reroll(hidden, len(self.model.blocks) - 1)
            if tuple(found.shape[1:3]) != (height, width):
                raise ValueError(f"a {found.shape[1]}x{found.shape[2]} grid")
            return found.float()
        return to_map(hidden[:, self.prefix :].float(), height, width)

    def layers(
        self, pixels: torch.Tensor, blocks: list[int] | None, final_norm: bool
    ) -> tuple[torch.Tensor, list[LayerFeatures]]:
        """The last hidden state and the blocks asked for, ascending; all of them for None."""
        some = getattr(self.model, "num_prefix_tokens", 1) > 0  # timm's EVA ends with a NameError where there are none
        hidden, found = self.model.forward_intermediates(
            pixels, indices=blocks, return_prefix_tokens=some, norm=final_norm
        )
        pairs = [pair if isinstance(pair, tuple) else (pair, None) for pair in found]
        return hidden, [layer_of(patches, prefix if self.has_cls else None) for patches, prefix in pairs]

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """CLS [B, 1, D] and patches [B, h, w, D]. Raises UsageError for layers that the model does not offer."""
        blocks = resolve_layers(request.layers, self.card.depth, self.card.name)
        wanted = sorted(set(blocks))
        pixels = (images.to(self.device, torch.float32) - self.mean) / self.std
        pixels = pad_to_patches(pixels, self.card.patch_size, self.card.image_size).to(self.dtype)
        if not self.tokens:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        height, width = (side // self.card.patch_size for side in pixels.shape[-2:])
        if self.positions:
            self.positions.set((height, width))
        try:
            if wanted:
                hidden, found = self.layers(pixels, wanted, request.final_norm)
            else:
                hidden, found = self.model.forward_features(pixels), []
            pooled = self.model.forward_head(hidden, pre_logits=True)[:, None].float()
        except (AssertionError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            size = "x".join(map(str, pixels.shape[-2:]))
            reason = (str(error).splitlines() or [""])[0]
            raise EncoderError(f"{self.card.name} does not take {size} pixels ({reason})") from error
        if self.tokens:
            patches = self.in_place(hidden, height, width)
        else:
            patches = (hidden if self.channels_last else hidden.permute(0, 2, 3, 1)).float()
        cls = pooled if pooled.shape[-1] == self.card.embed_dim else patches.mean(dim=(1, 2))[:, None]
        return ImageFeatures(cls, patches, tuple(found[wanted.index(block)] for block in blocks))


def has_table(model: Any) -> bool:
    """Whether the model adds a learned table of positions, which timm resamples for other sizes in its own way."""
    parts = (model, getattr(model, "embeds", None))  # NaFlex has it one floor down
    return any(isinstance(getattr(part, "pos_embed", None), torch.nn.Parameter) for part in parts)


def published(data: dict[str, Any], name: str) -> ImageTransform:
    """timm's own preprocessing for evaluation: "center" keeps a picture's shape and crops, whatever `crop_pct` is.

    Raises UsageError for "border", which pads the picture to a square: no ImageTransform says that.
    """
    size = square(data["input_size"][-2:], name)
    resized = int(size / data["crop_pct"])
    if data["crop_mode"] == "border":
        raise UsageError(
            f"{name}: timm pads its pictures to a square (crop_mode border), which no preset here states. {WRAP}"
        )
    squash = data["crop_mode"] == "squash"
    interpolation: Any = data["interpolation"] if data["interpolation"] != "random" else "bicubic"
    if interpolation not in FILTERS:
        raise UsageError(f"{name}: timm resizes its pictures by {interpolation}, which no preset here states. {WRAP}")
    return ImageTransform(
        "square" if squash else "short-side",
        resized,
        crop=None if squash and resized == size else size,
        interpolation=interpolation,
        rounding="even",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def build(spec: ModelSpec) -> TimmEncoder:
    """The pretrained model, or one with the file of `--weights` (of a folder, its model.safetensors).

    Raises MissingExtra, UsageError or WeightsError.
    """
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    if "files" in spec.row and not spec.weights:
        raise WeightsError(f"{spec.name} is on no hub as safetensors. bench show {spec.name} says how to get its file")
    timm = import_extra("timm", "timm", f"--model {spec.name}")
    if ":" not in spec.target and not timm.is_model(spec.target):  # hf-hub:OWNER/NAME is looked up by timm
        close = ", ".join(timm.list_models(f"*{spec.target.split('_')[0]}*")[:3])
        raise UsageError(f"timm does not know {spec.target!r}. Close: {close or 'none'}")

    model = create(spec, timm)
    if spec.weights:
        path = lone_file(Path(spec.weights), spec.name)
        load_file(model, spec, path)
        source, digest = spec.weights, sha256_file(path)
    else:
        source, digest = f"timm:{spec.target}", module_digest({"": model})
    weights = WeightsInfo(source, fingerprint([spec.target, digest]))  # the name decides the activation
    return TimmEncoder(spec, model, timm.data.resolve_model_data_config(model), weights)


def create(spec: ModelSpec, timm: Any) -> Any:
    """The architecture, with timm's own weights where none are named. Raises WeightsError where they cannot be had."""

    def made(**more: Any) -> Any:
        return timm.create_model(spec.target, pretrained=spec.weights is None, num_classes=0, **more)

    try:
        try:
            model = made(dynamic_img_size=True)
        except TypeError:  # an architecture of one size
            return made()
        return model if whole_patches(model, timm) else made()
    except Exception as error:
        raise WeightsError(
            f"{spec.name}: its weights cannot be had ({type(error).__name__}: {str(error).splitlines()[0][:120]}). "
            "Pass --weights FILE.safetensors"
        ) from error


def whole_patches(model: Any, timm: Any) -> bool:
    """Whether the model's own size is a whole number of patches.

    Where it is not (384 pixels, patches of 14), timm takes that size only from a model that takes no other.
    """
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    sides = timm.data.resolve_model_data_config(model)["input_size"][-2:]
    return patch is None or all(side % step == 0 for side, step in zip(sides, patch))


def load_file(model: Any, spec: ModelSpec, path: Path) -> None:
    """Raises WeightsError when the tensors are not the model's; a classifier's may be left over."""
    tensors, expected = read_tensors([path]), model.state_dict()
    for key, value in expected.items():
        if key in tensors and tensors[key].shape != value.shape:
            raise WeightsError(
                f"{spec.name}: {path} has {key} of shape {list(tensors[key].shape)}, the model needs "
                f"{list(value.shape)}. Is it of another architecture or image size? Name that model: timm:NAME"
            )
    missing, left_over = model.load_state_dict(tensors, strict=False)
    if missing:
        raise WeightsError(f"{spec.name}: {path} lacks {missing[0]} and {len(missing) - 1} more keys. Another model?")
    named = model.pretrained_cfg.get("classifier") or () if hasattr(model, "pretrained_cfg") else ()
    heads = tuple(f"{head.partition('.')[0]}." for head in ([named] if isinstance(named, str) else named))
    foreign = without_place(model, [key for key in left_over if not key.startswith(heads)])
    if foreign:
        raise WeightsError(f"{spec.name}: {path} {no_place_line(foreign)}")
