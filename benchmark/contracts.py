"""What an encoder, a dataset, a task and a result are. No heavy import: torch is named for types only.

Shapes use one alphabet: B batch, h w patch grid, D width, E text width, K CLS tokens, H W pixels, N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from benchmark.digest import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

    from benchmark.statistic import Statistic

# --------------------------------------------------------------------------------------------- encoders

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
    prompts: PromptRule = "plain"  # how its authors' zero-shot evaluator writes a prompt (benchmark.prompts)
    options: tuple[tuple[str, str], ...] = ()  # choices that change the outputs, e.g. (("gelu", "tanh"),)


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

    `images` is [B, 3, H, W] float32 in [0, 1]: normalisation belongs to the adapter. It lies on the encoder's `device`
    where it has that attribute, else where the modules it holds are, else on the CPU.
    """

    card: EncoderCard
    transform: ImageTransform

    def encode_image(self, images: torch.Tensor, request: ImageRequest = ImageRequest()) -> ImageFeatures: ...


@runtime_checkable
class TextEncoder(Encoder, Protocol):
    """An encoder with a text tower; tokenisation belongs to the adapter.

    It may have `is_cut(texts) -> [N] bool` as well, the texts longer than it reads: rows of retrieval count those.
    """

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E], L2-normalised."""
        ...


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


# --------------------------------------------------------------------------------------------- data

DataKind = Literal["segmentation", "depth", "normals", "captions", "labels", "retrieval"]
IGNORE = 255  # the mask value that is never scored, where there are at most 255 classes


def ignored_label(classes: int) -> int:
    """What a target carries where it is neither trained on, chosen on nor scored: 255, or -1 where 255 is a class.

    -1 (and every label below) is so in every target. This is the one place that decides it: heads, metrics, mm and
    pictures ask here.
    """
    return IGNORE if classes <= IGNORE else -1


@runtime_checkable
class ImageSet(Protocol):
    """Pictures in a fixed order: the unit the feature store knows. Picklable, so that workers can decode it."""

    digest: str  # 64 hex digits over content; two sets with one digest hold the same pictures in the same order

    def __len__(self) -> int: ...

    def image_id(self, index: int) -> str:
        """A name that is stable across machines, e.g. a path relative to the dataset's root."""
        ...

    def load(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8 sRGB. Raises DataError naming the file when it cannot be read."""
        ...


class SegmentationData(Protocol):
    """Images with a class index per pixel."""

    images: ImageSet
    digest: str
    class_names: Sequence[str]
    background: int | None  # index of the background class, where the class list has one

    def target(self, index: int) -> np.ndarray:
        """[H, W] uint8 or int32 class index, 255 (or -1 past 255 classes) where ignored; same size as the image."""
        ...


class DepthData(Protocol):
    """Images with planar depth."""

    images: ImageSet
    digest: str

    def target(self, index: int) -> np.ndarray:
        """[H, W] float32 metres; 0, negative or non-finite where invalid."""
        ...


class NormalsData(Protocol):
    """Images with surface normals."""

    images: ImageSet
    digest: str

    def target(self, index: int) -> np.ndarray:
        """[H, W, 3] float32 unit vectors in the camera frame; a zero vector where invalid.

        Where some zero vectors count (they are 90° from every prediction), a further method `counted` gives the same
        with NaN where nothing counts.
        """
        ...


class CaptionData(Protocol):
    """Images with one or more captions each."""

    images: ImageSet
    digest: str
    captions: Sequence[Sequence[str]]  # one non-empty list for each image


class LabelData(Protocol):
    """Images with one class each."""

    images: ImageSet
    digest: str
    labels: np.ndarray  # [N] int64
    class_names: Sequence[str]


class RetrievalData(Protocol):
    """Queries and an index of images; a hit shares both label and domain with the query.

    A set may also have `more_labels`, query -> its further labels: then a hit with any of them counts.
    """

    queries: ImageSet
    index: ImageSet
    digest: str
    query_labels: np.ndarray  # [Q] int64
    index_labels: np.ndarray  # [N] int64
    query_domains: Sequence[str]  # [Q]
    index_domains: Sequence[str]  # [N]
    self_index: (
        np.ndarray | None
    )  # [Q] position of each query in the index (to be excluded), -1 where absent; None: none is there


@dataclass(frozen=True)
class DatasetInfo:
    """What `bench show DATASET` prints."""

    name: str
    title: str
    licence: str
    citation: str
    url: str
    layout: str  # the folder layout expected under --data
    kinds: tuple[DataKind, ...]
    splits: tuple[str, ...] = ("train", "test")
    how_to_get: str = ""


class Dataset(Protocol):
    """A dataset found on disk (or embedded)."""

    info: DatasetInfo

    def data(self, kind: DataKind, split: str) -> Any:
        """The `<Kind>Data` of `split` ("train" or "test"). Raises DataError when files are missing."""
        ...


# --------------------------------------------------------------------------------------------- features

ViewRule = Literal["encoder", "square", "short-side", "pad-to-patch"]


@dataclass(frozen=True)
class View:
    """How a picture is laid before an encoder.

    `encoder`: the encoder's own transform; `square`: the whole picture stretched to size × size (0: the encoder's
    image_size); `short-side`: short side scaled to `size` (0: the encoder's image_size), then the middle square of
    `crop` pixels (0: `size`), so that all pictures get one shape; `pad-to-patch`: original pixels, short side scaled to
    `size` (0: not scaled), zero-padded at the centre to whole patches.
    """

    rule: ViewRule = "encoder"
    size: int = 0
    interpolation: Interpolation | None = None  # None: the encoder's
    antialias: bool | None = None  # None: the encoder's
    crop: int = 0  # short-side only
    rounding: CropRounding = "even"  # of half a margin of that crop: torchvision's, or floor


Sampling = Literal["stratified", "independent"]
TapName = Literal["cls", "patches", "mean_patches", "text_patches", "pixels"]


@dataclass(frozen=True)
class Tap:
    """One array per image taken from an encoder's output.

    cls [K, D] · patches [h, w, D] · mean_patches [D] · text_patches [h, w, E] ·
    pixels [count, D]: bilinear mixtures of patch tokens at `count` random pixels (`benchmark.features.taps`).
    """

    name: TapName
    layer: int | None = None  # None: the final layer
    count: int = 0  # pixels only
    seed: int = 0  # pixels only
    sampling: Sampling = "stratified"  # pixels only: one in each cell of a grid, or independent of one another


@dataclass(frozen=True)
class Need:
    """A task's wish: `tap` of every image of `images` under `view`."""

    images: ImageSet
    view: View
    tap: Tap


# --------------------------------------------------------------------------------------------- tasks

FieldStatus = Literal["confirmed", "inferred", "unknown"]


@dataclass(frozen=True)
class Measurement:
    """A metric's name, its statistic over the per-sample table, and how to read it."""

    name: str  # mIoU, R@1, top-1, RMSE …
    statistic: Statistic
    higher_is_better: bool
    unit: str  # "%", "m", "°", ""


@dataclass
class Outcome:
    """What a task hands back: a per-sample table (column -> array with N rows) and how to summarise it."""

    samples: Mapping[str, Any]
    measurements: Sequence[Measurement]
    main_metric: str
    n: int
    details: Mapping[str, Any] = field(default_factory=dict)  # chosen penalty, per-class values …
    fit_s: float = 0.0
    score_s: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)  # kept beside the row: "curve.csv", "pictures/best-1.png"
    blind: Sequence[Mapping[str, Any]] = ()  # columns of `samples` as answers that see no picture would have them

    def chance(self, measurement: Measurement) -> float | None:
        """What the best of the blind answers gets; None where there is none for this metric."""
        column = measurement.statistic.columns[0]
        values = [measurement.statistic.of({**self.samples, **b}) for b in self.blind if column in b]
        return (max if measurement.higher_is_better else min)(values, default=None)


