"""The linear segmentation of DINOv2, DINOv3 and the paper: train the head, then slide it over every test picture.

The head of the last step is scored: nothing is chosen on the reported split.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmark.contracts import Answer, Encoder, KeptHead, Outcome, SegmentationData, TaskContext, ignored_label
from benchmark.errors import BenchError, DataError, first_line
from benchmark.images.decode import within
from benchmark.images.photos import Photos
from benchmark.metrics.segmentation import confusion_areas
from tasks.dense import stack_rows
from tasks.mm.crops import EncodedCrops
from tasks.mm.curve import curve_files
from tasks.mm.data import SegmentationSource, collate, processes, test_pipeline
from tasks.mm.library import EncoderDecoder
from tasks.mm.model import segmentor
from tasks.mm.protocol import MmProbe
from tasks.mm.train import train
from tasks.predictions import Predictions
from tasks.segmentation_scores import cross_check, segmentation_outcome


def run(context: TaskContext, protocol: MmProbe) -> Outcome:
    """Trains and scores; samples are per-image class areas at full resolution."""
    started = time.perf_counter()
    test = context.data["test"]
    classes = len(test.class_names)
    protocol = protocol.sized(context.card.image_size)
    model = segmentor(context.encoder(), protocol, classes)
    curve = train(context, model, protocol)
    trained = time.perf_counter()
    check, kept = cross_check(context, classes), Predictions(context, "segmentation")
    rows = []
    for index, prediction in predictions(context, model, protocol):
        target = test.target(index)
        rows.append({"id": test.images.image_id(index), **confusion_areas(prediction, target, classes).columns()})
        kept.add(index, prediction)
        if check:
            check.add(prediction, target)
    samples = stack_rows(rows)
    outcome = segmentation_outcome(
        samples,
        test.class_names,
        {"final_loss": curve.rows[-1][2] if curve.rows else None},
        check,
        {**curve_files(curve), **kept.files(samples)},
        fit_s=trained - started,
        score_s=time.perf_counter() - trained,
    )
    use = {"names": list(test.class_names), "palette": np.asarray(test.palette or []).tolist()}
    arrays = {name: values.clone() for name, values in model.decode_head.state_dict().items()}
    outcome.head = KeptHead("segmentation", arrays, use)
    return outcome


def answer(protocol: MmProbe, head: KeptHead, encoder: Encoder, device: str, picture: np.ndarray) -> Answer:
    """The classes that a kept head sees in a picture, by the windows of the test; no finer than it is shown there.

    Raises DataError where its arrays do not fit."""
    protocol = protocol.sized(encoder.card.image_size)
    model = segmentor(encoder, protocol, len(head.use["names"]))
    try:
        model.decode_head.load_state_dict(dict(head.arrays))
    except RuntimeError as e:
        raise DataError(f"the kept head does not fit its protocol: {first_line(e)}") from None
    height, width = picture.shape[:2]
    shown = within(picture, round(protocol.short_side * max(height, width) / min(height, width)))
    source = SegmentationSource(OnePicture(shown, head.use["names"]), test_pipeline(protocol), test_mode=True)
    model.to(device).eval()
    with torch.inference_mode():
        (sample,) = model.test_step(collate([source[0]]))
    return Answer(shown, sample.pred_sem_seg.data[0].cpu().numpy())


class OnePicture(SegmentationData):
    """A picture [H, W, 3] uint8 that nobody labelled, as the pipelines of the test read data."""

    digest = ""

    def __init__(self, shown: np.ndarray, names: Sequence[str]) -> None:
        self.images, self.class_names = Photos([shown]), names

    def target(self, index: int) -> np.ndarray:
        return np.full(self.images.load(index).shape[:2], ignored_label(len(self.class_names)))


def step_source(context: TaskContext, protocol: MmProbe) -> EncodedCrops:
    """The crops that the head is trained on, encoded."""
    protocol = protocol.sized(context.card.image_size)
    model = segmentor(context.encoder(), protocol, len(context.data["train"].class_names))
    return EncodedCrops(context, model.to(context.device), protocol)


def predictions(context: TaskContext, model: EncoderDecoder, protocol: MmProbe) -> Iterator[tuple[int, torch.Tensor]]:
    """Index and [H, W] classes of every test picture, by EncoderDecoder's sliding windows."""
    source = SegmentationSource(context.data["test"], test_pipeline(protocol), test_mode=True)
    loader = DataLoader(Safe(source), batch_size=1, collate_fn=collate, **processes(context.device))
    bar = context.progress("scoring segmentation", len(source))
    model.eval()
    for index, batch in enumerate(loader):
        if isinstance(batch, BenchError):
            raise batch
        with torch.inference_mode():
            (sample,) = model.test_step(batch)
        yield index, sample.pred_sem_seg.data[0]
        bar.advance()


class Safe(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Test pictures; an error comes back as the item, so that its one line survives a worker."""

    def __init__(self, source: SegmentationSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> object:
        try:
            return self.source[index]
        except BenchError as e:
            return e
