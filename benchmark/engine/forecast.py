"""`bench plan`: what a run would cost, counted from the plan and timed on a few real batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmark.contracts import Encoder, ImageRequest, Need
from benchmark.engine.context import silent
from benchmark.engine.encoders import display_name, load_encoder, model_stamp
from benchmark.engine.jobs import Job, JobMaker, resolve_units, slot_of
from benchmark.engine.options import RunOptions
from benchmark.errors import BenchError
from benchmark.features import codec as codecs
from benchmark.features.plan import DENSE, Pass, Planner
from benchmark.features.store import FeatureStore, shard_items
from benchmark.registry import Unit

CALIBRATION_S = 10.0


@dataclass
class Line:
    """One unit's share of the plan."""

    unit: str
    images: int  # pictures its needs touch
    forwards: int  # that it would cost alone
    shared: int  # of these, already encoded for a unit above
    head_rows: int  # training vectors its head is fitted on
    disk: int  # bytes it adds
    seconds: float  # of encoding it adds
    note: str = ""  # done, not applicable, data missing


@dataclass
class Forecast:
    """The plan of one model."""

    model: str
    lines: list[Line]
    images_per_s: dict[tuple[int, int], float]
    memory: int  # bytes, the largest arrays held at once

    @property
    def forwards(self) -> int:
        return sum(line.forwards - line.shared for line in self.lines)

    @property
    def forwards_unshared(self) -> int:
        return sum(line.forwards for line in self.lines)


def forecast(models: Sequence[str], words: Sequence[str], suite: str | None, options: RunOptions) -> list[Forecast]:
    """The plan of each model, with the encoder's speed measured for at most ten seconds.

    Units whose data is missing are listed with the reason. Raises UsageError for unknown names.
    """
    found, preset = resolve_units(words, suite)
    maker = JobMaker(options, preset, silent)
    jobs: list[tuple[Unit, Job | str]] = []
    for unit in found:
        try:
            jobs.append((unit, maker.make(unit)))
        except BenchError as e:
            if e.exit_code == 2:
                raise
            jobs.append((unit, str(e)))
    return [_one(name, jobs, options) for name in models]


def _one(name: str, jobs: Sequence[tuple[Unit, Job | str]], options: RunOptions) -> Forecast:
    stamp = model_stamp(name, options.weights)
    encoder = load_encoder(
        name, weights=options.weights, backend=options.backend, device=options.device, dtype=options.dtype,
        offline=options.offline, trust_remote_code=options.trust_remote_code, options=options.model_options,
    )  # fmt: skip
    planner = Planner(encoder.card, encoder.transform, FeatureStore(options.cache / "features", options.store))
    rates: dict[tuple[int, int], float] = {}
    lines, memory = [], 0
    planned: set[tuple[str, str]] = set()
    for unit, job in jobs:
        if isinstance(job, str):
            lines.append(Line(str(unit), 0, 0, 0, 0, 0, 0.0, job))
            continue
        reason = job.task.not_applicable(encoder.card, job.protocol.values)
        if job.task.needs_text and not encoder.card.has_text:
            reason = "no text tower"
        if reason:
            lines.append(Line(str(unit), 0, 0, 0, 0, 0, 0.0, f"n/a: {reason}"))
            continue
        if slot_of(job, name, stamp, options).finished():
            lines.append(Line(str(unit), 0, 0, 0, 0, 0, 0.0, "done"))
            continue
        line, held = _line(unit, job, encoder, planner, planned, rates, options)
        lines.append(line)
        memory = max(memory, held)
    return Forecast(display_name(name, options.weights), lines, rates, memory)


def _line(
    unit: Unit, job: Job, encoder: Encoder, planner: Planner, planned: set[tuple[str, str]],
    rates: dict[tuple[int, int], float], options: RunOptions,
) -> tuple[Line, int]:  # fmt: skip
    needs = job.task.needs(encoder.card, job.protocol.values, job.data)
    before = {id(a) for p in planner.passes.values() for a in p.taps.values()}
    planner.add(needs)
    line = Line(str(unit), 0, 0, 0, 0, 0, 0.0)
    memory = 0
    for shared in {id(p): p for p in map(planner.of, needs)}.values():
        n = len(shared.images)
        key = (shared.images.digest, shared.view.fingerprint())
        line.images += n
        line.forwards += n
        if key in planned:
            line.shared += n
        else:
            planned.add(key)
            todo = _missing(shared)
            if todo:
                line.seconds += todo / _rate(encoder, shared, rates, options)
    for need in needs:
        array = planner.array(need)
        values = _values(need, encoder, planner)
        if id(array) not in before and array.missing():
            line.disk += values * len(need.images) * codecs.bytes_per_value(array.codec)
        if need.tap.name == "pixels":
            line.head_rows += need.tap.count * len(need.images)
            memory += 4 * values * len(need.images)
        memory += 4 * values * shard_items(len(need.images))
    return line, memory


def _missing(shared: Pass) -> int:
    any_array = next(iter(shared.taps.values()))
    return sum(len(any_array.shard_range(s)) for s in shared.missing())


def _values(need: Need, encoder: Encoder, planner: Planner) -> int:
    card = encoder.card
    view = planner.of(need).view
    side = view.transform.crop or view.transform.size if view.transform else card.image_size
    grid = -((-side // card.patch_size) ** 2)
    width = card.text_dim if need.tap.name == "text_patches" else card.embed_dim
    if need.tap.name in DENSE:
        return grid * width
    return width * {"pixels": need.tap.count, "cls": card.num_cls}.get(need.tap.name, 1)


def _rate(encoder: Encoder, shared: Pass, rates: dict[tuple[int, int], float], options: RunOptions) -> float:
    """Images per second for this view's size: one warm-up batch, then as many as fit in the time, at least one."""
    first = torch.from_numpy(shared.view.lay(shared.images.load(0)))
    size = (first.shape[1], first.shape[2])
    if size not in rates:
        batch = first[None].expand(options.batch_size or 8, -1, -1, -1).contiguous()
        device = str(getattr(encoder, "device", "cpu"))
        count, started = 0, time.perf_counter()
        with torch.inference_mode():
            encoder.encode_image(batch[:1].to(device), ImageRequest())
            begun = time.perf_counter()
            while count == 0 or (time.perf_counter() - started < CALIBRATION_S and count < 20 * len(batch)):
                _wait(encoder.encode_image(batch.to(device), ImageRequest()))
                count += len(batch)
        rates[size] = count / (time.perf_counter() - begun)
    return rates[size]


def _wait(features: Any) -> None:
    features.cls.float().sum().item()  # an accelerator has only been asked until a value is read
