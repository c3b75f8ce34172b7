"""Our segmentation data in mmsegmentation's pipelines: one dataset class for every reader (folder, archive, parquet).

What a step sees is a function of (seed, step): the picture at position p of an endless run of shuffled epochs, cut by
random numbers that are seeded for p. So the number of worker processes changes nothing and a resumed run starts where
it stopped.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from benchmark.contracts import IGNORE, SegmentationData, ignored_label
from benchmark.errors import BenchError
from benchmark.system.processes import start_method
from tasks.mm.library import (
    BaseSegDataset,
    PackSegInputs,
    PhotoMetricDistortion,
    RandomCrop,
    RandomFlip,
    RandomResize,
    Resize,
    pseudo_collate,
)
from tasks.mm.pictures import AntialiasedResize, GreyDistortion
from tasks.mm.protocol import MmProbe

NO_CAP = 10**8  # pixels


def training_pipeline(protocol: MmProbe, classes: int) -> list[Any]:
    """Random scale, crop, flip and colours; padding to the crop is the data preprocessor's."""
    steps = [
        RandomResize(
            scale=_scale(protocol), ratio_range=protocol.scale_range, keep_ratio=True, resize_type=_resize(protocol)
        ),
        RandomCrop(
            (protocol.crop, protocol.crop), cat_max_ratio=protocol.cat_max_ratio, ignore_index=ignored_label(classes)
        ),
    ]
    if protocol.flip:
        steps.append(RandomFlip(prob=protocol.flip))
    if protocol.photometric:
        distortion = GreyDistortion if protocol.saturation == "grey" else PhotoMetricDistortion
        steps.append(distortion(hue_delta=protocol.hue_delta))
    return [*steps, PackSegInputs()]


def test_pipeline(protocol: MmProbe) -> list[Any]:
    """The short side scaled; nothing random."""
    return [_resize(protocol)(scale=_scale(protocol), keep_ratio=True), PackSegInputs()]


def _resize(protocol: MmProbe) -> type[Resize]:
    return AntialiasedResize if protocol.antialias else Resize


def _scale(protocol: MmProbe) -> tuple[int, int]:
    return (protocol.long_side or NO_CAP, protocol.short_side)


class SegmentationSource(BaseSegDataset):  # type: ignore[misc]
    """`SegmentationData` as a BaseSegDataset; masks are read only where they are trained on."""

    def __init__(self, data: SegmentationData, pipeline: Sequence[Any], test_mode: bool = False) -> None:
        self.data = data
        self.ignored = ignored_label(len(data.class_names))
        super().__init__(
            metainfo={"classes": tuple(data.class_names)}, pipeline=list(pipeline), test_mode=test_mode,
            serialize_data=False, ignore_index=self.ignored,
        )  # fmt: skip

    def load_data_list(self) -> list[dict[str, Any]]:
        return [{"img_path": self.data.images.image_id(i)} for i in range(len(self.data.images))]

    def __getitem__(self, index: int) -> Any:
        """What the pipeline makes of picture `index`; a picture that cannot be read is an error, never another one."""
        image = self.data.images.picture(index)
        results: dict[str, Any] = {
            "img": np.ascontiguousarray(image[..., ::-1]), "img_path": self.data.images.image_id(index),
            "img_shape": image.shape[:2], "ori_shape": image.shape[:2], "seg_fields": [], "reduce_zero_label": False,
        }  # fmt: skip
        if not self.test_mode:
            target = self.data.target(index)
            if self.ignored == IGNORE:
                target = np.where(target < 0, IGNORE, target).astype(np.uint8) if target.dtype != np.uint8 else target
            results["gt_seg_map"] = target
            results["seg_fields"] = ["gt_seg_map"]
        return self.pipeline(results)


class Positions(Dataset[Any]):
    """The endless training sequence; an error comes back as the item, so that its one line survives a worker."""

    def __init__(self, source: SegmentationSource, seed: int) -> None:
        self.source, self.seed = source, seed
        self.metainfo = source.metainfo
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def index(self, position: int) -> int:
        """The picture at `position`: every epoch is a shuffle of its own."""
        epoch, within = divmod(position, len(self.source))
        if self._order[0] != epoch:
            keys = np.random.PCG64(number(self.seed, "epoch", epoch)).random_raw(len(self.source))
            self._order = epoch, np.argsort(keys, kind="stable")
        return int(self._order[1][within])

    def __getitem__(self, position: int) -> Any:
        try:
            with seeded(number(self.seed, "position", position)):
                return self.source[self.index(position)]
        except BenchError as e:
            if get_worker_info() is None:
                raise
            return e


class Steps(torch.utils.data.Sampler[list[int]]):
    """The positions of each of `steps`, `batch` a step."""

    def __init__(self, steps: Iterable[int], batch: int) -> None:
        self.steps, self.batch = steps, batch

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(s * self.batch, (s + 1) * self.batch)) for s in self.steps)


def training_loader(
    source: SegmentationSource, protocol: MmProbe, seed: int, steps: Iterable[int], device: str
) -> DataLoader[Any]:
    """The batches of `steps`, each number asked for a little before it is due."""
    return DataLoader(
        Positions(source, seed),
        batch_sampler=Steps(steps, protocol.batch_size),
        collate_fn=collate,
        **processes(device),
    )


def processes(device: str) -> dict[str, Any]:
    """The DataLoader's words for its worker processes."""
    count = workers(device)
    return {"num_workers": count, "multiprocessing_context": start_method() if count else None}


def workers(device: str) -> int:
    """Processes that decode and cut; none on a CPU, where they would take from the encoder what they give."""
    return 0 if device == "cpu" else min(8, os.cpu_count() or 1)


def collate(items: list[Any]) -> Any:
    """A batch, or the first error among its items."""
    return next((i for i in items if isinstance(i, BenchError)), None) or pseudo_collate(items)


def number(*parts: object) -> int:
    """32 bits that depend on every part, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """numpy's and Python's global generators, which the pipelines draw from, seeded within and untouched outside."""
    before = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])
