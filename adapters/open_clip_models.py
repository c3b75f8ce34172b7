"""`open_clip:ARCH/TAG`: a model of open_clip with its own tokeniser (extra `open_clip`).

With `--weights FILE`, TAG says what the file was trained like: activation, normalisation and resize are no part of it.
`ARCH` alone will do where all its published weights agree on them.

`cls` is the projected image vector and `patches` the last block's tokens after the final norm, or the map that a
convolutional tower pools. A layer's CLS is that block's own token, or the mean of its patches where the tower has none.
`text_patches` are in adapters/open_clip_values.py, other sizes in adapters/open_clip_sizes.py. SigLIP's texts are its
authors', not the library's (`as_big_vision`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from adapters.custom import module_digest
from adapters.extras import import_extra
from adapters.intermediates import layer_of, usable_depth
from adapters.open_clip_sizes import AnySize
from adapters.open_clip_values import entering, mean_head, text_space
from adapters.patches import pad_to_patches, resolve_layers, to_map
from adapters.placement import dtype_name, pick_device, pick_dtype, wants_compile
from adapters.positions import chosen
from adapters.preprocessing import WRAP
from adapters.siglip import lowered
from adapters.vit import normalise_rows, square
from adapters.weights_files import pinned_file
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
from benchmark.registry import code_versions
from benchmark.system.digest import fingerprint

SETTINGS = ("quick_gelu", "mean", "std", "interpolation", "resize_mode")


class OpenClipEncoder:
    """An open_clip model behind the interface."""

    def __init__(self, spec: ModelSpec, model: Any, preprocess: dict[str, Any], tokenize: Any, source: str) -> None:
        self.device = pick_device(spec.device)
        self.dtype = pick_dtype(spec.dtype, self.device)
        # The architecture and the tag decide the activation, which is no tensor and moves every output.
        weights = WeightsInfo(source, fingerprint([spec.target, module_digest({"": model})]))
        self.model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        self.tokenize = tokenize
        siglip = "SigLIP" in spec.target and hasattr(tokenize, "clean_fn")
        if siglip:
            as_big_vision(model.text, tokenize)
        self.text_space = text_space(getattr(self.model, "visual", None))
        self.mean_head = mean_head(getattr(self.model, "visual", None))
        size = square(preprocess["size"], spec.name)
        self.sizes = AnySize(getattr(self.model, "visual", None), size, chosen(spec, "timm"))
        mode = preprocess.get("resize_mode") or "shortest"
        if mode == "longest":
            raise UsageError(
                f"{spec.name}: open_clip pads its pictures to a square (resize_mode longest), which no preset here "
                f"states. {WRAP}"
            )
        self.transform = ImageTransform(
            "square" if mode == "squash" else "short-side",
            size,
            crop=None if mode == "squash" else size,
            interpolation="bilinear"
            if preprocess.get("interpolation") == "bilinear"
            else "bicubic",  # as image_transform
            rounding="floor" if mode == "squash" else "even",
            mean=tuple(preprocess["mean"]),
            std=tuple(preprocess["std"]),
        )
        self.mean, self.std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.transform.mean, self.transform.std)
        )
        try:
            cls, last, depth = self.probe(size)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            reason = first_line(error)
            raise UsageError(
                f"{spec.name}: {type(self.model).__name__} gives no map of patches for one picture ({reason[:120]}). "
                "Wrap it in your own file: --model file.py:function"
            ) from error
        self.card = EncoderCard(
            name=spec.name, family=str(spec.row.get("family", "open_clip")), backend="torch",
            embed_dim=last.patches.shape[-1], patch_size=size // last.patches.shape[1], image_size=size, depth=depth,
            num_cls=1, has_text=True, text_dim=cls.shape[-1], weights=weights,
            licence=str(spec.row.get("licence", "see the model's page")),
            params=sum(p.numel() for p in model.parameters()), dtype=dtype_name(self.dtype),
            code_version=code_versions()[__name__], has_raw_layers=depth > 0,
            has_text_patches=self.text_space is not None, options=self.sizes.options,
            prompts="canonical" if siglip else "plain",
        )  # fmt: skip

    def probe(self, size: int) -> tuple[torch.Tensor, LayerFeatures, int]:
        """Image vector and last block of a black picture, and how many blocks can be asked for."""
        picture = torch.zeros(1, 3, size, size, device=self.device, dtype=self.dtype)
        trunk = getattr(getattr(self.model, "visual", None), "trunk", None)
        # timm's EVA ends with a NameError where no token stands before the patches
        self.has_cls = getattr(trunk, "num_prefix_tokens", 1) > 0
        try:
            cls, (last,) = self.towers(picture)
        except TypeError:  # a convolutional tower does not know the option
            self.has_cls = False
            cls, (last,) = self.towers(picture)
        return cls, last, usable_depth(self.towers(picture, None)[1], last.patches)

    @torch.inference_mode()
    def towers(
        self, pixels: torch.Tensor, blocks: Sequence[int] | int | None = 1, final_norm: bool = True
    ) -> tuple[torch.Tensor, list[LayerFeatures]]:
        """Image vector [B, E] and the blocks asked for, ascending; of a number the last so many, of None all."""
        with entering(self.mean_head) as pooled:
            found = self.model.forward_intermediates(
                image=pixels, image_indices=blocks, normalize=False, normalize_intermediates=final_norm,
                image_output_fmt="NCHW", **({"image_output_extra_tokens": True} if self.has_cls else {}),
            )  # fmt: skip
        maps = found["image_intermediates"]
        prefixes = found.get("image_intermediates_prefix") or [None] * len(maps)
        layers = [layer_of(*pair) for pair in zip(maps, prefixes)]
        if pooled:  # FastViT's last convolution comes after its last stage
            layers[-1] = layer_of(pooled[0], None)
        return found["image_features"].float(), layers

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """CLS [B, 1, E] and patches [B, h, w, D]. Raises EncoderError for a size the architecture does not take."""
        blocks = resolve_layers(request.layers, self.card.depth, self.card.name)
        pixels = (images.to(self.device, torch.float32) - self.mean) / self.std
        pixels = pad_to_patches(pixels, self.card.patch_size, self.card.image_size).to(self.dtype)
        wanted = sorted({*blocks, self.card.depth - 1}) if blocks else 1
        try:
            self.sizes.set((pixels.shape[-2], pixels.shape[-1]))
            with entering(self.text_space.watched if self.text_space and request.text_patches else None) as seen:
                cls, found = self.towers(pixels, wanted)
        except (AssertionError, RuntimeError, ValueError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            size = "x".join(map(str, pixels.shape[-2:]))
            raise EncoderError(f"{self.card.name} does not take {size} pixels ({first_line(error)[:120]})") from error
        last = found[-1]
        values = [to_map(self.text_space.project(x).float(), *last.patches.shape[1:3]) for x in seen if self.text_space]
        if not request.final_norm:  # a second forward: the final norm has another name in each tower
            found = self.towers(pixels, wanted, final_norm=False)[1]
        layers = tuple(found[wanted.index(block)] for block in blocks) if isinstance(wanted, list) else ()
        return ImageFeatures(cls[:, None], last.patches, layers, values[0] if values else None)

    def is_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than the tokenizer's context: with more room it would go on."""
        read = self.tokenize(list(texts))
        length = read.shape[1]
        more = self.tokenize([*texts, ""], context_length=length + 8)
        rest, padding = more[:-1, length:], more[-1, -1]
        return [bool(c) for c in (more[:-1, :length] != read).any(1) | (rest != padding).any(1)]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32, L2-normalised."""
        return normalise_rows(self.model.encode_text(self.tokenize(list(texts)).to(self.device)))


def as_big_vision(text: torch.nn.Module, tokenize: Any) -> None:
    """SigLIP's text side as its authors run it and as `adapters.siglip` does: one checkpoint, one text vector.

    open_clip takes punctuation out of captions as well, they out of prompts alone (`benchmark.contracts.prompts`),
    and it builds the first SigLIP's text tower with the exact GELU, where flax has the tanh form.
    """
    tokenize.clean_fn, tokenize.tokenizer.padding_side = lowered, "right"
    for module in text.modules():
        if isinstance(module, torch.nn.GELU):
            module.approximate = "tanh"


def uses_quick_gelu(open_clip: Any, arch: str, tag: str) -> bool:
    """Whether the weights were trained with QuickGELU: open_clip only warns when `arch` says otherwise.

    The features are then wrong. Raises UsageError where the architecture has it and the weights do not.
    """
    trained = bool(open_clip.get_pretrained_cfg(arch, tag).get("quick_gelu", False))
    if open_clip.get_model_config(arch).get("quick_gelu", False) and not trained:
        plain = arch.removesuffix("-quickgelu")
        raise UsageError(f"open_clip's {tag} weights of {arch} have no QuickGELU. Write open_clip:{plain}/{tag}")
    return trained


def training_tag(open_clip: Any, arch: str, tag: str) -> str:
    """The tag that says how a local file of `arch` was trained: `tag`, else any where all say the same, else "".

    Raises UsageError where they differ: a wrong activation or normalisation would only show in the numbers.
    """
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag or not tags:
        return tag
    said = {repr({"quick_gelu": False, **settings(open_clip, arch, each)}) for each in tags}
    if len(said) > 1:
        raise UsageError(
            f"open_clip's weights of {arch} differ in activation or preprocessing. Write open_clip:{arch}/TAG with the "
            f"tag your file was trained like, one of: {', '.join(tags[:6])}"
        )
    return str(tags[0])


def settings(open_clip: Any, arch: str, tag: str) -> dict[str, Any]:
    """What decides the outputs of published weights besides the tensors, of those of SETTINGS that open_clip states."""
    stated = open_clip.get_pretrained_cfg(arch, tag)
    return {key: stated[key] for key in SETTINGS if key in stated}


def file_in(spec: ModelSpec) -> str:
    """The file of `--weights`; of a folder the one that open_clip saves on the hub, or its only .safetensors file.

    Raises WeightsError where there is none.
    """
    folder = Path(str(spec.weights))
    if not folder.is_dir():
        return str(folder)
    found = sorted(folder.glob("*.safetensors"))
    named = folder / "open_clip_model.safetensors"
    if named not in found and len(found) != 1:
        raise WeightsError(f"{spec.name}: no {named.name} in {folder}. Give --weights FILE.safetensors")
    return str(named if named in found else found[0])


def build(spec: ModelSpec) -> OpenClipEncoder:
    """Raises MissingExtra, UsageError for an unknown name, WeightsError when the weights cannot be had."""
    if spec.backend != "torch":
        raise UsageError(f"{spec.name} has no {spec.backend} backend. Use --backend torch")
    if wants_compile(spec.options):
        raise UsageError(f"{spec.name} runs as open_clip gives it: leave --compile out")
    open_clip = import_extra("open_clip", "open_clip", f"--model {spec.name}")
    arch, _, tag = spec.target.partition("/")
    if arch not in open_clip.list_models():
        close = [name for name in open_clip.list_models() if name.lower().startswith(arch[:5].lower())]
        raise UsageError(f"open_clip does not know {arch!r}. Close: {', '.join(close[:4]) or 'none'}")
    if (tag or not spec.weights) and tag not in open_clip.list_pretrained_tags_by_model(arch):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)[:6]) or "none"
        raise UsageError(f"open_clip has no weights {tag!r} for {arch}. Write open_clip:{arch}/TAG with one of: {tags}")
    tag = training_tag(open_clip, arch, tag)
    file = file_in(spec) if spec.weights else pinned_file(spec, "open_clip_model.safetensors")
    quick = uses_quick_gelu(open_clip, arch, tag) if tag else False
    try:
        model = open_clip.create_model(
            arch,
            pretrained=file or tag,
            require_pretrained=True,
            weights_only=True,
            force_quick_gelu=quick,
        )
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"{spec.name}: weights {spec.weights or tag!r} cannot be loaded ({reason[:160]})") from error
    preprocess = {**open_clip.get_model_preprocess_cfg(model), **settings(open_clip, arch, tag)}
    source = spec.weights or (f"{spec.row['hub']}@{spec.row['revision']}" if file else f"open_clip:{spec.target}")
    return OpenClipEncoder(spec, model, preprocess, open_clip.get_tokenizer(arch), source)