class Task(Protocol):
    """One of the nine kinds of measurement."""

    name: ClassVar[str]
    kind: ClassVar[DataKind]
    needs_text: ClassVar[bool]
    schemas: ClassVar[Mapping[str, type]]  # schema name in the TOML preset -> frozen dataclass

    def not_applicable(self, card: EncoderCard, protocol: Any) -> str | None:
        """Why this encoder cannot do the task under `protocol`, or None."""
        ...

    def needs(self, card: EncoderCard, protocol: Any, data: Mapping[str, Any]) -> Sequence[Need]:
        """Every stored feature the run will read; `data` maps "train" and/or "test" to a `<Kind>Data`."""
        ...

    def splits(self, protocol: Any) -> Sequence[str]:
        """The splits to load: ("test",) for zero-shot tasks, ("train", "test") for probes."""
        ...

    def run(self, context: TaskContext) -> Outcome: ...


class FeatureReader(Protocol):
    """The stored array of one Need; reads slices from disk, so memory stays flat."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *item)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> torch.Tensor:
        """float32 tensor on the CPU for an int, slice or index array."""
        ...


class Progress(Protocol):
    """A bar; `advance` as work is done."""

    def advance(self, amount: int = 1) -> None: ...

    def note(self, text: str) -> None:
        """A few words beside the label, e.g. the loss; they replace the ones before."""
        ...


class TaskContext(Protocol):
    """What a task may touch while it runs."""

    @property
    def card(self) -> EncoderCard: ...
    @property
    def protocol(self) -> Any: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...

    @property
    def scratch(self) -> Path:
        """A folder of this job alone, for the checkpoints of a head that trains long; removed once its row is saved."""
        ...

    @property
    def keep_predictions(self) -> int:
        """How many best, median and worst predictions to hand back as pictures in `Outcome.files`; 0: none."""
        ...

    @property
    def cross_check(self) -> bool:
        """Whether to compute the headline number a second time with the field's reference implementation."""
        ...

    def features(self, need: Need) -> FeatureReader: ...

    def text(self, texts: Sequence[str]) -> torch.Tensor:
        """[N, E] float32 CPU, L2-normalised, in batches and cached; raises NotApplicable without a text tower."""
        ...

    def encoder(self) -> Encoder:
        """The live encoder, for protocols that must train through or slide over it."""
        ...

    def progress(self, label: str, total: int) -> Progress: ...
