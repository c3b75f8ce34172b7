"""What every transformer encoder on `transformers` shares: loading, normalisation, padding, block outputs, precision.

A family subclasses `VisionTransformer`, says where its parts are, and turns the last hidden states into features.
Features are handed over in float32 whatever the model computes in.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from adapters.patches import pad_to_patches, resolve_layers, to_map
from adapters.placement import dtype_name, pick_device, pick_dtype, wants_compile
from adapters.preprocessing import NORMALISATION, from_row
from adapters.state_dicts import Tensors, names_in, no_place_line, read_tensors, without_place, wrapper_of
from adapters.weights_files import Checkpoint
from benchmark.contracts import (
    EncoderCard,
    ImageFeatures,
    ImageRequest,
    ImageTransform,
    LayerFeatures,
    ModelSpec,
    PromptRule,
)
from benchmark.errors import UsageError, WeightsError, first_line

log = logging.getLogger("densebench.adapters")

IGNORED_KEYS = ("position_ids",)  # buffers that old checkpoints carry and the models rebuild


class VisionTransformer:
    """Base of the families. `vision` is the image tower, `blocks` and `norm` its parts.

    `images` need not be whole patches: they are normalised, then zero-padded around the middle, the smaller half first.
    """

    family: ClassVar[str]
    code_version: ClassVar[str] = "1"
    prompts: ClassVar[PromptRule] = "plain"
    prefix: int = 1  # tokens before the patches: CLS and registers

    vision: Any
    blocks: Sequence[Any]
    norm: Callable[[torch.Tensor], torch.Tensor]
    card: EncoderCard
    transform: ImageTransform

    def __init__(self, spec: ModelSpec, checkpoint: Checkpoint, model: Any) -> None:
        self.device = pick_device(spec.device)
        self.dtype = pick_dtype(spec.dtype, self.device)
        self.model: Any = model.to(self.device).eval().requires_grad_(False)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():  # complex ones (rotary tables of Llama 4) would lose their imaginary part
                tensor.data = tensor.data.to(self.dtype)
        self.spec = spec
        self.checkpoint = checkpoint

    def finish(self, config: Any, *, text_dim: int = 0, num_cls: int = 1, depth: int | None = None) -> None:
        """Card and transform, from the checkpoint's own config and the row's licence and preprocessing."""
        row, spec = self.spec.row, self.spec
        depth = len(self.blocks) if depth is None else depth
        image_size, patch = square(config.image_size, spec.name), square(config.patch_size, spec.name)
        self.card = EncoderCard(
            name=spec.name,
            family=str(row.get("family", self.family)),
            backend="torch",
            embed_dim=config.hidden_size,
            patch_size=patch,
            image_size=image_size,
            depth=depth,
            num_cls=num_cls,
            has_text=text_dim > 0,
            text_dim=text_dim,
            has_text_patches=text_dim > 0,
            has_raw_layers=depth > 0,
            prompts=self.prompts,
            weights=self.checkpoint.weights,
            licence=str(row.get("licence", "see the model's page")),
            params=sum(p.numel() for p in self.model.parameters()),
            dtype=dtype_name(self.dtype),
            code_version=self.code_version,
        )
        check_variant(self.card, row, self.checkpoint)
        processor = None if "transform" in row else self.checkpoint.processor()
        if "transform" in row:
            self.transform = from_row(row["transform"])
        elif processor is not None:
            from adapters.processors import from_processor  # transformers, which timm: and open_clip: do without

            self.transform = from_processor(
                processor, image_size, spec.name, str(self.checkpoint.config.get("model_type"))
            )
        else:
            self.transform = self.unsaid_transform(image_size)
        self.mean, self.std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.transform.mean, self.transform.std)
        )
        if wants_compile(self.spec.options):
            for module in self.blocks or [self.vision]:  # its `forward`, not its call: hooks set later would be lost
                module.forward = torch.compile(module.forward)

    @property
    def has_final_norm(self) -> bool:
        """Whether layers differ with and without the final norm; some models of the hub have none."""
        return not isinstance(self.norm, nn.Identity)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, H', W'] normalised, padded to whole patches, in the model's type and on its device."""
        images = (images.to(self.device, torch.float32) - self.mean) / self.std
        return pad_to_patches(images, self.card.patch_size, self.card.image_size).to(self.dtype)

    @contextlib.contextmanager
    def captured(self, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
        """Block number -> its output tokens, for the blocks asked for and no others."""
        found: dict[int, torch.Tensor] = {}

        def keep(number: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                found[number] = output[0] if isinstance(output, tuple) else output

            return hook

        handles = [self.blocks[layer].register_forward_hook(keep(layer)) for layer in set(layers)]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    @torch.inference_mode()
    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures:
        """CLS, patches and what `request` adds, of [B, 3, H, W] float32 images in [0, 1]."""
        layers = resolve_layers(request.layers, self.card.depth, self.card.name)
        text_patches = request.text_patches and self.card.has_text_patches
        pixels = self.prepare(images)
        grid = (pixels.shape[-2] // self.card.patch_size, pixels.shape[-1] // self.card.patch_size)
        watch = [*layers, *self.extra_blocks(text_patches)]
        with self.captured(watch) as tokens:
            output = self.forward(pixels)
        features = self.features(output, grid)
        features.layers = tuple(self.layer(tokens[layer], grid, request.final_norm) for layer in layers)
        if text_patches:
            features.text_patches = to_map(self.text_tokens(output, tokens), *grid).float()
        return features

    # What a family says about itself.

    def unsaid_transform(self, image_size: int) -> ImageTransform:
        """The preprocessing of a folder that holds no processor's file: a bicubic square, ImageNet's normalisation."""
        log.warning(
            "%s: no preprocessor_config.json in %s: a bicubic square and ImageNet's mean and std are taken",
            self.spec.name, self.checkpoint.folder,
        )  # fmt: skip
        mean, std = NORMALISATION["imagenet"]
        return ImageTransform("square", image_size, mean=mean, std=std)

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.vision(pixels)

    def features(self, output: Any, grid: tuple[int, int]) -> ImageFeatures:
        raise NotImplementedError

    def layer(self, tokens: torch.Tensor, grid: tuple[int, int], final_norm: bool) -> LayerFeatures:
        """CLS and patches of one block, after the final norm if asked; registers are dropped."""
        tokens = self.norm(tokens) if final_norm else tokens
        return LayerFeatures(tokens[:, :1].float(), to_map(tokens[:, self.prefix :], *grid).float())

    def extra_blocks(self, text_patches: bool) -> list[int]:
        """Blocks whose outputs `text_tokens` reads."""
        return []

    def text_tokens(self, output: Any, tokens: dict[int, torch.Tensor]) -> torch.Tensor:
        """[B, h*w, E] patches in text space."""
        raise NotImplementedError


def normalise_rows(rows: torch.Tensor) -> torch.Tensor:
    """[..., D] of length 1 in the last dimension, float32."""
    return F.normalize(rows.float(), dim=-1)


def square(value: Any, name: str) -> int:
    """A size that a config writes as a number or a pair."""
    if isinstance(value, (list, tuple)):
        if len(set(value)) != 1:
            raise UsageError(f"{name}: size {tuple(value)} is not square, which these adapters do not support")
        return int(value[0])
    return int(value)


def check_variant(card: EncoderCard, row: Any, checkpoint: Checkpoint) -> None:
    """Raises WeightsError when the checkpoint is another size of the family than its row says."""
    for field in ("embed_dim", "patch_size", "image_size", "depth", "text_dim"):
        expected, found = row.get(field), getattr(card, field)
        if expected is not None and expected != found:
            said = checkpoint.folder / "config.json"
            where, other = (said, " Load them as hf:FOLDER") if said.is_file() else (checkpoint.files[0], "")
            raise WeightsError(
                f"{card.name}: {where} has {field} {found}, {card.name} has {expected}. "
                f"Another variant's weights?{other}"
            )


def load_pretrained(
    model_class: Any,
    checkpoint: Checkpoint,
    name: str,
    unused: tuple[str, ...] = (),
    towers: tuple[str, ...] = (),
    tensors: Tensors | None = None,
    **options: Any,
) -> Any:
    """The model with every weight from the files, but for keys that start with `unused`, whose outputs nobody reads.

    Where `towers` are named, only keys inside them are needed. `tensors` are those of the files where they had to be
    renamed first.

    Raises WeightsError naming file and key for any other outcome.
    """
    import transformers

    place: Any = checkpoint.folder
    apart = checkpoint.named or wrapper_of(names_in(checkpoint.files))  # the library would take another file, or no key
    if apart and options.get("trust_remote_code"):
        raise UsageError(
            f"{name}: a model with its own code is loaded from its folder. "
            f"Save its weights, unwrapped, as {checkpoint.folder}/model.safetensors"
        )
    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # the loading report is turned into one line below
    logging.disable_progress_bar()
    try:
        if "config" not in options:
            options["config"] = read_config(model_class.config_class, checkpoint, name)
        if apart:
            place, options["state_dict"] = None, read_tensors(checkpoint.files) if tensors is None else tensors
        model, info = model_class.from_pretrained(
            place,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            **options,
        )
    except (OSError, ImportError, ValueError, RuntimeError, KeyError) as error:
        reason = first_line(error)
        raise WeightsError(f"{name}: {checkpoint.files[0]} cannot be loaded: {reason}") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    parts = tuple(f"{tower}." for tower in towers) or ("",)
    info["missing_keys"] = {k for k in info.get("missing_keys", ()) if not k.startswith(unused) and k.startswith(parts)}
    refuse_partial(info, checkpoint, name)
    foreign = without_place(model, info.get("unexpected_keys", ()), f"{getattr(model, 'base_model_prefix', '')}.")
    if foreign:
        raise WeightsError(f"{name}: {where_of(checkpoint)} {no_place_line(foreign)}")
    return model


def load_eagerly(checkpoint: Checkpoint, name: str, config: Any) -> Any:
    """The model of a repository's own code, built with its numbers and then filled: `from_pretrained` builds it without
    any, which code of before transformers 5 does not take (InternViT reads a number of a tensor in its __init__).

    Raises WeightsError as `load_pretrained` does, UsageError where the code does not run.
    """
    from transformers import AutoModel

    auto: Any = AutoModel
    try:
        model = auto.from_config(config, trust_remote_code=True, dtype=torch.float32)
    except Exception as error:  # code of anybody's
        raise UsageError(f"{name}: the code in {checkpoint.folder} does not run ({first_line(error)[:160]})") from error
    tensors, own = read_tensors(checkpoint.files), model.state_dict()
    prefix = f"{model.base_model_prefix}."
    if tensors and own and not own.keys() & tensors.keys():
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    wrong = {(k, v.shape, own[k].shape) for k, v in tensors.items() if k in own and own[k].shape != v.shape}
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    missing, _ = model.load_state_dict(fitting, strict=False)
    unexpected = tensors.keys() - own.keys()
    refuse_partial({"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": wrong}, checkpoint, name)
    if foreign := without_place(model, unexpected, prefix):
        raise WeightsError(f"{name}: {where_of(checkpoint)} {no_place_line(foreign)}")
    return model


def read_config(config_class: Any, checkpoint: Checkpoint, name: str, **options: Any) -> Any:
    """The checkpoint's config.json as `transformers` reads it. Raises WeightsError for a value it does not take."""
    try:
        return config_class.from_pretrained(checkpoint.folder, local_files_only=True, **options)
    except StrictDataclassError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{name}: {checkpoint.folder}/config.json is no configuration: {reason}") from None


def where_of(checkpoint: Checkpoint) -> Path:
    """The file of a checkpoint of one, else its folder."""
    return checkpoint.files[0] if len(checkpoint.files) == 1 else checkpoint.folder


def refuse_partial(info: dict[str, Any], checkpoint: Checkpoint, name: str) -> None:
    """Raises WeightsError, naming the weight, where `from_pretrained` left or filled one in."""
    where = where_of(checkpoint)
    mismatched = sorted(info.get("mismatched_keys", ()))
    if mismatched:
        key, found, expected = mismatched[0]
        raise WeightsError(
            f"{name}: {where} has {key} of shape {list(found)}, the model needs {list(expected)}. "
            "Wrong variant or config.json?"
        )
    missing = sorted(k for k in info.get("missing_keys", ()) if not k.endswith(IGNORED_KEYS))
    unexpected = sorted(k for k in info.get("unexpected_keys", ()) if not k.endswith(IGNORED_KEYS))
    if missing:
        other = f" and has {len(unexpected)} keys of another model, e.g. {unexpected[0]}" if unexpected else ""
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise WeightsError(f"{name}: {where} lacks {missing[0]}{more}{other}. Is it the whole model, of this family?")
    errors = info.get("error_msgs") or []
    if errors:
        raise WeightsError(f"{name}: {where} cannot be loaded: {str(next(iter(errors))).splitlines()[0]}")
