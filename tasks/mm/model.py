"""The segmentor of the linear probe: mmsegmentation's EncoderDecoder with a frozen encoder and a linear head."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchmark.contracts import Encoder, StepInput, ignored_label
from tasks.mm.backbone import BACKBONES
from tasks.mm.library import (
    BaseDecodeHead,
    Config,
    DefaultScope,
    EncoderDecoder,
    PixelData,
    SegDataPreProcessor,
    SegDataSample,
)
from tasks.mm.protocol import MmProbe


@BACKBONES.register_module()
class LinearHead(BaseDecodeHead):  # type: ignore[misc]
    """Batch norm, dropout of whole channels and a 1 × 1 convolution; on one device batch norm is SyncBN."""

    def __init__(self, in_channels: Sequence[int], batch_norm: bool, dropout_first: bool, **more: Any) -> None:
        width = sum(in_channels)
        super().__init__(
            list(in_channels), width, in_index=list(range(len(in_channels))), input_transform="resize_concat", **more
        )
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.dropout_first = dropout_first

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """[B, C, h, w] logits."""
        tokens = self._transform_inputs(inputs)
        if self.dropout is not None and self.dropout_first:
            logits: torch.Tensor = self.conv_seg(self.norm(self.dropout(tokens)))
        else:
            logits = self.cls_seg(self.norm(tokens))
        return logits


class Segmentor(EncoderDecoder):  # type: ignore[misc]
    """EncoderDecoder whose training steps read what the frozen encoder has made of their crops."""

    def encoded(self, batch: Any) -> StepInput:
        """`labels` [B, H, W] int32 of a batch of crops, and `map.0` … [B, D, h, w], the encoder's of each layer."""
        data = self.data_preprocessor(batch, True)
        labels = torch.cat([sample.gt_sem_seg.data for sample in data["data_samples"]])
        maps = self.extract_feat(data["inputs"])
        return {"labels": labels.int(), **{f"map.{i}": found for i, found in enumerate(maps)}}

    def train_step(self, data: Mapping[str, torch.Tensor], optim_wrapper: Any) -> dict[str, torch.Tensor]:
        """One step of the head on what `encoded` gives; its losses."""
        device = self.decode_head.conv_seg.weight.device
        maps = [data[f"map.{i}"].to(device) for i in range(len(data) - 1)]
        labels = data["labels"].to(device).long()
        samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in labels]
        with optim_wrapper.optim_context(self):
            losses = self._decode_head_forward_train(maps, samples)
        loss, said = self.parse_losses(losses)
        optim_wrapper.update_params(loss)
        found: dict[str, torch.Tensor] = said
        return found


def segmentor(encoder: Encoder, protocol: MmProbe, classes: int) -> Segmentor:
    """The model: pictures come as BGR bytes, as mmsegmentation's pipelines make them."""
    mean = [255 * m for m in encoder.transform.mean]  # padding after this is zero after the encoder's normalisation
    backbone = {"type": "densebench.Encoder", "encoder": encoder, "layers": protocol.layers, "mean": mean,
                "with_cls": protocol.with_cls}  # fmt: skip
    preprocessor = SegDataPreProcessor(
        mean=mean,
        std=[255.0] * 3,
        bgr_to_rgb=True,
        size=(protocol.crop, protocol.crop),
        seg_pad_val=ignored_label(classes),
    )
    width = encoder.card.embed_dim * (2 if protocol.with_cls else 1)
    head = {
        "type": "densebench.LinearHead", "in_channels": [width] * len(protocol.layers), "num_classes": classes,
        "out_channels": classes, "batch_norm": protocol.batch_norm, "dropout_ratio": protocol.dropout,
        "dropout_first": protocol.dropout_first, "align_corners": False, "ignore_index": ignored_label(classes),
        "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": protocol.loss_mean == "labelled"},
    }  # fmt: skip
    slide = {"mode": "slide", "crop_size": (protocol.window,) * 2, "stride": (protocol.stride,) * 2}
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope("mmseg"):
        warnings.simplefilter("ignore")  # of its own deprecated builder, and of the loss average, which is a field here
        return Segmentor(backbone, head, test_cfg=Config(slide), data_preprocessor=preprocessor)
