"""The protocol of the linear segmentation probe that mmengine's Runner trains; needs nothing of mm*."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from benchmark.system.bounds import Amount, Bounds, Count, Decay, Layer, NotNegative, Positive, Ratio, Share


@dataclass(frozen=True)
class MmProbe:
    """Batch norm and a 1 × 1 convolution on a frozen encoder, trained on augmented crops, tested on sliding windows.

    Sizes are pixels; 0 is the encoder's own image size, and for the stride 341/512 of the window (`sized`). Whatever is
    padded is zero after the encoder's normalisation, and its label is ignored.
    """

    layers: tuple[Layer, ...]  # blocks whose patch tokens are concatenated; -1 is the last, after its norm
    with_cls: bool  # CLS (first) concatenated to every token
    batch_norm: bool  # the statistics of the batch in training, running ones in the test
    dropout: Decay  # whole channels
    dropout_first: bool  # before the batch norm, not after it
    loss_mean: Literal["all", "labelled"]  # the pixels cross-entropy is averaged over; ignored ones add zero
    steps: Count
    batch_size: Count
    learning_rate: Positive
    betas: tuple[Decay, ...]
    weight_decay: NotNegative
    clip_norm: NotNegative  # of the gradient; 0: not clipped
    schedule: Literal["poly", "cosine"]
    poly_power: NotNegative  # poly only
    warmup_steps: Amount
    warmup_ratio: Share  # share of the rate at step 0
    short_side: Amount  # pictures are scaled to it, in training times a factor from scale_range, and in the test
    long_side: Amount  # … unless the long side would pass this; 0: no cap
    antialias: bool  # scaled by Pillow's bilinear filter, which is antialiased, or by OpenCV's, which is not
    scale_range: tuple[Positive, ...]
    crop: Amount  # training crops; smaller pictures are padded at the bottom and right
    cat_max_ratio: Ratio  # a crop whose commonest class covers more is drawn again, at most ten times
    flip: Share  # probability
    photometric: bool  # mmsegmentation's PhotoMetricDistortion; the next two are of it alone
    hue_delta: Annotated[int, Bounds(1, 90)]  # hue turns by up to this, of 180 for the whole circle, either way
    saturation: Literal["hsv", "grey"]  # scaled in HSV, or by blending with the grey picture
    window: Amount  # test
    stride: Amount
    voc_train: Literal["train", "trainaug"]  # the training list on VOC 2012; no other dataset has a choice

    def __post_init__(self) -> None:
        pairs = {"betas": self.betas, "scale_range": self.scale_range}
        if wrong := [name for name, value in pairs.items() if len(value) != 2]:
            raise ValueError(f"{wrong[0]} must have two values")
        if not self.layers:
            raise ValueError("layers must be at least 1")
        if self.window and self.stride > self.window:
            raise ValueError(f"stride {self.stride} is larger than the window {self.window}")
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"scale_range {list(self.scale_range)} must rise from above zero")

    def sized(self, image_size: int) -> MmProbe:
        """With every size in pixels, for an encoder whose own image size is `image_size`."""
        window = self.window or image_size
        return replace(
            self,
            short_side=self.short_side or image_size,
            crop=self.crop or image_size,
            window=window,
            stride=self.stride or max(1, window * 341 // 512),
        )
