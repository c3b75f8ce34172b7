"""`bench plan`: what a run would cost, counted from the plan and timed on a few real batches.

Needs neither the data (then the catalogue's counts are used) nor the weights (then one random block of the same width
is timed, and multiplied by the depth): a run can be planned before anything is downloaded.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmark.contracts import Encoder, EncoderCard, ImageRequest, LabelData, Method, SegmentationData, Task
from benchmark.contracts.progress import silent
from benchmark.engine import costs
from benchmark.engine.identity import model_stamp, named
from benchmark.engine.jobs import Job, JobMaker, refuse_unread
from benchmark.engine.loading import device_of, resolve_device
from benchmark.engine.options import RunOptions
from benchmark.engine.run import Variants
from benchmark.engine.session import Session, encoder_of, refusal
from benchmark.engine.slots import slot_of
from benchmark.engine.suites import choose
from benchmark.engine.target import checkpoints_of
from benchmark.engine.worker import room_for_weights, weight_bytes
from benchmark.errors import BenchError, EncoderError, NotApplicable, first_line, reading, staying
from benchmark.features import codec as codecs
from benchmark.features.extract import held_bytes
from benchmark.features.plan import Pass, input_size, item_values
from benchmark.forecast.lines import Forecast, Line, Size
from benchmark.forecast.stand_in import SHAPE, RandomBlock, absent_data
from benchmark.heads.logistic import held_bytes as fit_bytes
from benchmark.protocol import Change
from benchmark.registry import Unit, load_task, models

CALIBRATION_S = 10.0
CLASSES = 1000  # what a set that is not here is taken to have
SAMPLED = 8  # pictures looked at for their shape
CHEAP = "fast"


@dataclass(frozen=True)
class Sketch:
    """A unit whose data are not here: its task, protocol and counted splits."""

    task: Task
    protocol: Any
    data: Mapping[str, Any]


def forecast(
    models: Sequence[str],
    words: Sequence[str],
    suite: str | None,
    options: RunOptions,
    variants: Variants | None = None,
) -> list[Forecast]:
    """The plan of each model, with the encoder's speed measured for about ten seconds; with the `variants` of `run`.

    Units whose data is missing are counted from the catalogue. Raises UsageError for unknown names.
    """
    chosen = choose(words, suite)
    found, preset = chosen.units, chosen.preset
    refuse_unread(options.overrides, found)
    jobs = _jobs(found, JobMaker(options, preset, silent), options, variants)
    cheap = None
    if variants is None and any((options.protocol or unit.protocol or preset) != CHEAP for unit in found):
        plain = replace(options, protocol=CHEAP, overrides={})
        cheap = (_jobs(found, JobMaker(plain, CHEAP, silent), plain), plain)
    checkpoints = checkpoints_of(options.weights)
    return [_one(name, jobs, replace(options, weights=weights), cheap) for name in models for weights in checkpoints]


Prepared = tuple[Unit, Change | None, Job | Sketch | None, str]
Planned = dict[tuple[str, str], set[int]]  # (pictures, view) of a pass -> its blocks that a unit above has encoded


def _jobs(
    found: Sequence[Unit], maker: JobMaker, options: RunOptions, variants: Variants | None = None
) -> list[Prepared]:
    out: list[Prepared] = []
    for unit in found:
        out.append(_job(unit, maker, options))
        job = out[-1][2]
        if variants and job is not None:
            plain = job.protocol if isinstance(job, Job) else maker.protocol(unit, job.task)
            out += [_job(unit, maker, options, change) for change in variants(plain)]
    return out


def _job(unit: Unit, maker: JobMaker, options: RunOptions, change: Change | None = None) -> Prepared:
    try:
        with staying():
            return unit, change, maker.make(unit, change), ""
    except BenchError as e:
        if e.exit_code == 2:
            raise
        sketch = _sketch(unit, maker, options, change)
        return unit, change, sketch, "data not here: catalogue counts" if sketch else str(e)
    except Exception as e:  # as `run` has it: one data set's reader stops no other
        return unit, change, None, f"{type(e).__name__}: {first_line(e)}"


def _sketch(unit: Unit, maker: JobMaker, options: RunOptions, change: Change | None) -> Sketch | None:
    if unit.path:
        return None
    task = load_task(unit.task)
    protocol = maker.protocol(unit, task, {}, change).values
    method = task.method(protocol)
    asked = {**method.dataset_options(unit.dataset), **options.dataset_options}
    data = {s: absent_data(unit.dataset, task.kind, s, options.limit_of(unit), asked) for s in method.splits()}
    return None if None in data.values() else Sketch(task, protocol, data)


def _one(
    name: str, jobs: Sequence[Prepared], options: RunOptions, cheap: tuple[Sequence[Prepared], RunOptions] | None
) -> Forecast:
    begun = time.perf_counter()
    encoder, note = _encoder(name, options)
    load_s = time.perf_counter() - begun
    stamp = model_stamp(name, options.weights, encoder)
    lines, memory = _lines(name, stamp, encoder, jobs, options)
    rates = calibrate(encoder, {size for line in lines for size in line.todo}, options.batch_size or 8)
    _time(lines, rates)
    fastest = max((rate * costs.forward(encoder.card, size) for size, rate in rates.items()), default=0.0)
    weights, room = weight_bytes(encoder.card), room_for_weights(device_of(encoder, options.device))
    plan = Forecast(named(name, options), lines, rates, memory, note, load_s, fastest, weights, room)
    plain = [prepared for prepared in jobs if prepared[1] is None]
    if len(plain) < len(jobs):
        plan.of_presets = Forecast(name, _lines(name, stamp, encoder, plain, options)[0], {}, 0).forwards
    if cheap is not None:
        others, memory = _lines(name, stamp, encoder, *cheap)
        new = {size for line in others for size in line.todo} - set(rates)
        both = {**rates, **{size: _scaled(size, rates, encoder.card) for size in new if rates}}
        if rates or not new:
            _time(others, both)
            plan.fast = Forecast(plan.model, others, both, memory)
    return plan


def _encoder(name: str, options: RunOptions) -> tuple[Encoder, str]:
    """The model, or its stand-in when its weights are not here."""
    try:
        return encoder_of(name, options), ""
    except BenchError as e:
        if e.exit_code == 2 or "embed_dim" not in models().get(name, {}) or options.weights:
            raise
        block = RandomBlock(name, resolve_device(options.device))
        return block, f"weights not here: timed on one random block of the same width, times {block.blocks}"


def _lines(
    name: str, stamp: str, encoder: Encoder, jobs: Sequence[Prepared], options: RunOptions
) -> tuple[list[Line], int]:
    session = Session.of(encoder, options, device_of(encoder, options.device))
    planned: Planned = {}
    lines, memory = [], 0
    for unit, change, job, note in jobs:
        if job is None:
            lines.append(Line(str(unit), note=note, change=str(change or "")))
            continue
        protocol = job.protocol.values if isinstance(job, Job) else job.protocol
        line, held = Line(str(unit)), 0
        try:
            with staying():
                if reason := refusal(job.task, encoder.card, protocol):
                    raise NotApplicable(reason)
                if isinstance(job, Job) and not options.force and _finished(job, name, stamp, options):
                    note = "done"
                else:
                    line, held = _line(unit, job.task.method(protocol), job.data, session, planned)
        except NotApplicable as e:
            note = f"n/a: {e}"
        except BenchError as e:
            note = str(e)
        except Exception as e:  # as `run` has it: one task's method stops no other
            note = f"{type(e).__name__}: {first_line(e)}"
        line.note, line.change = note, str(change or "")
        lines.append(line)
        memory = max(memory, held)
    return lines, memory


def _finished(job: Job, name: str, stamp: str, options: RunOptions) -> bool:
    return slot_of(job, name, stamp, options).finished(options.cross_check) is not None


def _line(
    unit: Unit, method: Method[Any], data: Mapping[str, Any], session: Session, planned: Planned
) -> tuple[Line, int]:
    card, planner = session.encoder.card, session.planner
    named = method.wanted(card, data)
    needs = tuple(named.values())
    before = {id(a) for p in planner.passes.values() for a in p.taps.values()}
    planner.add(needs)
    line = Line(str(unit), head_steps=method.head_steps())
    memory = 0
    for shared in {id(p): p for p in map(planner.of, needs)}.values():
        own = {b for need in needs if planner.of(need) is shared for b in shared.blocks_without(planner.array(need))}
        counted = planned.setdefault((shared.images.digest, shared.view.fingerprint()), set())
        alone, new = _pictures(shared, own), _pictures(shared, own - counted)
        counted |= own
        line.images += len(shared.images)
        line.forwards += alone
        line.shared += alone - new
        size = input_size(shared.view, card, _shapes(shared.images, 1)[0])
        name = f"{shared.images.digest[:12]} {shared.view.fingerprint()[:12]}"
        line.passes[name], line.pixels[name] = (size, new), shared.pixels
        _add(line, size, new)
    for need in needs:
        array = planner.array(need)
        values = item_values(need.tap, planner.of(need).view, card, SHAPE)
        if id(array) not in before and array.missing():
            line.disk += values * len(need.images) * codecs.bytes_per_value(array.codec)
        if need.tap.name == "pixels":
            line.head_rows += need.tap.count * len(need.images)
            width = values // need.tap.count * (2 if "train/cls" in named else 1)
            memory += fit_bytes(line.head_rows, width, CLASSES)
        memory += held_bytes(array, 4 * values, session.extractor.batch_size)
    train = data.get("train")
    if train is not None:
        rows, width = method.head_rows(card, len(train))
        line.head_rows += rows
        classes = len(train.class_names) if isinstance(train, (LabelData, SegmentationData)) else CLASSES
        memory += fit_bytes(rows, width, classes) if rows else 0
        line.fit = costs.fit(method, card, data)
    _live(line, method, data, card, bool(needs))
    return line, memory


def _live(line: Line, method: Method[Any], data: Mapping[str, Any], card: EncoderCard, stored: bool) -> None:
    """Adds the forwards whose features are not kept."""
    pictures = next(iter(list(data.values())[-1].pictures().values()))
    shapes = _shapes(pictures, len(pictures))
    if not stored:
        line.images += sum(len(split) for split in data.values())
    train = len(data["train"]) if "train" in data else 0
    for size, forwards in method.live_forwards(card, shapes, train).items():
        line.live += forwards
        _add(line, _padded(size, card), forwards)
    line.crops = {_padded(size, card): n for size, n in method.crop_forwards(card, shapes, train).items()}


def _padded(size: Size, card: EncoderCard) -> Size:
    """Whole patches; (0, 0) is the encoder's own size."""
    height, width = size if all(size) else (card.image_size, card.image_size)
    return -(-height // card.patch_size) * card.patch_size, -(-width // card.patch_size) * card.patch_size


def _add(line: Line, size: Size, forwards: int) -> None:
    if forwards:
        line.todo[size] = line.todo.get(size, 0) + forwards


def _shapes(pictures: Any, n: int) -> list[Size]:
    """(height, width) of `n` pictures: those of a few, over and over."""
    try:
        places = sorted({round(i * (len(pictures) - 1) / max(1, SAMPLED - 1)) for i in range(min(n, SAMPLED))})
        known = [pictures.picture(place).shape[:2] for place in places]
    except BenchError:
        known = [SHAPE]
    return list(itertools.islice(itertools.cycle(known), n))


def _pictures(shared: Pass, blocks: set[int]) -> int:
    return sum(len(shared.block_range(block)) for block in blocks)


def calibrate(encoder: Encoder, sizes: set[Size], batch: int) -> dict[Size, float]:
    """Images per second at each input size: measured from the smallest up while the time lasts, then scaled."""
    rates: dict[Size, float] = {}
    deadline = time.perf_counter() + CALIBRATION_S
    ordered = sorted(sizes, key=lambda s: (s[0] * s[1], s))
    for place, size in enumerate(ordered):
        left = deadline - time.perf_counter()
        expected = 1 / _scaled(size, rates, encoder.card) if rates else 0.0
        if rates and 2 * expected > left:
            rates[size] = _scaled(size, rates, encoder.card)
        else:
            rates[size] = _measured(encoder, size, batch, left / (len(ordered) - place))
    return rates


def _measured(encoder: Encoder, size: Size, batch: int, seconds: float) -> float:
    """Images per second over about `seconds`: one picture to warm up, then batches as long as they fit."""
    device = device_of(encoder)
    depth = encoder.blocks if isinstance(encoder, RandomBlock) else 1
    images = torch.rand(batch, 3, *size)

    def timed(count: int) -> float:
        begun = time.perf_counter()
        remedy = f"See bench check --model {encoder.card.name}"
        with reading(encoder.card.name, "encode_image fails", remedy, EncoderError):
            features = encoder.encode_image(images[:count].to(device), ImageRequest())
        _wait(features)
        return time.perf_counter() - begun

    with torch.inference_mode():
        first = timed(1)  # the slowest: kernels are chosen, weights are paged in
        count = max(1, min(batch, int((seconds - first) / first)))
        done, spent = count, timed(count)
        while first + spent * (1 + count / done) < seconds and done < 20 * batch:
            done, spent = done + count, spent + timed(count)
    return done / spent / depth


def _scaled(size: Size, rates: Mapping[Size, float], card: EncoderCard) -> float:
    """The rate at `size` from the nearest measured one, by the products of a transformer block."""

    def cost(at: Size) -> float:
        return costs.forward(card, at)

    near = min(rates, key=lambda known: abs(cost(known) - cost(size)))
    return rates[near] * cost(near) / cost(size)


def _time(lines: Sequence[Line], rates: Mapping[Size, float]) -> None:
    for line in lines:
        line.seconds = sum(count / rates[size] for size, count in line.todo.items())


def _wait(features: Any) -> None:
    features.cls.float().sum().item()  # an accelerator has only been asked until a value is read
