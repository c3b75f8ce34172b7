"""The recipe as one typed, frozen tree (`config_file` reads it from TOML).

Every value the TIPSv2 paper (arXiv 2604.12012, "T2") leaves open is a field here, its default marked *ours*.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from benchmark.system.digest import fingerprint


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the two towers; the model itself is transformers' Tipsv2Model."""

    width: int = 768  # both towers share it (T2)
    depth: int = 12
    heads: int = 12
    patch_size: int = 14
    image_size: int = 448  # fixes the position table: (image_size / patch_size)² slots; T2 has 32 × 32
    mlp_ratio: float = 4.0
    swiglu: bool = False  # ViT-g only
    num_cls: int = 2  # CLS1 ↔ alt text, CLS2 ↔ synthetic captions
    layerscale: float = 1.0  # as in the released PyTorch code
    text_depth: int = 12  # So400m: 27
    text_heads: int = 12
    text_mlp: int = 0  # hidden size of the text MLP; 0: 4 × width
    vocab_size: int = 32000
    max_text: int = 64
    init_std: float = 0.02  # ours
    tokenizer: str = ""  # a SentencePiece tokenizer.model; empty: that of init_from, or one trained on the captions
    frozen: bool = False  # the towers stay as they are: only the projectors are trained (teacher.heads = "warm")


@dataclass(frozen=True)
class ViewsConfig:
    """One global and `local_crops` local random resized crops, flip, nothing else (T2)."""

    global_size: int = 224
    local_size: int = 98
    local_crops: int = 6
    global_scale: tuple[float, float] = (0.4, 1.0)  # ours: share of the image area
    local_scale: tuple[float, float] = (0.05, 0.4)  # ours
    ratio: tuple[float, float] = (0.75, 1.3333)  # ours: width / height
    flip: float = 0.5


@dataclass(frozen=True)
class LossConfig:
    """L = contrastive + dino · L_DINO + patch · L_iBOT(++), T2 §3."""

    contrastive: float = 1.0
    dino: float = 1.0
    patch: float = 2.0
    patch_loss: Literal["none", "ibot", "ibot++"] = "ibot++"
    dino_cls: int = 0  # ours: which CLS the DINO loss reads
    mask_ratio: float = 0.75
    ssl_every: int = 1  # the self-supervised branch runs on every n-th sample; 1: on all (T2)
    ssl_ramp: float = 0.0  # ours: share of the run over which its weight grows from 0
    captions: Literal["pairs", "alt", "synthetic"] = "pairs"  # T2: pairs; the others are for the ablation
    temperature: float = 0.07  # ours: where the learned contrastive temperature starts
    min_temperature: float = 0.003  # ours


@dataclass(frozen=True)
class HeadConfig:
    """Projector with prototypes in front of the DINO and patch losses (its shape is open in T2)."""

    prototypes: int = 32768  # 32k: TIPS v1, second-hand
    hidden: int = 2048  # ours
    bottleneck: int = 256  # ours
    layers: int = 3  # ours
    student_temperature: float = 0.1  # ours
    teacher_temperature: float = 0.07  # ours
    teacher_warmup_temperature: float = 0.04  # ours: where it starts
    teacher_warmup: float = 0.1  # ours: share of the run until teacher_temperature
    balance: Literal["center", "sinkhorn"] = "center"  # T2: centering, not Sinkhorn
    center_momentum: float = 0.9  # ours
    sinkhorn_iterations: int = 3  # ours


@dataclass(frozen=True)
class EmaConfig:
    """What is averaged over time: the projector alone (T2), or encoder and projector."""

    scope: Literal["head", "full"] = "head"
    momentum: float = 0.994  # ours
    final_momentum: float = 1.0  # ours: cosine from momentum


