"""What an encoder is, and how pictures come to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from benchmark.system.digest import fingerprint, plain

if TYPE_CHECKING:
    import torch


ResizeRule = Literal["square", "short-side", "none"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
CropRounding = Literal["floor", "even"]
PromptRule = Literal["plain", "canonical"]


@dataclass(frozen=True)
class ImageTransform:
    """How an encoder's authors turn a picture into its input; data, not code, so that it can be hashed.

    `square` stretches to size × size; `short-side` keeps the aspect ratio; `none` leaves the pixels alone; then the
    middle `crop` × `crop`, with black around a smaller picture. Half a pixel of the margin goes by `rounding`: `floor`
    as in transformers, `even` as in torchvision (and so in timm, open_clip, DINOv2 and DINOv3). `antialias` widens the
    filter when shrinking, as Pillow does; without it the kernels are those of OpenCV and torch. `mean` and `std` are
    applied by the adapter, inside `encode_image`.
    """

    resize: ResizeRule
    size: int
    crop: int | None = None
    interpolation: Interpolation = "bicubic"
    antialias: bool = True
    rounding: CropRounding = "floor"
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def fingerprint(self) -> str:
        """64 hex digits that change with any field."""
        return fingerprint(self)


@dataclass(frozen=True)
class WeightsInfo:
    """Where the weights came from and what they are."""

    source: str  # hub id with revision, path, or "random seed N"
    sha256: str  # over the weight bytes; for generated weights, over the recipe that generates them


@dataclass(frozen=True)
class EncoderCard:
    """The facts about a loaded encoder that plans, keys and rows need."""

    name: str
    family: str
    backend: Literal["torch", "jax", "other"]
    embed_dim: int  # D, width of CLS and patch tokens
    patch_size: int  # pixels
    image_size: int  # pixels; the resolution the model was made for
    depth: int  # number of blocks that can be asked for as layers
    num_cls: int  # K
    has_text: bool
    weights: WeightsInfo
    licence: str
    params: int = 0  # image tower + text tower
    text_dim: int = 0  # E; 0 without text
    dtype: str = "float32"
    code_version: str = "1"  # raised by the adapter whenever its outputs change
    has_text_patches: bool = False
    has_raw_layers: bool = False  # whether layers can be had without the final norm
    prompts: PromptRule = "plain"  # how its authors' zero-shot evaluator writes a prompt (benchmark.contracts.prompts)
    options: tuple[tuple[str, str], ...] = ()  # choices that change the outputs, e.g. (("gelu", "tanh"),)


def identity(card: EncoderCard) -> Mapping[str, Any]:
    """What of an encoder decides its outputs. `model` is for people: it is left out of the key's hash."""
    return {
        "model": card.name,
        "weights": card.weights.sha256,
        "family": card.family,
        "backend": card.backend,
        "dtype": card.dtype,
        "code": card.code_version,
        "options": plain(card.options),
    }


@dataclass(frozen=True)
class ImageRequest:
    """What a caller wants beside CLS and patches.

    `layers` are block indices (0 … depth-1, or negative from the end), each returned after the final norm. Without
    `final_norm` they are returned as the blocks leave them; only encoders whose card has `has_raw_layers` are asked so.
    """

    layers: tuple[int, ...] = ()
    text_patches: bool = False
    final_norm: bool = True


class LayerFeatures(NamedTuple):
    """CLS [B, K, D] and patches [B, h, w, D] of one block."""

    cls: torch.Tensor
    patches: torch.Tensor


@dataclass
class ImageFeatures:
    """What an encoder says about a batch of images, on the encoder's device, not normalised."""

    cls: torch.Tensor  # [B, K, D]
    patches: torch.Tensor  # [B, h, w, D]: a map, so no caller can get the grid wrong
    layers: tuple[LayerFeatures, ...] = ()  # in the order of ImageRequest.layers
    text_patches: torch.Tensor | None = None  # [B, h, w, E], patches in text space; None without a text tower


@runtime_checkable
class Encoder(Protocol):
    """Anything with these members is an encoder; nobody has to inherit.

    `images` is [B, 3, H, W] float32 in [0, 1]: normalisation belongs to the adapter. It lies on the encoder's device
    (`EncoderExtras`).
    """

    card: EncoderCard
    transform: ImageTransform

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures: ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder with a text tower; tokenisation belongs to the adapter."""

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E], L2-normalised."""
        ...


@dataclass(frozen=True)
class EncoderExtras:
    """What an encoder may have beside its contract, each with what its absence stands for."""

    device: object = None  # where it wants its pictures; None: where the modules that it holds are, else on the CPU
    has_final_norm: bool = True  # False: its authors' model has none, so that layers with and without it are the same
    pooling: str | None = None  # "mean": that of the patches is its cls, although its layers have CLS tokens
    # [N] of N texts: those longer than it reads, which rows of retrieval count; None: it does not say
    is_cut: Callable[[Sequence[str]], Sequence[bool]] | None = None
    # [N, E] unit vectors of texts, of E as encode_text gives them, as patches are compared with them; None: as they are
    text_for_patches: Callable[[torch.Tensor], torch.Tensor] | None = None
    # [N, L] token ids of N texts, or a mapping with "input_ids": for bench check. Either name will do
    tokenize: Callable[[Sequence[str]], Any] | None = None
    tokenizer: Callable[[Sequence[str]], Any] | None = None

    @classmethod
    def of(cls, encoder: object) -> EncoderExtras:
        """What `encoder` has of these."""
        found: dict[str, Any] = {extra.name: getattr(encoder, extra.name, extra.default) for extra in fields(cls)}
        return cls(**found)


@dataclass(frozen=True)
class ModelSpec:
    """What a builder (`def build(spec: ModelSpec) -> Encoder`) is given."""

    name: str  # as the user wrote it
    row: Mapping[str, Any] = field(default_factory=dict)  # its table in models.toml; empty for hf:, timm:, files
    target: str = ""  # what follows the prefix: "facebook/dinov2-base" of "hf:facebook/dinov2-base"
    weights: str | None = None  # --weights: a local file or folder
    backend: str = "torch"
    device: str = "auto"
    dtype: str = "auto"
    offline: bool = False
    trust_remote_code: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
