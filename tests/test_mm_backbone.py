"""The frozen backbone, the head, the schedules and the training sequence of the mmengine probe."""

from __future__ import annotations

import dataclasses
import math
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from small import Noise, SmallEncoder

from benchmark.contracts import ImageRequest, SegmentationData
from benchmark.errors import BenchError, DataError, EncoderError
from benchmark.protocol import load_protocol
from benchmark.registry import load_task, protocol_file
from tasks.mm.backbone import EncoderBackbone
from tasks.mm.checkpoint import Curve
from tasks.mm.data import Positions, SegmentationSource, Steps, processes, training_loader, training_pipeline
from tasks.mm.library import MODELS, CompiledOps, Config, DefaultScope
from tasks.mm.model import segmentor
from tasks.mm.schedule import factor


def protocol(name: str = "paper", dataset: str | None = None, **fields: str):
    task = load_task("linear_segmentation")
    return load_protocol(task.name, task.schemas, protocol_file(task.name), name, fields, dataset).values


def small(**fields: str):
    return protocol(batch_size="2", short_side="40", crop="32", window="32", stride="20", **fields)


class Blobs(SegmentationData):
    """Pictures of two sizes with masks of three classes."""

    class_names: tuple[str, ...] = ("a", "b", "c")
    background, digest = None, "d"

    def __init__(self, n: int = 5, bad: int = -1, classes: int = 3) -> None:
        self.images, self.bad = Noise(n), bad
        self.class_names = tuple(map(str, range(classes)))

    def target(self, index: int) -> np.ndarray:
        if index == self.bad:
            raise DataError(f"mask {index}: cannot be read")
        classes = len(self.class_names)
        values = np.random.default_rng(index).integers(0, classes, (40, 48))
        return values.astype(np.int32 if classes > 255 else np.uint8)


def test_a_compiled_op_says_that_it_is_missing():
    assert isinstance(sys.modules["mmcv._ext"], CompiledOps)
    with pytest.raises(BenchError, match=r"mmcv\._ext\.nms is a compiled op"):
        sys.modules["mmcv._ext"].nms()


def test_backbone_gives_the_encoders_own_tokens():
    encoder = SmallEncoder()
    images = torch.rand(2, 3, 32, 48)
    out = encoder.encode_image(images)
    (tokens,) = EncoderBackbone(encoder)(images)
    torch.testing.assert_close(tokens, out.patches.permute(0, 3, 1, 2))
    (both,) = EncoderBackbone(encoder, with_cls=True)(images)
    assert both.shape == (2, 12, 4, 6)
    torch.testing.assert_close(both[:, 6:, 1, 2], out.cls[:, 0])


def test_preprocessor_statistics_are_undone_and_padding_is_the_mean_colour():
    encoder = SmallEncoder()
    encoder.transform = dataclasses.replace(encoder.transform, mean=(0.2, 0.4, 0.6))
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    pixels = torch.rand(1, 3, 30, 32)
    shaped = [torch.tensor(v).view(3, 1, 1) for v in (mean, std)]
    (tokens,) = EncoderBackbone(encoder, mean=mean, std=std)((pixels * 255 - shaped[0]) / shaped[1])
    canvas = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 32, 32).clone()
    canvas[:, :, 1:31] = pixels  # two rows are missing: one above, one below
    expected = encoder.encode_image(canvas).patches.permute(0, 3, 1, 2)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-5)


def test_layers_are_concatenated_by_the_head_and_only_the_head_is_trained():
    encoder = SmallEncoder()
    fields = small(layers="[0, -1]")
    model = segmentor(encoder, fields, 3)
    maps = model.extract_feat(torch.rand(2, 3, 32, 32))
    wanted = encoder.encode_image(torch.zeros(1, 3, 32, 32), ImageRequest((0, -1))).layers
    assert len(maps) == len(wanted) == 2 and model.decode_head.in_channels == 12
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names == {f"decode_head.{n}" for n in ("conv_seg.weight", "conv_seg.bias", "norm.weight", "norm.bias")}