@dataclass(frozen=True)
class OptimConfig:
    """T2 says Adafactor and no more; the rest is ours."""

    name: Literal["adafactor", "adafactor-torch", "adamw"] = "adafactor"  # that of vision transformers; torch's
    lr: float = 0.0  # 0: the optimiser's own, `schedule.RATES`; of "adafactor-torch" a share of each parameter's size
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)  # AdamW only
    beta2_cap: float = 0.999  # "adafactor" only: arXiv 2106.04560, §3.4; SigLIP 2303.15343 takes 0.95
    clip: float = 1.0  # global gradient norm; 0: off
    schedule: Literal["cosine", "trapezoid"] = "cosine"
    warmup: float = 0.05  # share of the run
    decay: float = 0.2  # trapezoid: share of the run spent going down to final_lr
    final_lr: float = 0.0  # share of lr


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from; every source yields (image, alt text, synthetic captions)."""

    source: str = "scenes"  # scenes · folder · parquet · tar · hub, or module:function
    path: str = ""  # folder, file pattern or hub id; tar: also URLs that fsspec knows, {00000..00999} counts
    # tar: each epoch a permutation of all samples, or of the shards, of which 16 are mixed at a time: for slow disks
    order: Literal["samples", "shards"] = "samples"
    leave_out: str = ""  # the list of `bench dedup`: near-copies of evaluation pictures
    samples: int = 0  # scenes: how many there are; others: 0 = all
    size: int = 96  # scenes: rendered size in pixels
    seed: int = 0  # scenes: its seed
    image: str = "image"  # column names
    alt: str = "alt"
    synthetic: tuple[str, ...] = ("synthetic",)  # a column for each kind of them
    synthetic_weights: tuple[float, ...] = ()  # how likely each kind is to be drawn; empty: all alike (T2)
    cache: str = ""  # folder for rendered scenes and the indexes of shards; empty: $BENCH_CACHE/recipe
    workers: int = 0
    max_bad: int = 0  # draws of unreadable samples that may be skipped: one that is drawn again counts again


@dataclass(frozen=True)
class TrainConfig:
    """Steps, batch and where it runs."""

    steps: int = 90000
    batch_size: int = 8192  # global: over all processes and micro-batches
    accumulate: int = 1  # micro-batches a step; the contrastive loss still sees the whole batch
    seed: int = 0
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    shards: int = 0  # fsdp: processes that hold the weights together, each such group all of them; 0: all processes
    compile: bool = False
    activation_checkpointing: bool = False
    threads: int = 0  # CPU threads; 0: as torch is set
    log_every: int = 50
    checkpoint_every: int = 1000
    keep: int = 2  # checkpoints
    validate_every: int = 0  # steps between held-out retrieval checks; 0: never
    validate_samples: int = 500
    evaluate_every: int = 0  # steps between the nine `scenes` tasks through the ordinary engine; 0: never


@dataclass(frozen=True)
class GuardConfig:
    """When training stops by itself (ours)."""

    min_entropy: float = 0.2  # of the mean prototype assignment, as a share of log(prototypes)
    min_feature_std: float = 0.01  # of the normalised CLS over the batch, times sqrt(width)
    patience: int = 20  # consecutive log points below a limit
    after: float = 0.05  # share of the run before which nothing is judged


@dataclass(frozen=True)
class TeacherConfig:
    """Distillation: a frozen teacher; empty path: self-distillation (T2 pre-training)."""

    path: str = ""  # as init_from
    # Whose projector gives the targets: the teacher's own; one of its width that is trained on its tokens first, for
    # weights that come without (ours: the authors' projectors are not public); the moving average of the student's.
    heads: Literal["frozen", "warm", "ema"] = "frozen"
    warmup_steps: int = 2000  # ours: of the projector's training ("warm"), at the run's own batch and rate
    mask: bool = False  # T2: no masking when distilling


@dataclass(frozen=True)
class RecipeConfig:
    """A whole run."""

    name: str = "recipe"
    # Weights that start this stage: a folder of `bench train`, of transformers or of an official .npz pair, a file of
    # such a pair, a model of `bench ls models`, or its id on the hub (google/tipsv2-b14).
    init_from: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def digest(self) -> str:
        """64 hex digits over all that changes the weights: not where it runs, logs or keeps checkpoints."""
        train = dataclasses.replace(
            self.train, device="auto", log_every=0, checkpoint_every=0, keep=0, validate_every=0, evaluate_every=0
        )
        return fingerprint(
            dataclasses.replace(self, train=train, data=dataclasses.replace(self.data, cache="", workers=0))
        )
