"""Each point of the source goes to the nearest patch of the target; PCK is the share that lands well."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmark.contracts import EncoderCard, Measurement, Method, Need, Outcome, Tap, Task, TaskContext, View
from benchmark.statistics.statistic import Statistic
from benchmark.system.bounds import Amount, Positive


@dataclass(frozen=True)
class NearestPatch:
    """The fields of its presets."""

    view_size: Amount  # pixels; 0: the encoder's
    alpha: Positive  # a point lands well within this share of the picture's side


class NearestPatchMethod(Method[NearestPatch]):
    """Nearest patch by cosine."""

    schema = NearestPatch

    def needs(self, card: EncoderCard, data: Mapping[str, Any]) -> Mapping[str, Need]:
        view = View("square", self.protocol.view_size)
        sides = data["test"].pictures().items()
        return {f"{side}/patches": Need(images, view, Tap("patches")) for side, images in sides}

    def run(self, context: TaskContext) -> Outcome:
        """Distances of every point; the points of a pair are resampled together."""
        data, started = context.data["test"], time.perf_counter()
        readers = [context.features(f"{side}/patches") for side in data.pictures()]
        bar = context.progress("looking for points", len(data))
        ids, pairs, distances = [], [], []
        for index in range(len(data)):
            source, target = (normalize(reader[index : index + 1][0], dim=-1) for reader in readers)  # [h, w, D]
            height, width = source.shape[:2]
            for number, ((x, y), truth) in enumerate(zip(data.source_points[index], data.target_points[index])):
                token = source[min(int(y * height), height - 1), min(int(x * width), width - 1)]
                best = int(torch.argmax(target @ token))
                found = (np.array([best % width, best // width]) + 0.5) / (width, height)
                ids.append(f"{data.sources.image_id(index)}#{number}")
                pairs.append(data.sources.image_id(index))
                distances.append(float(np.hypot(*(found - truth))))
            bar.advance()
        near = np.array(distances) <= self.protocol.alpha
        samples = {"id": np.array(ids), "pair": np.array(pairs), "distance": np.array(distances), "hit": near * 1.0}
        return Outcome(
            samples,
            [Measurement("PCK", Statistic("mean", ("hit",), 100.0, cluster="pair"), True, "%"),
             Measurement("distance", Statistic("mean", ("distance",), cluster="pair"), False, "")],
            main_metric="PCK",
            n=len(ids),
            score_s=time.perf_counter() - started,
        )  # fmt: skip


TASK = Task(
    "toy_correspondence",
    "pairs",
    {"nearest_patch": NearestPatchMethod},
    title="Semantic correspondence, toy",
    metric="PCK",
    presets=Path(__file__).with_name("presets.toml"),
)