def test_backbone_is_built_by_mmsegmentations_registry():
    built = MODELS.build({"type": "densebench.Encoder", "encoder": "pixels", "device": "cpu"})
    assert built.encoder.card.name == "pixels" and built.channels == [8]


def test_a_batch_that_does_not_fit_is_encoded_in_halves():
    images = torch.rand(5, 3, 32, 32) * 255
    (whole,), (halves,) = (EncoderBackbone(SmallEncoder(fail_above=k))(images) for k in (8, 2))
    torch.testing.assert_close(whole, halves)
    with pytest.raises(BenchError, match="one .32, 32. picture does not fit"):
        EncoderBackbone(SmallEncoder(fail_above=0))(images)


def test_tokens_that_are_not_finite_are_an_error():
    with pytest.raises(EncoderError, match="small: patch tokens hold NaN"):
        EncoderBackbone(SmallEncoder(nan_at=0))(torch.rand(2, 3, 32, 32))


def test_poly_schedule_is_the_product_of_warm_up_and_decay():
    paper = protocol()
    assert factor(paper, 0) == pytest.approx(1e-6)
    assert factor(paper, 750) == pytest.approx((1 - 750 / 40000) * (1 - 0.5 * (1 - 1e-6)))
    assert factor(paper, 1500) == pytest.approx(1 - 1500 / 40000)
    assert factor(paper, 39999) == pytest.approx(1 / 40000)


def test_cosine_schedule_is_dinov3s():
    dinov3 = protocol("dinov3")
    assert factor(dinov3, 0) == factor(dinov3, 1) == pytest.approx(1e-6)
    assert factor(dinov3, 751) == pytest.approx((1 - 750 / 40000) * (1 - 0.5 * (1 - 1e-6)))
    assert factor(dinov3, 20000) == pytest.approx(0.5)
    assert factor(dinov3, 39999) == pytest.approx(0.5 * (1 + math.cos(math.pi * 39999 / 40000)))


def test_presets_differ_where_their_sources_do():
    paper, dinov2, dinov3 = (protocol(n, "ade20k") for n in ("paper", "dinov2", "dinov3"))
    assert paper == dinov2 and paper.long_side == 0
    changed = {f.name for f in dataclasses.fields(paper) if getattr(paper, f.name) != getattr(dinov3, f.name)}
    assert changed == {"dropout", "dropout_first", "schedule", "weight_decay", "antialias", "hue_delta", "saturation"}
    assert protocol("paper", "voc2012").long_side == 2048


def test_each_epoch_shows_every_picture_once_in_its_own_order():
    data = Positions(SegmentationSource(Blobs(), training_pipeline(small(), 3)), seed=0)
    epochs = [[data.index(5 * e + i) for i in range(5)] for e in range(4)]
    assert all(sorted(e) == list(range(5)) for e in epochs) and len(set(map(tuple, epochs))) > 1
    assert [data.index(i) for i in range(5)] != [Positions(data.source, 1).index(i) for i in range(5)]


def test_a_step_sees_the_same_crops_whatever_came_before_and_however_many_workers(monkeypatch):
    fields = small(steps="4")
    source = SegmentationSource(Blobs(), training_pipeline(fields, 3))
    first = list(training_loader(source, fields, 0, range(fields.steps), "cpu"))
    later = list(training_loader(source, fields, 0, range(2, 4), "cpu"))
    monkeypatch.setattr("tasks.mm.data.workers", lambda device: 1)  # imports what it needs anew, as every one would
    parallel = list(training_loader(source, fields, 0, range(2, 4), "cpu"))
    assert len(first) == 4 and len(later) == len(parallel) == 2
    for a, b, c in zip(first[2:], later, parallel):
        for x, y, z in zip(a["inputs"], b["inputs"], c["inputs"]):
            assert torch.equal(x, y) and torch.equal(x, z)
    assert not torch.equal(first[0]["inputs"][0], first[1]["inputs"][0])


