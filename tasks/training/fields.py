"""The protocol fields every trained head has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmark.contracts import EncoderCard
from benchmark.protocol import FileDigest
from benchmark.system.bounds import Amount, Count, Decay, Layer, NotNegative, Positive, Ratio, Share
from benchmark.system.plurals import number_of
from tasks.block_cls import last_block


@dataclass(frozen=True)
class TrainedHead:
    """How a dense head is built, trained and tested. Sizes are in pixels, (height, width)."""

    # the head
    head: Literal["linear", "dpt"]
    head_weights: FileDigest  # a released DPT head: nothing is trained; "" trains one
    layers: tuple[Layer, ...]  # blocks a DPT head reads; empty: the ends of the quarters of the encoder's depth
    final_norm: bool  # whether block outputs go through the encoder's final norm
    channels: Count  # width of a DPT head's fusion
    upsample: Count  # a linear head's features are first up-sampled by this (bilinear)
    with_cls: bool  # a linear head's features are patch and first CLS of the last block together; a DPT head's always
    batch_norm: bool  # before a linear head; a DPT head has none
    init: Literal["torch", "normal", "lecun"]  # torch's own; N(0, 0.01) and zero bias; Flax's
    # pictures
    resize: Amount  # stretched to a square of this size first; 0: left alone
    resize_filter: Literal["bicubic", "bilinear"]  # of that stretch, antialiased; maps take the nearest value
    train_square: bool  # training pictures are cut to their middle square
    test_square: bool  # test pictures too
    border_crop: Literal["none", "nyu"]  # of training pictures: rows 45–471 and columns 43–607 of 480 × 640
    # augmentation, in this order
    rotate_p: Share
    rotate_degrees: NotNegative
    flip_p: Share
    crop: tuple[Count, ...]  # random crop of (height, width); empty: none
    resized_crop_p: Share  # a random square crop of at least `resized_crop_area`, resized back by nearest neighbour
    resized_crop_area: Ratio
    colour: Literal["gamma", "jitter"]  # DINOv2's gamma, brightness, tint; torchvision's ColorJitter
    colour_p: Share
    # gamma: ± of gamma, brightness, tint; jitter: brightness, contrast, saturation, hue
    colour_ranges: tuple[NotNegative, ...]
    # steps
    steps: Count
    batch_size: Count
    learning_rate: Positive
    beta1: Decay
    beta2: Decay
    weight_decay: NotNegative
    schedule: Literal["cosine", "quarter_cosine", "one_cycle", "constant"]
    final_ratio: NotNegative  # last learning rate over the first
    warmup_steps: Amount
    warmup_ratio: Share  # first learning rate of the warm-up over the full one
    momentum: Literal["fixed", "one_cycle", "rising"]  # of AdamW's β₁: mmcv's one-cycle; DINOv3's
    clip: NotNegative  # of the gradient's norm; 0: none
    # test
    flip_test: bool  # mean of the prediction and that of the mirrored picture
    interpolation: Literal["bilinear", "bicubic"]  # of the head's map to the picture's size, in training too
    align_corners: bool
    unpad: bool  # the border that pads a picture to whole patches is cut off; otherwise its map is stretched
    average: Literal["image", "pooled"]  # which RMSE is the main one; both are reported

    def __post_init__(self) -> None:
        need = {"gamma": 3, "jitter": 4}[self.colour]
        if len(self.colour_ranges) != need:
            raise ValueError(f"colour_ranges has {len(self.colour_ranges)} values, {self.colour} needs {need}")
        if len(self.crop) not in (0, 2):
            raise ValueError("crop must be [height, width] or empty")
        if self.layers and (self.head != "dpt" or len(self.layers) != 4):
            raise ValueError("layers are the four blocks of a DPT head, or empty")
        if self.head == "dpt" and not self.with_cls:
            raise ValueError("with_cls = false: a DPT head reads the CLS of every layer. Use head = linear")
        if self.head == "dpt" and self.batch_norm:
            raise ValueError("batch_norm = true: a DPT head has none. Use head = linear")
        if self.head_weights and self.head != "dpt":
            raise ValueError("head_weights needs head = dpt")

    def blocks(self, card: EncoderCard) -> tuple[int, ...]:
        """The blocks to ask the encoder for; none where a linear head reads the final patches alone."""
        if self.head == "linear":
            return last_block(card, self.with_cls or not self.final_norm)
        from benchmark.heads.dpt import quarters  # imports torch

        return self.layers or quarters(card.depth)


def missing_layers(card: EncoderCard, protocol: TrainedHead) -> str | None:
    """Why the encoder lacks what the head reads, or None."""
    if not (protocol.final_norm or card.has_raw_layers):
        return f"{card.name} gives no layers without its final norm. Try --set final_norm=true"
    if protocol.head == "linear":
        return None
    if not protocol.layers and card.depth < 4:
        return f"{card.name} has {number_of(card.depth, 'layer')}, a DPT head reads four"
    for layer in protocol.layers:
        if not -card.depth <= layer < card.depth:
            return f"{card.name} has {number_of(card.depth, 'layer')}, the protocol asks for layer {layer}"
    return None