def test_the_callers_random_numbers_are_left_alone():
    source = Positions(SegmentationSource(Blobs(), training_pipeline(small(), 3)), 0)
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    source[0]
    assert np.random.random() == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_mask_stays_one_line(monkeypatch, workers):
    monkeypatch.setattr("tasks.mm.data.workers", lambda device: workers)
    fields = small(steps="3")
    loader = training_loader(
        SegmentationSource(Blobs(bad=1), training_pipeline(fields, 3)), fields, 0, range(fields.steps), "cpu"
    )
    try:
        found = next(b for b in loader if isinstance(b, BenchError))
    except DataError as e:
        found = e
    assert str(found) == "mask 1: cannot be read"


def test_more_than_255_classes_are_trained_on_with_their_own_numbers():
    fields = small()
    source = SegmentationSource(Blobs(classes=300), training_pipeline(fields, 300))
    item = Positions(source, 0)[0]
    labels = item["data_samples"].gt_sem_seg.data
    assert labels.max() > 255 and segmentor(SmallEncoder(), fields, 300).decode_head.ignore_index == -1


def test_steps_are_consecutive_positions():
    assert list(Steps(range(1, 3), 2)) == [[2, 3], [4, 5]]


def test_curve_averages_over_its_window_and_continues_after_a_restore():
    curve = Curve(2)
    for step, loss in enumerate((4.0, 2.0, 1.0), 1):
        curve.add(step, 0.1, loss, 50.0)
    again = Curve(2, list(curve.rows), list(curve.pending))
    again.add(4, 0.1, 3.0, 50.0)
    assert again.text.splitlines()[1:] == ["2,0.1,3,50", "4,0.1,2,50"]


def test_layer_features_keep_their_order_in_halves():
    first, second = EncoderBackbone(SmallEncoder(fail_above=1), (0, 1))(255 * torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(first, 2 * second)  # SmallEncoder scales by block number


def test_worker_processes_can_be_spawned_where_fork_is_forbidden(monkeypatch):
    fields = small(steps="2")
    source = SegmentationSource(Blobs(), training_pipeline(fields, 3))
    here = list(training_loader(source, fields, 0, range(fields.steps), "cpu"))
    monkeypatch.setattr("tasks.mm.data.workers", lambda device: 1)
    monkeypatch.setitem(sys.modules, "jax", sys)
    assert processes("cuda")["multiprocessing_context"] == "spawn"
    there = pickle.loads(pickle.dumps(Positions(source, 0)))  # what spawning does with it
    assert torch.equal(there[0]["inputs"], here[0]["inputs"][0])


def test_an_encoder_in_an_mmsegmentation_config_predicts_and_stays_frozen(tmp_path):
    file = tmp_path / "model.py"
    file.write_text(
        "custom_imports = dict(imports=['tasks.mm.backbone'])\n"
        "norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])\n"
        "model = dict(type='EncoderDecoder',\n"
        "    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, **norm),\n"
        "    backbone=dict(type='densebench.Encoder', encoder='pixels', device='cpu', **norm),\n"
        "    decode_head=dict(type='FCNHead', in_channels=8, channels=4, num_convs=1, num_classes=3),\n"
        "    test_cfg=dict(mode='whole'))\n"
    )
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope("mmseg"):
        warnings.simplefilter("ignore")
        model = MODELS.build(Config.fromfile(str(file)).model).eval()
    picture = Noise(1, 40, 48).load(0)
    batch = {"inputs": [torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)]}
    (sample,) = model.test_step(batch)
    assert sample.pred_sem_seg.data.shape == (1, 40, 48)
    prepared = model.data_preprocessor(batch)["inputs"]
    expected = model.backbone.encoder.encode_image(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255).patches
    torch.testing.assert_close(model.backbone(prepared)[0], expected.permute(0, 3, 1, 2), rtol=0, atol=1e-5)
    assert not list(model.backbone.parameters())
